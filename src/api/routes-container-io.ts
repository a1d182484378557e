/** Routes that stream: attach, logs, wait; and resize, which goes with them. */

import { systemClock } from "#base/clock.ts";
import { EngineError } from "#base/errors.ts";
import type { ContainerEngine } from "#engine/container-engine.ts";
import { parseInstant } from "#wire/filters.ts";
import type { Exchange, Route } from "./route.ts";
import { atLeast } from "./version.ts";

function idOf(exchange: Exchange): string {
  return exchange.params["id"] ?? "";
}

export function attachRoutes(engine: ContainerEngine): Route[] {
  return [
    {
      method: "POST",
      pattern: "/containers/{id...}/attach",
      handler: (exchange) => attach(engine, exchange),
    },
    { method: "GET", pattern: "/containers/{id...}/logs", handler: (exchange) => logs(engine, exchange) },
    { method: "POST", pattern: "/containers/{id...}/wait", handler: (exchange) => wait(engine, exchange) },
    {
      method: "POST",
      pattern: "/containers/{id...}/resize",
      handler: async (exchange) => {
        await engine.resize(idOf(exchange), terminalSize(exchange));
        exchange.sendEmpty(200);
      },
    },
  ];
}

const terminalSideMax = 0xffff;

/** `h` and `w` of a resize. */
export function terminalSize({ query }: Exchange): { rows: number; columns: number } {
  const side = (name: string): number => {
    const text = query.get(name) ?? "";
    const value = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
    if (value <= terminalSideMax) return value;
    throw new EngineError("invalid", `strconv.ParseUint: parsing ${JSON.stringify(text)}: invalid syntax`, {
      code: "bad-query",
    });
  };
  return { rows: side("h"), columns: side("w") };
}

async function attach(engine: ContainerEngine, exchange: Exchange): Promise<void> {
  const { query } = exchange;
  const attachment = engine.attach(idOf(exchange), {
    stdin: query.bool("stdin"),
    stdout: query.bool("stdout"),
    stderr: query.bool("stderr"),
    logs: query.bool("logs"),
    stream: query.bool("stream"),
    detachKeys: query.get("detachKeys") ?? "",
  });
  let client: Awaited<ReturnType<Exchange["hijack"]>>;
  try {
    client = await exchange.hijack({ multiplexed: !attachment.terminal });
  } catch (error) {
    attachment.cancel();
    throw error;
  }
  await attachment.serve(client);
}

function instant(exchange: Exchange, name: "since" | "until"): bigint | undefined {
  const text = exchange.query.get(name) ?? "";
  if (text === "" || text === "0") return undefined;
  const found = parseInstant(text, systemClock.nowNs());
  if (found !== undefined) return found;
  throw new EngineError(
    "invalid",
    `invalid value for "${name}": failed to parse value as time or duration: ${JSON.stringify(text)}`,
    {
      code: "bad-query",
    },
  );
}

function tailOf(exchange: Exchange): number | undefined {
  const text = exchange.query.get("tail") ?? "";
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

async function logs(engine: ContainerEngine, exchange: Exchange): Promise<void> {
  const { query } = exchange;
  const log = engine.logs(idOf(exchange), {
    stdout: query.bool("stdout"),
    stderr: query.bool("stderr"),
    follow: query.bool("follow"),
    timestamps: query.bool("timestamps"),
    details: query.bool("details"),
    tail: tailOf(exchange),
    sinceNs: instant(exchange, "since"),
    untilNs: instant(exchange, "until"),
    signal: exchange.signal,
  });
  const framed = !log.terminal && atLeast(exchange.apiVersion, 1, 42);
  const answer = exchange.stream(200, `application/vnd.docker.${framed ? "multiplexed" : "raw"}-stream`);
  try {
    for await (const chunk of log.chunks) await answer.write(chunk);
  } catch (error) {
    // A client that has gone is no failure.
    if (!exchange.signal.aborted) throw error;
  }
  answer.end();
}

/** The waiter is registered before the headers go out, and they go out before it waits (COMPAT, "Wire facts"). */
async function wait(engine: ContainerEngine, exchange: Exchange): Promise<void> {
  const waiting = engine.wait(idOf(exchange), exchange.query.get("condition") ?? "");
  const answer = exchange.stream(200, "application/json");
  const gone = new Promise<undefined>((resolve) => {
    exchange.signal.addEventListener("abort", () => resolve(undefined), { once: true });
  });
  const exitCode = await Promise.race([waiting.exit, gone]);
  if (exitCode === undefined) waiting.forget();
  else await answer.write(`${JSON.stringify({ StatusCode: exitCode, Error: null })}\n`);
  answer.end();
}
