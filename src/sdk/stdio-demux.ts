import type { Readable, Writable } from "node:stream";
import { EngineError } from "#base/errors.ts";

/**
 * Splits Docker's framed output: an 8-byte header (stream 1 stdout, 2 stderr, 3 daemon error; length big-endian),
 * then that many bytes. Waits for slow writers. Resolves when the source ends; rejects with the daemon's text when it
 * sends a frame of stream 3.
 */
export async function demultiplex(
  source: Readable,
  stdout: Writable | undefined,
  stderr: Writable | undefined,
): Promise<void> {
  let header: Buffer = Buffer.alloc(0);
  let left = 0;
  let stream = 0;
  let failure = "";
  for await (const chunk of source as AsyncIterable<Buffer>) {
    let rest = chunk;
    while (rest.length > 0) {
      if (left === 0) {
        const need = 8 - header.length;
        header = header.length === 0 ? rest.subarray(0, 8) : Buffer.concat([header, rest.subarray(0, need)]);
        rest = rest.subarray(need);
        if (header.length < 8) break;
        stream = header[0]!;
        left = header.readUInt32BE(4);
        header = Buffer.alloc(0);
        if (stream > 3) throw new EngineError("system", `Unrecognized input header: ${stream}`);
        continue;
      }
      const part = rest.subarray(0, left);
      rest = rest.subarray(part.length);
      left -= part.length;
      if (stream === 3) failure += part.toString();
      else await writeAll(stream === 2 ? stderr : stdout, part);
    }
  }
  if (failure !== "") throw new EngineError("system", `error from daemon in stream: ${failure}`);
}

/** Writes and waits while the writer is full. */
export function writeAll(target: Writable | undefined, bytes: Buffer): Promise<void> | undefined {
  if (target === undefined || target.destroyed || target.write(bytes)) return undefined;
  return new Promise((resolve) => {
    const go = (): void => {
      target.removeListener("drain", go);
      target.removeListener("close", go);
      target.removeListener("error", go);
      resolve();
    };
    target.once("drain", go);
    target.once("close", go);
    target.once("error", go);
  });
}
