import type { ContainerEngine } from "#engine/container-engine.ts";
import type { ImageService } from "#engine/images.ts";
import { containerConfigSchema } from "#wire/container-schema.ts";
import type { Exchange, Route } from "./route.ts";

/** Images out of containers, archives and registries, and back: the Engine API's commit, save, load, push and their like. */
export function imageTransferRoutes(images: ImageService, containers: ContainerEngine): Route[] {
  return [
    { method: "POST", pattern: "/commit", handler: (exchange) => commit(images, containers, exchange) },
  ];
}

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
