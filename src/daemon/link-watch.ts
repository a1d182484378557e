import type { Server, Socket } from "node:net";
import { tcpState } from "#sys/socket-option.ts";

const lookMs = 5_000;
/** The peer has not acknowledged a byte for so long, and was asked again and again. */
const silentMs = 30_000;
const unansweredMin = 4;

/**
 * Ends connections whose peer is gone without a word while there is something to tell it. Keep-alive probes find a dead
 * peer only where nothing is under way; for unacknowledged bytes the kernel waits a quarter of an hour. A client that is
 * alive and does not read acknowledges every probe of its closed window, and stays.
 */
export function watchLinks(server: Server): Disposable {
  const sockets = new Set<Socket>();
  const added = (socket: Socket): void => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  };
  server.on("connection", added);
  const timer = setInterval(() => {
    for (const socket of sockets) if (isCut(socket)) socket.destroy();
  }, lookMs);
  timer.unref();
  return {
    [Symbol.dispose]: () => {
      clearInterval(timer);
      server.off("connection", added);
    },
  };
}

function isCut(socket: Socket): boolean {
  // Node names the descriptor nowhere else; a socket that is closed has none.
  const fd = (socket as { _handle?: { fd?: number } | null })._handle?.fd;
  const state = fd === undefined || fd < 0 ? undefined : tcpState(fd);
  if (state === undefined) return false;
  return state.lastAckMs > silentMs && Math.max(state.retransmits, state.probes) >= unansweredMin;
}
