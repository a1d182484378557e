import type { ImageService } from "#engine/images.ts";
import { string, struct } from "#wire/go-json.ts";
import type { Exchange, Route } from "./route.ts";

const authConfigSchema = struct("AuthConfig", {
  username: string,
  password: string,
  auth: string,
  email: string,
  serveraddress: string,
  identitytoken: string,
  registrytoken: string,
});

/** What the Engine API asks registries for: login, search, and what lies under a name. */
export function registryRoutes(images: ImageService): Route[] {
  return [
    { method: "POST", pattern: "/auth", handler: (exchange) => auth(images, exchange) },
    { method: "GET", pattern: "/images/search", handler: (exchange) => search(images, exchange) },
    {
      method: "GET",
      pattern: "/distribution/{name...}/json",
      handler: (exchange) => distribution(images, exchange),
    },
  ];
}

async function auth(images: ImageService, exchange: Exchange): Promise<void> {
  const { username, password, identitytoken, serveraddress } = await exchange.json(authConfigSchema);
  const request = { username, password, identityToken: identitytoken, serverAddress: serveraddress };
  const token = await images.login(request, exchange.signal);
  exchange.sendJson(200, { IdentityToken: token, Status: "Login Succeeded" });
}

async function search(images: ImageService, exchange: Exchange): Promise<void> {
  const { query } = exchange;
  const request = {
    term: query.get("term") ?? "",
    limit: query.integer("limit"),
    filters: query.get("filters"),
  };
  const results = await images.search(request, exchange.signal);
  exchange.sendJson(
    200,
    results.map((result) => ({
      star_count: result.starCount,
      is_official: result.isOfficial,
      name: result.name,
      is_automated: result.isAutomated,
      description: result.description,
    })),
  );
}

async function distribution(images: ImageService, exchange: Exchange): Promise<void> {
  const { descriptor, platforms } = await images.distribution(
    exchange.params["name"] ?? "",
    exchange.headers["x-registry-auth"],
    exchange.signal,
  );
  exchange.sendJson(200, {
    Descriptor: { mediaType: descriptor.mediaType, digest: descriptor.digest, size: descriptor.sizeBytes },
    Platforms: platforms,
  });
}
