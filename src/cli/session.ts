/** An attached process: bytes between the terminal and a hijacked connection. */
import type { Duplex, Readable } from "node:stream";
import type { HijackedStream } from "#sdk/client.ts";
import { demultiplex, writeAll } from "#sdk/stdio-demux.ts";
import { DetachError, DetachFilter, defaultDetachKeys, parseDetachKeys } from "./detach-keys.ts";
import { rawMode } from "./terminal.ts";

export interface SessionOptions {
  readonly hijacked: HijackedStream;
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** Empty: the default sequence. Only a terminal can detach. */
  readonly detachKeys: string;
}

/**
 * Copies until the daemon ends the output. The end of our input half-closes the connection and nothing more.
 * Throws `DetachError` when the user detaches.
 */
export async function runSession(options: SessionOptions): Promise<void> {
  const { hijacked, tty, stdin } = options;
  const { stream } = hijacked;
  using _terminal = stdin && tty ? rawMode() : undefined;
  const output = copyOutput(options);
  const input = stdin ? startInput(stream, options) : undefined;
  try {
    if (input === undefined) {
      // Nothing to send: the daemon sees the end of input at once, as with Docker's client.
      stream.end();
      await output;
    } else await Promise.race([output, input.detached]);
  } finally {
    input?.stop();
    stream.destroy();
  }
}

async function copyOutput({ hijacked, tty, stdout, stderr }: SessionOptions): Promise<void> {
  const { stream, multiplexed } = hijacked;
  const out = stdout ? process.stdout : undefined;
  try {
    if (multiplexed ?? !tty) await demultiplex(stream, out, stderr ? process.stderr : undefined);
    else
      for await (const chunk of stream as AsyncIterable<Buffer>) await writeAll(out ?? process.stdout, chunk);
  } catch (error) {
    // The daemon may reset instead of closing when the process ended with input unread: that is an end.
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ECONNRESET" && code !== "EPIPE" && code !== "ERR_STREAM_PREMATURE_CLOSE") throw error;
  }
}

interface Input {
  /** Rejects with `DetachError`; never resolves. */
  readonly detached: Promise<never>;
  stop(): void;
}

function startInput(stream: Duplex, options: SessionOptions): Input {
  const source = process.stdin;
  let from: Readable = source;
  let reject!: (error: Error) => void;
  const detached = new Promise<never>((_resolve, refuse) => {
    reject = refuse;
  });
  if (options.tty) {
    const filter = new DetachFilter(parseDetachKeys(options.detachKeys || defaultDetachKeys));
    filter.on("error", (error) => reject(error instanceof DetachError ? error : new DetachError()));
    from = source.pipe(filter);
  }
  const onData = (chunk: Buffer): void => {
    if (!stream.writable) return;
    if (!stream.write(chunk)) {
      from.pause();
      stream.once("drain", () => from.resume());
    }
  };
  const onEnd = (): void => {
    if (stream.writable) stream.end();
  };
  stream.on("error", () => {});
  source.on("error", onEnd);
  from.on("data", onData);
  from.on("end", onEnd);
  return {
    detached,
    stop: () => {
      from.removeListener("data", onData);
      from.removeListener("end", onEnd);
      source.unpipe();
      source.pause();
      (source as { unref?: () => void }).unref?.();
    },
  };
}
