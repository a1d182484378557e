import type { ContainerEngine } from "#engine/container-engine.ts";
import { execCreateSchema, execStartSchema } from "#wire/container-schema.ts";
import type { Exchange, Route } from "./route.ts";
import { terminalSize } from "./routes-container-io.ts";

function idOf(exchange: Exchange): string {
  return exchange.params["id"] ?? "";
}

/** The Engine API's `/exec`, and the making of an exec in a container. */
export function execRoutes(engine: ContainerEngine): Route[] {
  return [
    {
      method: "POST",
      pattern: "/containers/{id...}/exec",
      handler: async (exchange) => {
        const body = await exchange.json(execCreateSchema);
        exchange.sendJson(201, { Id: engine.createExec(idOf(exchange), body) });
      },
    },
    { method: "POST", pattern: "/exec/{id}/start", handler: (exchange) => start(engine, exchange) },
    {
      method: "GET",
      pattern: "/exec/{id}/json",
      handler: (exchange) => exchange.sendJson(200, engine.inspectExec(idOf(exchange))),
    },
    {
      method: "POST",
      pattern: "/exec/{id}/resize",
      handler: async (exchange) => {
        await engine.resizeExec(idOf(exchange), terminalSize(exchange));
        exchange.sendEmpty(200);
      },
    },
  ];
}

/** Once the connection is taken over, a process that cannot be started is told in the stream: Docker does the same. */
async function start(engine: ContainerEngine, exchange: Exchange): Promise<void> {
  const body = await exchange.json(execStartSchema, { emptyIsZero: true });
  const started = engine.startExec(idOf(exchange), body);
  if (body.Detach) {
    await started.detached();
    exchange.sendEmpty(200);
    return;
  }
  let client: Awaited<ReturnType<Exchange["hijack"]>>;
  try {
    client = await exchange.hijack({ multiplexed: !started.terminal });
  } catch (error) {
    started.cancel();
    throw error;
  }
  await started.serve(client);
}
