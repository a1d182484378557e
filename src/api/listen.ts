import { createServer, type Server, type Socket } from "node:net";
import { setTimeout } from "node:timers/promises";
import { createServer as createTlsServer, type TlsOptions, type Server as TlsServer } from "node:tls";
import { AssertionFailure } from "#base/assert.ts";
import { EngineError } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import { mapError } from "./error-map.ts";
import { boundListener, type TcpBounds, tcpBounds } from "./listen-bounds.ts";
import { Connection, type ConnectionOptions } from "./listen-connection.ts";
import { HttpExchange } from "./listen-exchange.ts";
import { foreignRequest, type Guard } from "./listen-guard.ts";
import type { RequestHead } from "./listen-head.ts";
import type { Route } from "./route.ts";
import { createRouter, type Router } from "./router.ts";
import { checkVersion, versionText } from "./version.ts";

/**
 * The HTTP front: connections in, exchanges to the handlers, errors to Docker's answers.
 * A handler's failure is an answer, never the daemon's end; only `AssertionFailure` goes on to the process.
 */
export interface HttpFront {
  /** A server on unix sockets whose connections this front serves; the caller makes it listen. */
  createServer(): Server;
  /** A server on TCP, with TLS where `tls` is given. `isOwnName`: names by which clients may address it. */
  createTcpServer(options: TcpServerOptions): Server | TlsServer;
  /** From here on requests are answered; connections that came before have waited. */
  open(routes: readonly Route[]): void;
  /** Takes no further request; waits up to `graceMs` for those in flight, then breaks every connection. */
  close(graceMs: number): Promise<void>;
}

export interface TcpServerOptions {
  readonly tls?: TlsOptions;
  readonly isOwnName: (name: string) => boolean;
  readonly bounds?: TcpBounds;
}

const closePollMs = 10;
/** Connections that wait for the daemon to be ready; the kernel holds some more. */
const earlyConnectionsMax = 1024;
const noNames: Guard = { isOwnName: undefined, encrypted: false };
/** allowHalfOpen: attach needs it. */
const serverOptions = { allowHalfOpen: true, noDelay: true } as const;
/**
 * A peer that is gone without a word is noticed within half a minute (keepAliveInitialDelay, then libuv's ten probes a
 * second apart), so that an attach or a build of its does not go on for nobody.
 */
const tcpOptions = { ...serverOptions, keepAlive: true, keepAliveInitialDelay: 15_000 } as const;

export interface HttpFrontOptions {
  /** Without them every connection waits until `open`. */
  readonly routes?: readonly Route[];
  readonly log: Log;
}

export function createHttpFront({ routes, log }: HttpFrontOptions): HttpFront {
  let router = routes === undefined ? undefined : createRouter(routes);
  const connections = new Set<Connection>();
  const early = new Map<Socket, ConnectionOptions>();
  let closing = false;

  const serve = (socket: Socket, options: ConnectionOptions): void => {
    if (router === undefined) {
      wait(socket, options);
      return;
    }
    const routed = router;
    const connection = new Connection(socket, (head) => begin(head, connection, routed, log), options);
    connections.add(connection);
    socket.once("close", () => connections.delete(connection));
    if (closing) connection.shutdown();
  };

  const wait = (socket: Socket, options: ConnectionOptions): void => {
    socket.on("error", () => {});
    if (closing || early.size >= earlyConnectionsMax) {
      socket.destroy();
      return;
    }
    early.set(socket, options);
    socket.once("close", () => early.delete(socket));
  };

  return {
    createServer: () => createServer(serverOptions, (socket) => serve(socket, { guard: noNames })),
    createTcpServer: ({ tls, isOwnName, bounds = tcpBounds }) => {
      const { idleTimeoutMs, handshakeTimeoutMs: handshakeTimeout } = bounds;
      const guard: Guard = { isOwnName, encrypted: tls !== undefined };
      const listener = (socket: Socket): void => serve(socket, { guard, idleTimeoutMs });
      const server =
        tls === undefined
          ? createServer(tcpOptions, listener)
          : createTlsServer({ ...tls, ...tcpOptions, handshakeTimeout }, listener);
      boundListener(server, bounds, log);
      return server;
    },
    open: (opened) => {
      router = createRouter(opened);
      for (const [socket, options] of early) serve(socket, options);
      early.clear();
    },
    close: async (graceMs) => {
      closing = true;
      for (const socket of early.keys()) socket.destroy();
      for (const connection of connections) connection.shutdown();
      const deadline = performance.now() + graceMs;
      while (performance.now() < deadline && [...connections].some((connection) => connection.busy)) {
        await setTimeout(closePollMs);
      }
      for (const connection of connections) connection.destroy();
    },
  };
}

