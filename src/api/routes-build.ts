import { EngineError, messageOf } from "#base/errors.ts";
import { type BuildEngine, type BuildParameters, exitCodeOf } from "#engine/build.ts";
import { buildSessionHeader } from "#wire/build-session.ts";
import { hostConfigSchema } from "#wire/container-schema.ts";
import { OutputQueue } from "./output-queue.ts";
import { answerWithProgress } from "./progress-answer.ts";
import type { Exchange, Query, Route } from "./route.ts";

/** `POST /build` and the cache's routes (COMPAT.md 20). */
export function buildRoutes(builds: BuildEngine): Route[] {
  return [
    { method: "POST", pattern: "/build", handler: (exchange) => build(builds, exchange) },
    {
      method: "POST",
      pattern: "/build/session",
      handler: async (exchange) => await builds.session(await exchange.hijack({ multiplexed: false })),
    },
    {
      method: "POST",
      pattern: "/build/prune",
      handler: async (exchange) => {
        const { query } = exchange;
        const keepBytes = query.integer("keep-storage") || query.integer("reserved-space");
        exchange.sendJson(
          200,
          await builds.prune({ all: query.bool("all"), keepBytes, filters: query.get("filters") }),
        );
      },
    },
  ];
}

function badQuery(message: string): EngineError {
  return new EngineError("invalid", message, { code: "bad-query" });
}

/** A parameter that is JSON, within the bounds of a query. */
function jsonParameter(query: Query, name: string): unknown {
  const text = query.get(name);
  if (text === undefined || text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new EngineError("invalid", `error reading ${name}: ${messageOf(cause)}`, {
      code: "bad-query",
      cause,
    });
  }
}

function stringMap(value: unknown, name: string): Map<string, string | undefined> {
  const found = new Map<string, string | undefined>();
  if (value === undefined || value === null) return found;
  if (typeof value !== "object" || Array.isArray(value))
    throw badQuery(`error reading ${name}: not an object`);
  for (const [key, entry] of Object.entries(value)) {
    if (typeof entry !== "string" && entry !== null)
      throw badQuery(`error reading ${name}: ${key} is not a string`);
    found.set(key, entry ?? undefined);
  }
  return found;
}

const listMax = 1000;

function stringList(value: unknown, name: string): string[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value) || value.length > listMax || !value.every((entry) => typeof entry === "string"))
    throw badQuery(`error reading ${name}: not a list of strings`);
  return value as string[];
}

/** What a Dockerfile may ask for beyond its containers. */
const entitlementNames: readonly string[] = ["network.host", "security.insecure"];

function entitlementsOf(names: readonly string[]): ReadonlySet<string> {
  const unknown = names.find((name) => !entitlementNames.includes(name));
  if (unknown !== undefined) throw badQuery(`unknown entitlement ${JSON.stringify(unknown)}`);
  return new Set(names);
}

function parametersOf(exchange: Exchange, room: () => Promise<void>): BuildParameters {
  const { query } = exchange;
  const text = (name: string): string => query.get(name) ?? "";
  if (text("version") === "2") {
    throw new EngineError(
      "notImplemented",
      "this daemon's BuildKit API is not there yet: build with DOCKER_BUILDKIT=0",
      { code: "buildkit" },
    );
  }
  if (text("outputs") !== "" && text("outputs") !== "null" && text("outputs") !== "[]") {
    throw badQuery("custom outputs need the BuildKit API");
  }
  const labels = Object.fromEntries(
    [...stringMap(jsonParameter(query, "labels"), "labels")].map(([key, value]) => [key, value ?? ""]),
  );
  // Without the parameter Docker's builder keeps nothing.
  const remove = query.get("rm") === undefined ? true : query.bool("rm");
  return {
    body: exchange.bodyPieces(),
    remote: text("remote"),
    dockerfile: text("dockerfile"),
    tags: query.all("t").filter((tag) => tag !== ""),
    args: stringMap(jsonParameter(query, "buildargs"), "buildargs"),
    labels,
    target: text("target"),
    platform: text("platform"),
    useCache: !query.bool("nocache"),
    pull: query.bool("pull"),
    remove,
    forceRemove: query.bool("forcerm"),
    quiet: query.bool("q"),
    hostConfig: hostConfigOf(query),
    authFor: registryConfig(exchange.headers["x-registry-config"]),
    room,
    entitlements: entitlementsOf(query.all("allow")),
    cacheFrom: stringList(jsonParameter(query, "cachefrom"), "cachefrom"),
    squash: query.bool("squash"),
    session: exchange.headers[buildSessionHeader],
  };
}

function hostConfigOf(query: Query): BuildParameters["hostConfig"] {
  const text = (name: string): string => query.get(name) ?? "";
  const ulimits = jsonParameter(query, "ulimits");
  const extra = text("extrahosts");
  const extraHosts = extra.startsWith("[")
    ? (jsonParameter(query, "extrahosts") as unknown[])
    : extra.split(",");
  return {
    ...hostConfigSchema.zero(),
    NetworkMode: text("networkmode") || "default",
    LogConfig: { Type: "none", Config: {} },
    Memory: query.integer("memory"),
    MemorySwap: query.integer("memswap"),
    CpuShares: query.integer("cpushares"),
    CpuPeriod: query.integer("cpuperiod"),
    CpuQuota: query.integer("cpuquota"),
    CpusetCpus: text("cpusetcpus"),
    CpusetMems: text("cpusetmems"),
    CgroupParent: text("cgroupparent"),
    ShmSize: query.integer("shmsize"),
    ExtraHosts: extraHosts.map(String).filter((entry) => entry !== ""),
    SecurityOpt: query.all("securityopt").filter((entry) => entry !== "" && entry !== "null"),
    Ulimits: Array.isArray(ulimits) ? ulimits.map(ulimitOf) : null,
  };
}

function ulimitOf(value: unknown): { Name: string; Hard: number; Soft: number } {
  const { Name, Hard, Soft } = (value ?? {}) as Record<string, unknown>;
  if (typeof Name !== "string" || !Number.isSafeInteger(Hard) || !Number.isSafeInteger(Soft))
    throw badQuery("error reading ulimits");
  return { Name, Hard: Hard as number, Soft: Soft as number };
}

/** `X-Registry-Config`: credentials by registry. What cannot be read counts as none, as in Docker. */
function registryConfig(header: string | undefined): BuildParameters["authFor"] {
  let entries: Record<string, unknown> = {};
  try {
    const value: unknown = JSON.parse(Buffer.from(header ?? "", "base64").toString("utf8") || "{}");
    if (typeof value === "object" && value !== null) entries = value as Record<string, unknown>;
  } catch {
    entries = {};
  }
  return (host) => {
    const names =
      host === "docker.io"
        ? ["https://index.docker.io/v1/", "index.docker.io", "docker.io"]
        : [host, `https://${host}`, `http://${host}`];
    const found = names.find((name) => Object.hasOwn(entries, name));
    return found === undefined
      ? undefined
      : Buffer.from(JSON.stringify(entries[found])).toString("base64url");
  };
}

async function build(builds: BuildEngine, exchange: Exchange): Promise<void> {
  const queue = new OutputQueue();
  const parameters = parametersOf(exchange, () => queue.room());
  await answerWithProgress(
    exchange,
    async (report, signal) => {
      await builds.build(parameters, report, signal);
    },
    { queue, exitCodeOf },
  );
}
