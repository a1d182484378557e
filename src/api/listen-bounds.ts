import type { Server, Socket } from "node:net";
import type { TLSSocket, Server as TlsServer } from "node:tls";
import type { Log } from "#base/log.ts";

/** Connections of one TCP listener: some thousand streams of logs and attaches, far below the limit of descriptors. */
const connectionsMax = 4096;
/**
 * Connections in the middle of their handshake. Whoever has no certificate gets no further than here, and must not take
 * the places of those who have: the oldest goes when there are more.
 */
const handshakesMax = 256;
/** A line in the log for refusals of one kind, at most this often. */
const logIntervalMs = 1_000;

/** Bounds what strangers can hold of a TCP listener, and tells the log, not too often, whom it turned away. */
export function boundListener(server: Server | TlsServer, log: Log): void {
  server.maxConnections = connectionsMax;
  const full = rarely((lost, from: unknown) =>
    log.warn("too many connections: one was refused", { from, ...lost }),
  );
  server.on("drop", (data) => full(data?.remoteAddress));
  if ("setSecureContext" in server) boundHandshakes(server, log);
}

function boundHandshakes(server: TlsServer, log: Log): void {
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
  const refused = rarely((lost, error: Error, peer: string) =>
    log.warn("a TLS handshake failed", { from: peer, reason: reasonOf(error), ...lost }),
  );
  server.on("tlsClientError", (error, socket: TLSSocket) => {
    const peer = peerOf(socket);
    under.delete(peer);
    refused(error, peer);
    // Its own end would wait for an answer that nobody sends.
    socket.destroy();
  });
}

function peerOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}

/** OpenSSL's text has the place in its source in it: the reason is its last part but one. */
function reasonOf(error: Error): string {
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
