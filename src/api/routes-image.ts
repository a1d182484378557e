import { EngineError } from "#base/errors.ts";
import type { ImageService } from "#engine/images.ts";
import { detailsShape, summaryShape } from "./image-shapes.ts";
import { answerWithProgress } from "./progress-answer.ts";
import type { Exchange, Route } from "./route.ts";

function nameOf(exchange: Exchange): string {
  return exchange.params["name"] ?? "";
}

/** The Engine API's `/images`, without what moves images about. */
export function imageRoutes(images: ImageService): Route[] {
  return [
    { method: "GET", pattern: "/images/json", handler: (exchange) => list(images, exchange) },
    { method: "POST", pattern: "/images/create", handler: (exchange) => create(images, exchange) },
    {
      method: "GET",
      pattern: "/images/{name...}/json",
      handler: (exchange) => {
        exchange.sendJson(200, detailsShape(images.inspect(nameOf(exchange)), exchange.apiVersion));
      },
    },
    {
      method: "GET",
      pattern: "/images/{name...}/history",
      handler: (exchange) => exchange.sendJson(200, images.history(nameOf(exchange))),
    },
    {
      method: "POST",
      pattern: "/images/{name...}/tag",
      handler: async (exchange) => {
        const { query } = exchange;
        await images.tag(nameOf(exchange), query.get("repo") ?? "", query.get("tag") ?? "");
        exchange.sendEmpty(201);
      },
    },
    {
      method: "DELETE",
      pattern: "/images/{name...}",
      handler: async (exchange) => {
        const { query } = exchange;
        const options = { force: query.bool("force"), prune: !query.bool("noprune") };
        exchange.sendJson(200, await images.remove(nameOf(exchange), options));
      },
    },
    {
      method: "POST",
      pattern: "/images/prune",
      handler: async (exchange) => {
        exchange.sendJson(200, await images.prune(exchange.query.get("filters")));
      },
    },
  ];
}

function list(images: ImageService, exchange: Exchange): void {
  const { query, apiVersion } = exchange;
  const rows = images.list({
    all: query.bool("all"),
    sharedSize: query.bool("shared-size"),
    filters: query.get("filters"),
  });
  exchange.sendJson(
    200,
    rows.map((row) => summaryShape(row, apiVersion)),
  );
}

/** Pull (`fromImage`) or import (`fromSrc`). */
async function create(images: ImageService, exchange: Exchange): Promise<void> {
  const { query, headers } = exchange;
  const text = (name: string): string => query.get(name) ?? "";
  const fromImage = text("fromImage");
  if (fromImage !== "") {
    const call = {
      fromImage,
      tag: text("tag"),
      platform: text("platform"),
      registryAuth: headers["x-registry-auth"],
    };
    await answerWithProgress(exchange, (report, signal) => images.pull(call, report, signal));
    return;
  }
  const source = text("fromSrc");
  if (source === "") throw new EngineError("invalid", "fromImage or fromSrc must be given");
  const request = {
    source,
    body: exchange.body(),
    repository: text("repo"),
    tag: text("tag"),
    message: text("message"),
    changes: query.all("changes"),
    platform: text("platform"),
  };
  await answerWithProgress(exchange, (report, signal) => images.import(request, report, signal));
}
