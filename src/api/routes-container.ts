import { EngineError } from "#base/errors.ts";
import type { ContainerEngine } from "#engine/container-engine.ts";
import { listFilters } from "#engine/container-list.ts";
import { pruneFilters } from "#engine/container-remove.ts";
import { containerCreateSchema, containerUpdateSchema, hostConfigSchema } from "#wire/container-schema.ts";
import { parseFilters } from "#wire/filters.ts";
import type { Exchange, Route } from "./route.ts";
import { attachRoutes } from "./routes-container-io.ts";

function idOf(exchange: Exchange): string {
  return exchange.params["id"] ?? "";
}

/** The Engine API's `/containers`. What is not there yet is refused by name. */
export function containerRoutes(engine: ContainerEngine): Route[] {
  return [
    { method: "GET", pattern: "/containers/json", handler: (exchange) => list(engine, exchange) },
    { method: "POST", pattern: "/containers/create", handler: (exchange) => create(engine, exchange) },
    { method: "POST", pattern: "/containers/prune", handler: (exchange) => prune(engine, exchange) },
    {
      method: "GET",
      pattern: "/containers/{id...}/json",
      handler: async (exchange) => {
        const size = exchange.query.bool("size");
        exchange.sendJson(200, await engine.inspect(idOf(exchange), { size }));
      },
    },
    {
      method: "GET",
      pattern: "/containers/{id...}/changes",
      handler: async (exchange) => {
        const changes = await engine.changes(idOf(exchange));
        const body = changes.map(({ path, kind }) => ({ Path: path, Kind: kind }));
        exchange.sendJson(200, body.length === 0 ? null : body);
      },
    },
    {
      method: "GET",
      pattern: "/containers/{id...}/top",
      handler: async (exchange) => {
        exchange.sendJson(200, await engine.top(idOf(exchange), exchange.query.get("ps_args") ?? ""));
      },
    },
    {
      method: "POST",
      pattern: "/containers/{id...}/update",
      handler: async (exchange) => {
        const body = await exchange.json(containerUpdateSchema);
        exchange.sendJson(200, { Warnings: await engine.update(idOf(exchange), body) });
      },
    },
    {
      method: "POST",
      pattern: "/containers/{id...}/rename",
      handler: async (exchange) => {
        await engine.rename(idOf(exchange), exchange.query.get("name") ?? "");
        exchange.sendEmpty(204);
      },
    },
    { method: "DELETE", pattern: "/containers/{id...}", handler: (exchange) => remove(engine, exchange) },
    ...lifecycleRoutes(engine),
    ...attachRoutes(engine),
    ...laterRoutes(),
  ];
}

function lifecycleRoutes(engine: ContainerEngine): Route[] {
  const verb = (name: string, act: (exchange: Exchange) => Promise<void>): Route => ({
    method: "POST",
    pattern: `/containers/{id...}/${name}`,
    handler: async (exchange) => {
      await act(exchange);
      exchange.sendEmpty(204);
    },
  });
  return [
    verb("start", (exchange) => engine.start(idOf(exchange))),
    verb("stop", (exchange) => engine.stop(idOf(exchange), stopOptions(exchange))),
    verb("restart", (exchange) => engine.restart(idOf(exchange), stopOptions(exchange))),
    verb("kill", (exchange) => engine.kill(idOf(exchange), exchange.query.get("signal") ?? "")),
    verb("pause", (exchange) => engine.pause(idOf(exchange))),
    verb("unpause", (exchange) => engine.unpause(idOf(exchange))),
  ];
}

function stopOptions({ query }: Exchange): { signal: string; timeoutS: number | undefined } {
  const seconds = query.get("t");
  return {
    signal: query.get("signal") ?? "",
    timeoutS: seconds === undefined || seconds === "" ? undefined : query.integer("t"),
  };
}

async function list(engine: ContainerEngine, exchange: Exchange): Promise<void> {
  const { query } = exchange;
  const text = await engine.list({
    all: query.bool("all"),
    limit: query.integer("limit"),
    size: query.bool("size"),
    filters: parseFilters(query.get("filters"), listFilters),
  });
  // The engine keeps the parts of this text ready: it is not taken apart to be put together again.
  const answer = exchange.stream(200, "application/json");
  await answer.write(`${text}\n`);
  answer.end();
}

async function create(engine: ContainerEngine, exchange: Exchange): Promise<void> {
  const { HostConfig, NetworkingConfig, ...config } = await exchange.json(containerCreateSchema);
  const created = await engine.create({
    name: exchange.query.get("name") ?? "",
    platform: exchange.query.get("platform") ?? "",
    config,
    hostConfig: HostConfig ?? hostConfigSchema.zero(),
    endpoints: NetworkingConfig?.EndpointsConfig ?? {},
  });
  exchange.sendJson(201, { Id: created.id, Warnings: created.warnings });
}

async function remove(engine: ContainerEngine, exchange: Exchange): Promise<void> {
  const { query } = exchange;
  if (query.bool("link")) {
    throw new EngineError("invalid", "removing a link is not supported", { code: "not-supported" });
  }
  await engine.remove(idOf(exchange), { force: query.bool("force"), volumes: query.bool("v") });
  exchange.sendEmpty(204);
}

async function prune(engine: ContainerEngine, exchange: Exchange): Promise<void> {
  const filters = parseFilters(exchange.query.get("filters"), pruneFilters);
  const { deleted, reclaimedBytes } = await engine.prune(filters);
  exchange.sendJson(200, {
    ContainersDeleted: deleted.length === 0 ? null : deleted,
    SpaceReclaimed: reclaimedBytes,
  });
}

function laterRoutes(): Route[] {
  const later = (method: Route["method"], pattern: string, what: string): Route => ({
    method,
    pattern,
    handler: () => {
      throw new EngineError("notImplemented", `${what} is not supported yet`, { code: "not-supported" });
    },
  });
  return [
    later("GET", "/containers/{id...}/stats", "reading a container's statistics"),
    later("GET", "/containers/{id...}/attach/ws", "attaching by WebSocket"),
    later("GET", "/containers/{id...}/checkpoints", "checkpointing a container"),
    later("POST", "/containers/{id...}/checkpoints", "checkpointing a container"),
  ];
}
