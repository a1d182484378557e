import type { Server, Socket } from "node:net";
import { tcpState } from "#sys/socket-option.ts";

const lookMs = 5_000;
/** The peer was asked for so long, at least once, and has acknowledged nothing. */
const silentMs = 30_000;

/**
 * Ends connections whose peer is gone without a word while there is something to tell it. Keep-alive probes find a dead
 * peer only where nothing is under way; for unacknowledged bytes the kernel waits a quarter of an hour. A client that is
 * alive and does not read acknowledges every probe of its closed window, and stays.
 */
export function watchLinks(server: Server): Disposable {
  /** Connections, and since when something is unanswered there (`performance.now`). */
  const sockets = new Map<Socket, number | undefined>();
  const added = (socket: Socket): void => {
    sockets.set(socket, undefined);
    socket.once("close", () => sockets.delete(socket));
  };
  server.on("connection", added);
  const timer = setInterval(() => {
    const now = performance.now();
    for (const [socket, since] of sockets) {
      const unanswered = unansweredSince(socket, since, now);
      if (unanswered !== undefined && now - unanswered >= silentMs) socket.destroy();
      else if (unanswered !== since) sockets.set(socket, unanswered);
    }
  }, lookMs);
  timer.unref();
  return {
    [Symbol.dispose]: () => {
      clearInterval(timer);
      server.off("connection", added);
    },
  };
}

function unansweredSince(socket: Socket, since: number | undefined, now: number): number | undefined {
  // Node names the descriptor nowhere else; a socket that is closed has none.
  const fd = (socket as { _handle?: { fd?: number } | null })._handle?.fd;
  const state = fd === undefined || fd < 0 ? undefined : tcpState(fd);
  if (state === undefined || (state.retransmits === 0 && state.probes === 0)) return undefined;
  const acknowledged = now - state.lastAckMs;
  return since === undefined || acknowledged > since ? now : since;
}
