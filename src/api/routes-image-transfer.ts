import type { ContainerEngine } from "#engine/container-engine.ts";
import type { ImageService } from "#engine/images.ts";
import { containerConfigSchema } from "#wire/container-schema.ts";
import { decodeJson, string, struct } from "#wire/go-json.ts";
import type { Platform } from "#wire/oci-image.ts";
import { answerWithArchive } from "./archive-answer.ts";
import { answerWithProgress } from "./progress-answer.ts";
import type { Exchange, Route } from "./route.ts";

/** Images out of containers, archives and registries, and back: the Engine API's commit, save, load, push and their like. */
export function imageTransferRoutes(images: ImageService, containers: ContainerEngine): Route[] {
  return [
    { method: "POST", pattern: "/commit", handler: (exchange) => commit(images, containers, exchange) },
    { method: "POST", pattern: "/images/{name...}/push", handler: (exchange) => push(images, exchange) },
    { method: "POST", pattern: "/images/load", handler: (exchange) => load(images, exchange) },
    {
      method: "GET",
      pattern: "/images/get",
      handler: (exchange) => save(images, exchange, exchange.query.all("names")),
    },
    {
      method: "GET",
      pattern: "/images/{name...}/get",
      handler: (exchange) => save(images, exchange, [exchange.params["name"] ?? ""]),
    },
  ];
}

async function push(images: ImageService, exchange: Exchange): Promise<void> {
  const { query, headers, params } = exchange;
  const platform = platformOf(query.get("platform"));
  const call = {
    name: params["name"] ?? "",
    tag: query.get("tag") ?? "",
    registryAuth: headers["x-registry-auth"],
    ...(platform === undefined ? {} : { platform }),
  };
  await answerWithProgress(exchange, (report, signal) => images.push(call, report, signal));
}

async function save(images: ImageService, exchange: Exchange, names: readonly string[]): Promise<void> {
  await answerWithArchive(exchange, await images.save(names, exchange.signal));
}

async function load(images: ImageService, exchange: Exchange): Promise<void> {
  const { query } = exchange;
  const request = {
    body: exchange.bodyPieces(),
    quiet: query.bool("quiet", true),
    platform: platformOf(query.get("platform")),
  };
  await answerWithProgress(exchange, (report, signal) => images.load(request, report, signal));
}

/** A platform as the API takes it since 1.46: JSON of its parts. */
function platformOf(text: string | undefined): Platform | undefined {
  if (text === undefined || text === "") return undefined;
  const { os, architecture, variant } = decodeJson(platformSchema, text);
  return { os, architecture, ...(variant === "" ? {} : { variant }) };
}

const platformSchema = struct("Platform", { architecture: string, os: string, variant: string });

async function commit(images: ImageService, containers: ContainerEngine, exchange: Exchange): Promise<void> {
  const { query } = exchange;
  const text = (name: string): string => query.get(name) ?? "";
  // Docker's client sends `null`, others an empty object or nothing.
  const config = await exchange.json(containerConfigSchema, { emptyIsZero: true });
  await using source = await containers.commitSource(
    text("container"),
    text("pause") === "" || query.bool("pause"),
  );
  const request = {
    repository: text("repo"),
    tag: text("tag"),
    comment: text("comment"),
    author: text("author"),
    changes: query.all("changes"),
    config,
  };
  const image = await images.commit(source, request, exchange.signal);
  exchange.sendJson(201, { Id: image.id });
}
