import type { IncomingMessage, Server, ServerOptions, ServerResponse } from "node:http";
import type { Server as TlsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { describeErrno, errnoOf, messageOf } from "#base/errors.ts";
import { type Pace, SlowBodies, slowestPace } from "./serve-slow.ts";
import { type ListenAddress, type ServeSettings, SettingsError } from "./settings.ts";

/** A client that has not sent a request's head by then is closed (slow-loris). */
const headersTimeoutMs = 15_000;
const handshakeTimeoutMs = 10_000;
/** Between two requests of one connection. */
const keepAliveTimeoutMs = 60_000;
const connectionsCheckMs = 5_000;
/** Requests of one connection that were not answered yet. Node begins all that one read brings; no real client sends ahead. */
const pipelinedMax = 8;
/** Node's default: the longest head of a real client is a token of some 4 KiB. */
const headersBytesMax = 16 * 1024;

type MakeServer = (
  options: ServerOptions,
  listener: (request: IncomingMessage, response: ServerResponse) => void,
) => Server;

/** The listening side: bounds against idle and slow clients, and an end that waits for requests under way. */
export class HttpFront {
  readonly #server: Server | TlsServer;
  readonly #stopTimeoutMs: number;
  readonly #slow: SlowBodies;
  #underWay = 0;
  readonly #pending = new WeakMap<Socket, number>();
  #connections = 0;
  #stopping = false;

  constructor(
    settings: Pick<ServeSettings, "stopTimeoutMs" | "maxConnections">,
    make: MakeServer,
    serve: (request: IncomingMessage, response: ServerResponse) => void,
    pace: Pace = slowestPace,
  ) {
    this.#slow = new SlowBodies(pace);
    this.#stopTimeoutMs = settings.stopTimeoutMs;
    const options = {
      headersTimeout: headersTimeoutMs,
      requestTimeout: 0,
      keepAliveTimeout: keepAliveTimeoutMs,
      connectionsCheckingInterval: connectionsCheckMs,
      maxHeaderSize: headersBytesMax,
      handshakeTimeout: handshakeTimeoutMs,
      noDelay: true,
    };
    this.#server = make(options, (request, response) => {
      const { socket } = request;
      const pending = (this.#pending.get(socket) ?? 0) + 1;
      if (pending > pipelinedMax) {
        socket.destroy();
        return;
      }
      this.#pending.set(socket, pending);
      this.#underWay += 1;
      if (this.#stopping) response.setHeader("connection", "close");
      response.once("close", () => {
        this.#underWay -= 1;
        this.#pending.set(socket, (this.#pending.get(socket) ?? 1) - 1);
      });
      this.#slow.watch(request);
      serve(request, response);
    });
    this.#server.maxConnections = settings.maxConnections;
    this.#server.on("connection", (socket) => {
      this.#connections += 1;
      socket.once("close", () => {
        this.#connections -= 1;
      });
    });
  }

  get underWay(): number {
    return this.#underWay;
  }

  get connections(): number {
    return this.#connections;
  }

  setTls(material: Parameters<TlsServer["setSecureContext"]>[0]): void {
    if ("setSecureContext" in this.#server) this.#server.setSecureContext(material);
  }

  async listen({ host, port }: ListenAddress): Promise<ListenAddress> {
    return await listenAt(this.#server, { host, port });
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    const deadline = performance.now() + this.#stopTimeoutMs;
    // A connection that has just answered its last request is idle only now.
    while (this.#underWay > 0 && performance.now() < deadline) {
      this.#server.closeIdleConnections();
      await Promise.race([closed, sleep(20)]);
    }
    this.#server.closeAllConnections();
    this.#slow[Symbol.dispose]();
    await closed;
  }
}

/** Listens, or throws `SettingsError` with the reason in one line. */
export async function listenAt(server: Server, { host, port }: ListenAddress): Promise<ListenAddress> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host, port, backlog: 511 }, () => {
        server.off("error", reject);
        resolve();
      });
    });
  } catch (error) {
    const reasons: Readonly<Record<string, string>> = {
      EADDRINUSE: "address already in use",
      EADDRNOTAVAIL: "cannot assign requested address",
      ENOTFOUND: "no such host",
    };
    const errno = errnoOf(error) ?? "";
    throw new SettingsError(
      `listen ${host}:${port}: ${reasons[errno] ?? describeErrno(errno || messageOf(error))}`,
    );
  }
  return { host, port: (server.address() as AddressInfo).port };
}
