import type { Server, Socket } from "node:net";
import type { TLSSocket, Server as TlsServer } from "node:tls";
import type { Log } from "#base/log.ts";

/** What a TCP listener bounds, since strangers reach it. */
export interface TcpBounds {
  /** Connections: some thousand streams of logs and attaches, far below the limit of descriptors. */
  readonly connectionsMax: number;
  /**
   * Connections in the middle of their handshake. Whoever has no certificate gets no further than here, and must not take
   * the places of those who have: the oldest goes when there are more.
   */
  readonly handshakesMax: number;
  readonly handshakeTimeoutMs: number;
  /** Between two requests. As Go's ReadHeaderTimeout in dockerd. */
  readonly idleTimeoutMs: number;
}

export const tcpBounds: TcpBounds = {
  connectionsMax: 4096,
  handshakesMax: 256,
  handshakeTimeoutMs: 10_000,
  idleTimeoutMs: 5 * 60_000,
};

/** A line in the log for refusals of one kind, at most this often. */
const logIntervalMs = 1_000;

/** Bounds what strangers can hold of a TCP listener, and tells the log, not too often, whom it turned away. */
export function boundListener(server: Server | TlsServer, bounds: TcpBounds, log: Log): void {
  server.maxConnections = bounds.connectionsMax;
  const full = rarely((lost, from: unknown) =>
    log.warn("too many connections: one was refused", { from, ...lost }),
  );
  server.on("drop", (data) => full(data?.remoteAddress));
  if ("setSecureContext" in server) boundHandshakes(server, bounds.handshakesMax, log);
}

function boundHandshakes(server: TlsServer, handshakesMax: number, log: Log): void {
  const under = new Map<string, Socket>();
  server.on("connection", (socket: Socket) => {
    const peer = peerOf(socket);
    under.set(peer, socket);
    socket.once("close", () => {
      if (under.get(peer) === socket) under.delete(peer);
    });
    if (under.size <= handshakesMax) return;
    const [oldest] = under;
    under.delete(oldest![0]);
    oldest![1].destroy();
  });
  server.on("secureConnection", (socket) => under.delete(peerOf(socket)));
  const refused = rarely((lost, peer: string, reason: string) =>
    log.warn("a TLS handshake failed", { from: peer, reason, ...lost }),
  );
  server.on("tlsClientError", (error, socket: TLSSocket) => {
    const peer = peerOf(wrapped(socket) ?? socket);
    refused(peer, reasonOf(error, socket));
    // Its own end would wait for an answer that nobody sends.
    socket.destroy();
  });
}

/** The TCP connection below, which knows its peer also when it is closed. Node names it nowhere else. */
function wrapped(socket: TLSSocket): Socket | undefined {
  return (socket as { _parent?: Socket })._parent;
}

function peerOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}

/** OpenSSL's text has the place in its source in it: its reason alone is told. */
function reasonOf(error: Error, socket: TLSSocket): string {
  // Of a certificate that is refused Node tells the reason here, and as error only that the connection is gone.
  if (socket.authorizationError) return `the client's certificate: ${String(socket.authorizationError)}`;
  const reason = (error as { reason?: unknown }).reason;
  return typeof reason === "string" ? reason : error.message.slice(0, 200);
}

function rarely<Arguments extends readonly unknown[]>(
  tell: (lost: { readonly untold?: number }, ...about: Arguments) => void,
): (...about: Arguments) => void {
  let nextMs = 0;
  let untold = 0;
  return (...about) => {
    const now = performance.now();
    if (now < nextMs) {
      untold += 1;
      return;
    }
    nextMs = now + logIntervalMs;
    tell(untold === 0 ? {} : { untold }, ...about);
    untold = 0;
  };
}
