/**
 * Notices that the far host or the way to it is gone, so that a client that waits ends. Two things tell: keepalive
 * probes without an answer while nothing is under way, and a kernel that sends the same bytes again and again. TCP itself
 * gives the second up only after a quarter of an hour (tcp_retries2), and Node has no way to set TCP_USER_TIMEOUT: so
 * the kernel's table of sockets is looked at, when nothing moved for a while.
 */
import { readFile } from "node:fs/promises";
import { isIPv4, type Socket } from "node:net";

/** Silence before the first probe. libuv sends ten probes, a second apart: the end comes 10 s later. */
export const keepAliveDelayMs = 20_000;
const probesMs = 10_000;
/** The kernel doubles its pauses from 200 ms on: four repeats are three seconds without any sign. */
const repeatsMin = 4;

/**
 * Watches a connected TCP socket until it closes; a dead link destroys `top`, which is the socket or the TLS stream over
 * it, with ETIMEDOUT.
 */
export function watchLink(socket: Socket, top: Socket, delayMs: number): void {
  socket.setKeepAlive(true, delayMs);
  const silenceMax = delayMs + probesMs;
  let seen = "";
  let since = Date.now();
  const look = async (): Promise<void> => {
    const moved = `${top.bytesRead} ${top.bytesWritten} ${top.writableLength}`;
    const now = Date.now();
    if (moved !== seen) {
      seen = moved;
      since = now;
      return;
    }
    if (now - since < silenceMax || top.destroyed) return;
    if ((await repeats(socket)) < repeatsMin || top.destroyed) return;
    const lost = new Error("read ETIMEDOUT: the connection is lost") as NodeJS.ErrnoException;
    lost.code = "ETIMEDOUT";
    top.destroy(lost);
  };
  const timer = setInterval(() => void look().catch(() => {}), Math.max(500, delayMs / 4));
  timer.unref();
  top.once("close", () => clearInterval(timer));
}

/**
 * How often the kernel has sent the oldest bytes again that were not acknowledged, or has asked a full reader in vain
 * whether it has room; 0 when it waits for nothing.
 */
async function repeats({ localAddress = "", localPort = 0, remotePort = 0 }: Socket): Promise<number> {
  const table = await readFile(isIPv4(localAddress) ? "/proc/net/tcp" : "/proc/net/tcp6", "latin1");
  const hex = (port: number): string => port.toString(16).toUpperCase().padStart(4, "0");
  for (const line of table.split("\n")) {
    // slot, local, remote, state, queues, timer, retransmits, uid, probes without an answer.
    const [, local, remote, , , timer = "", retransmits = "0", , probes = "0"] = line.trim().split(/\s+/);
    if (local?.endsWith(`:${hex(localPort)}`) !== true || remote?.endsWith(`:${hex(remotePort)}`) !== true)
      continue;
    // Timer 01 sends data again, 04 asks for room. A reader that is there answers each question.
    if (timer.startsWith("01:")) return Number.parseInt(retransmits, 16);
    if (timer.startsWith("04:")) return Number(probes);
  }
  return 0;
}
