import { closeSync, openSync } from "node:fs";
import { createConnection, type Socket } from "node:net";
import { basename, dirname } from "node:path";
import { EngineError } from "#base/errors.ts";
import { Frame, frameHeaderBytes, frameLength } from "./shim-protocol.ts";

/** `sun_path` with its NUL (unix(7)). */
const socketPathBytesMax = 107;

/**
 * Connects to a unix socket. Paths that are too long for a socket address go through a descriptor of their directory.
 * Half-close passes through: ending the write side leaves the read side open.
 */
export function connectUnix(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const directory = Buffer.byteLength(path) > socketPathBytesMax ? openSync(dirname(path), "r") : undefined;
    const target = directory === undefined ? path : `/proc/self/fd/${directory}/${basename(path)}`;
    const release = (): void => {
      if (directory !== undefined) closeSync(directory);
    };
    const socket = createConnection({ path: target, allowHalfOpen: true });
    const failed = (error: Error): void => {
      release();
      reject(error);
    };
    socket.once("error", failed);
    socket.once("connect", () => {
      release();
      socket.off("error", failed);
      // A peer that is gone shows as the stream's end; a late EPIPE or ECONNRESET must not end the daemon.
      socket.on("error", () => {});
      resolve(socket);
    });
  });
}

/**
 * The first frame that comes over a connection; what follows it stays in the socket, which is then as if nobody had read
 * from it. Rejects with `unavailable` when the connection ends before.
 */
export function firstFrame(socket: Socket, signal?: AbortSignal): Promise<Frame> {
  return new Promise((resolve, reject) => {
    let header: Buffer | null = null;
    const stop = (): void => {
      socket.off("readable", onReadable);
      socket.off("end", onClose);
      socket.off("close", onClose);
      signal?.removeEventListener("abort", onAbort);
    };
    const fail = (error: unknown): void => {
      stop();
      socket.destroy();
      reject(error);
    };
    const onClose = (): void => {
      fail(new EngineError("unavailable", "the shim closed its connection", { code: "shim-gone" }));
    };
    const onAbort = (): void => fail(signal?.reason);
    const onReadable = (): void => {
      try {
        header ??= socket.read(frameHeaderBytes) as Buffer | null;
        const body = header === null ? null : (socket.read(frameLength(header)) as Buffer | null);
        if (header === null || body === null) {
          return;
        }
        stop();
        resolve(new Frame(body));
      } catch (error) {
        fail(error);
      }
    };
    socket.on("readable", onReadable);
    socket.on("end", onClose);
    socket.on("close", onClose);
    signal?.addEventListener("abort", onAbort);
    if (signal?.aborted === true) onAbort();
  });
}

/** Opens a connection with one frame and returns it with the answer. */
export async function openWithFrame(path: string, frame: Buffer): Promise<{ socket: Socket; answer: Frame }> {
  const socket = await connectUnix(path);
  socket.write(frame);
  return { socket, answer: await firstFrame(socket) };
}
