import type { ContainerEngine } from "#engine/container-engine.ts";
import { answerWithArchive } from "./archive-answer.ts";
import type { Route } from "./route.ts";

/** Archives out of containers and into them: the Engine API's `export` and `archive`. */
export function archiveRoutes(engine: ContainerEngine): Route[] {
  return [
    {
      method: "GET",
      pattern: "/containers/{id}/export",
      handler: async (exchange) => {
        const archive = engine.export(exchange.params["id"] ?? "", exchange.signal);
        await answerWithArchive(exchange, archive, { contentType: "application/octet-stream" });
      },
    },
  ];
}