function begin(head: RequestHead, connection: Connection, router: Router, log: Log): HttpExchange {
  const question = head.target.indexOf("?");
  const rawPath = question === -1 ? head.target : head.target.slice(0, question);
  const query = question === -1 ? "" : head.target.slice(question + 1);
  const exchange = new HttpExchange(head, connection, query);
  exchange.path = rawPath;
  answer(exchange, rawPath, query, router, foreignRequest(head, connection.guard)).then(
    () => {
      if (exchange.complete) return;
      log.error("a handler returned without an answer", { method: exchange.method, path: exchange.path });
      fail(exchange, new EngineError("system", "the request was not answered"), log);
    },
    (error: unknown) => fail(exchange, error, log),
  );
  return exchange;
}

async function answer(
  exchange: HttpExchange,
  rawPath: string,
  query: string,
  router: Router,
  foreign: string | undefined,
): Promise<void> {
  if (foreign !== undefined) throw new EngineError("forbidden", foreign, { code: "foreign-request" });
  const path = decodePath(rawPath);
  const segments = path.slice(1).split("/");
  const clean = cleanPath(segments);
  if (clean !== undefined) {
    exchange.sendEmpty(301, { Location: encodeURI(clean) + (query === "" ? "" : `?${query}`) });
    return;
  }
  const version = versionText(segments[0]!);
  const match = router.match(exchange.method, version === undefined ? segments : segments.slice(1));
  if (match === undefined) throw new EngineError("notFound", "page not found", { code: "no-route" });
  if (version !== undefined) exchange.apiVersion = checkVersion(version);
  exchange.path = version === undefined ? path : path.slice(version.length + 2);
  exchange.params = match.params;
  await match.handler(exchange);
}

function decodePath(rawPath: string): string {
  let path: string;
  try {
    // The head was read as latin1: bytes beyond ASCII are UTF-8 that a client did not escape.
    path = decodeURIComponent(
      /[\x80-\xff]/.test(rawPath) ? Buffer.from(rawPath, "latin1").toString("utf8") : rawPath,
    );
  } catch (cause) {
    throw new EngineError("invalid", "invalid URL escape in the request path", { code: "bad-path", cause });
  }
  if (path.includes("\0")) throw new EngineError("invalid", "invalid request path", { code: "bad-path" });
  return path;
}

/** Docker's router redirects a path with empty or dotted parts to its clean form; undefined when it is clean. */
function cleanPath(segments: readonly string[]): string | undefined {
  const last = segments.length - 1;
  if (segments.every((part, at) => (part !== "" || at === last) && part !== "." && part !== "..")) {
    return undefined;
  }
  const kept: string[] = [];
  for (const part of segments) {
    if (part === "..") kept.pop();
    else if (part !== "" && part !== ".") kept.push(part);
  }
  return `/${kept.join("/")}${kept.length > 0 && segments[last] === "" ? "/" : ""}`;
}

function fail(exchange: HttpExchange, error: unknown, log: Log): void {
  if (error instanceof AssertionFailure) {
    // Out of every promise, to the process's own handler (invariant 8: crash-only).
    setImmediate(() => {
      throw error;
    });
    return;
  }
  const { status, message, unexpected } = mapError(error);
  const fields = { method: exchange.method, path: exchange.path, error: unexpected ? error : message };
  // 501 refuses by name what is not there yet, and a client that went away had its reasons: neither is a failure here.
  const ofClient = status === 501 || (error instanceof EngineError && error.kind === "cancelled");
  if (status >= 500 && !ofClient) log.error("request failed", fields);
  else log.debug("request refused", fields);
  if (exchange.complete) return;
  if (exchange.open) exchange.sendJson(status, { message });
  else exchange.breakOff();
}
