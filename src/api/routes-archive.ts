import { formatTime } from "#base/clock.ts";
import { EngineError } from "#base/errors.ts";
import type { CopyPlace, PathStat } from "#engine/container-archive.ts";
import type { ContainerEngine } from "#engine/container-engine.ts";
import { answerWithArchive } from "./archive-answer.ts";
import type { Exchange, Route } from "./route.ts";

/** Archives out of containers and into them: the Engine API's `export` and `archive`. */
export function archiveRoutes(engine: ContainerEngine): Route[] {
  return [
    {
      method: "GET",
      pattern: "/containers/{id...}/export",
      handler: async (exchange) => {
        const archive = engine.export(exchange.params["id"] ?? "", exchange.signal);
        await answerWithArchive(exchange, archive, { contentType: "application/octet-stream" });
      },
    },
    {
      method: "HEAD",
      pattern: "/containers/{id...}/archive",
      handler: async (exchange) => {
        exchange.sendEmpty(200, statHeaders(await engine.statPath(placeOf(exchange))));
      },
    },
    {
      method: "GET",
      pattern: "/containers/{id...}/archive",
      handler: async (exchange) => {
        const { stat, archive } = await engine.archive(placeOf(exchange), exchange.signal);
        await answerWithArchive(exchange, archive, { headers: statHeaders(stat) });
      },
    },
    {
      method: "PUT",
      pattern: "/containers/{id...}/archive",
      handler: (exchange) => extract(engine, exchange),
    },
  ];
}

async function extract(engine: ContainerEngine, exchange: Exchange): Promise<void> {
  const { query } = exchange;
  const request = {
    ...placeOf(exchange),
    noOverwriteDirNonDir: query.bool("noOverwriteDirNonDir"),
    copyUidGid: query.bool("copyUIDGID"),
    body: exchange.body(),
  };
  await engine.extract(request, exchange.signal);
  exchange.sendEmpty(200);
}

function placeOf({ params, query }: Exchange): CopyPlace {
  const path = query.get("path") ?? "";
  if (path === "")
    throw new EngineError("invalid", "bad parameter: path cannot be empty", { code: "no-path" });
  return { reference: params["id"] ?? "", path };
}

/** JSON as Go writes it, in base64. */
function statHeaders(stat: PathStat): Readonly<Record<string, string>> {
  const json = JSON.stringify({
    name: stat.name,
    size: stat.sizeBytes,
    mode: stat.mode,
    mtime: formatTime(presentable(stat.mtimeNs)),
    linkTarget: stat.linkTarget,
  });
  const escaped = json.replaceAll(/[<>&]/g, (sign) => `\\u00${sign.charCodeAt(0).toString(16)}`);
  return { "X-Docker-Container-Path-Stat": Buffer.from(escaped).toString("base64") };
}

/** A file may say any time; JSON has the years to 9999, and before 1970 nothing that matters here was written. */
function presentable(ns: bigint): bigint {
  const last = 253_402_300_799_000_000_000n;
  return ns < 0n ? 0n : ns > last ? last : ns;
}
