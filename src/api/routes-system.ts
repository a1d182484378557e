import { formatTime } from "#base/clock.ts";
import { EngineError } from "#base/errors.ts";
import type { EngineEvent } from "#engine/events.ts";
import type { DiskUsage, DiskUsageObject, SystemEngine } from "#engine/system.ts";
import { eventFilterKeys } from "#engine/system-events.ts";
import { parseFilters, parseInstant } from "#wire/filters.ts";
import { summaryShape } from "./image-shapes.ts";
import type { ApiVersion, Exchange, Route } from "./route.ts";
import { volumeBody } from "./routes-volume.ts";
import { apiVersionMax, apiVersionMin, formatVersion } from "./version.ts";

const pingHeaders = {
  // 1: the classic builder. BuildKit (2) would make clients open /session, which is not there yet.
  "Builder-Version": "1",
  "Cache-Control": "no-cache, no-store, must-revalidate",
  Pragma: "no-cache",
  Swarm: "inactive",
} as const;

/** One line of `/events`. `status`, `id` and `from` stand beside the newer shape for clients below 1.52. */
export function eventLine(event: EngineEvent): string {
  const { type, action, actorId, attributes, timeNs } = event;
  const image = attributes["image"];
  const legacy =
    type === "container" || type === "image"
      ? { status: action, id: actorId, ...(type === "container" && image ? { from: image } : {}) }
      : {};
  const body = JSON.stringify({
    ...legacy,
    Type: type,
    Action: action,
    Actor: { ID: actorId, Attributes: attributes },
    scope: "local",
    time: Number(timeNs / 1_000_000_000n),
  });
  // timeNano does not fit a JavaScript number: its digits are written into the text.
  return `${body.slice(0, -1)},"timeNano":${timeNs}}\n`;
}

/** One text an event, however many clients listen. */
const lines = new WeakMap<EngineEvent, string>();

function cachedLine(event: EngineEvent): string {
  let line = lines.get(event);
  if (line === undefined) {
    line = eventLine(event);
    lines.set(event, line);
  }
  return line;
}

function instant(exchange: Exchange, name: string): bigint | undefined {
  const text = exchange.query.get(name);
  if (text === undefined || text === "" || text === "0") return undefined;
  const ns = parseInstant(text, BigInt(Date.now()) * 1_000_000n);
  if (ns === undefined) {
    throw new EngineError("invalid", `invalid value for ${name}: ${JSON.stringify(text.slice(0, 64))}`, {
      code: "bad-time",
    });
  }
  return ns;
}

async function sendEvents(engine: SystemEngine, exchange: Exchange): Promise<void> {
  const query = {
    sinceNs: instant(exchange, "since"),
    untilNs: instant(exchange, "until"),
    filters: parseFilters(exchange.query.get("filters"), eventFilterKeys),
  };
  const events = engine.events(query, exchange.signal);
  // Clients wait for the headers before they do what they want to see events of (COMPAT 4).
  const answer = exchange.stream(200, "application/json");
  for await (const event of events) await answer.write(cachedLine(event));
  answer.end();
}

const usageObjects: readonly DiskUsageObject[] = ["container", "image", "volume", "build-cache"];

function wantedObjects(exchange: Exchange): ReadonlySet<DiskUsageObject> {
  const asked = exchange.query.all("type");
  for (const name of asked) {
    if (!(usageObjects as readonly string[]).includes(name)) {
      throw new EngineError("invalid", `unknown object type: ${name}`, { code: "bad-object-type" });
    }
  }
  return new Set(asked.length === 0 ? usageObjects : (asked as DiskUsageObject[]));
}

function cacheBody(record: NonNullable<DiskUsage["buildCache"]>[number]): object {
  return {
    ID: record.id,
    Parents: [],
    Type: record.type,
    Description: record.description,
    InUse: record.inUse,
    Shared: record.shared,
    Size: record.sizeBytes,
    CreatedAt: record.createdAt,
    LastUsedAt: formatTime(BigInt(record.lastUsedNs)),
    UsageCount: record.uses,
  };
}

function usageBody(usage: Partial<DiskUsage>, version: ApiVersion): object {
  return {
    LayersSize: usage.layersBytes ?? 0,
    Images:
      usage.images?.map((image) => ({ ...summaryShape(image, version), Containers: image.users })) ?? null,
    Containers: usage.containers === undefined ? null : JSON.parse(usage.containers),
    Volumes: usage.volumes?.map(({ volume, bytes, users }) => volumeBody(volume, { bytes, users })) ?? null,
    BuildCache: usage.buildCache?.map(cacheBody) ?? null,
  };
}

export function systemRoutes(engine: SystemEngine): Route[] {
  return [
    { method: "GET", pattern: "/_ping", handler: (exchange) => exchange.sendText(200, "OK", pingHeaders) },
    {
      method: "HEAD",
      pattern: "/_ping",
      // Docker says 0 here, not the length that GET would have.
      handler: (exchange) => exchange.sendText(200, "", pingHeaders),
    },
    {
      method: "GET",
      pattern: "/version",
      handler: (exchange) =>
        exchange.sendJson(
          200,
          engine.version({ max: formatVersion(apiVersionMax), min: formatVersion(apiVersionMin) }),
        ),
    },
    { method: "GET", pattern: "/info", handler: (exchange) => exchange.sendJson(200, engine.info()) },
    { method: "GET", pattern: "/events", handler: (exchange) => sendEvents(engine, exchange) },
    {
      method: "GET",
      pattern: "/system/df",
      handler: async (exchange) => {
        const wanted = wantedObjects(exchange);
        exchange.sendJson(200, usageBody(await engine.diskUsage(wanted), exchange.apiVersion));
      },
    },
  ];
}
