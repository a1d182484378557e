import type { IncomingMessage } from "node:http";

/** The client went away, or sent nothing for too long, or somebody else took the upload over. */
export class BodyBroken extends Error {
  constructor(why: string) {
    super(why);
    this.name = "BodyBroken";
  }
}

export interface BodyOptions {
  /** Called with what has come, one call at a time; the chunks are then its own, to keep or to release. */
  readonly write: (chunks: readonly Buffer[], bytes: number) => Promise<void>;
  /** Ends the body when nothing comes for so long. */
  readonly idleMs: number;
  readonly signal: AbortSignal;
  readonly onBytes?: (bytes: number) => void;
  /** Bytes that have come and are not yet written: beyond, the connection is not read. */
  readonly queuedBytesMax?: number;
}

const queuedBytesUsual = 256 * 1024;
const queuedChunksMax = 4096;

/**
 * Takes a request's body to `write` with back-pressure: while one call is under way the next chunks gather, so that each
 * call takes many. Everything that came before a break is written before `BodyBroken` is thrown. Resolves with the count.
 */
export async function receiveBody(request: IncomingMessage, options: BodyOptions): Promise<number> {
  const body = new IncomingBody(request, options);
  try {
    return await body.run();
  } finally {
    body.detach();
  }
}

class IncomingBody {
  readonly #request: IncomingMessage;
  readonly #options: BodyOptions;
  readonly #idle: NodeJS.Timeout;
  readonly #queuedBytesMax: number;
  #queue: Buffer[] = [];
  #queuedBytes = 0;
  #total = 0;
  #ended = false;
  #broken: BodyBroken | undefined;
  #wake: (() => void) | undefined;

  constructor(request: IncomingMessage, options: BodyOptions) {
    this.#request = request;
    this.#options = options;
    this.#queuedBytesMax = options.queuedBytesMax ?? queuedBytesUsual;
    this.#idle = setTimeout(this.#onIdle, options.idleMs);
    request.on("data", this.#onData);
    request.on("end", this.#onEnd);
    request.on("close", this.#onClose);
    request.on("error", this.#onClose);
    options.signal.addEventListener("abort", this.#onAbort);
    if (options.signal.aborted) this.#onAbort();
    if (request.destroyed && !request.complete) this.#onClose();
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#queue.push(chunk);
    this.#queuedBytes += chunk.length;
    this.#options.onBytes?.(chunk.length);
    this.#idle.refresh();
    if (this.#queuedBytes >= this.#queuedBytesMax || this.#queue.length >= queuedChunksMax)
      this.#request.pause();
    this.#wake?.();
  };

  readonly #onEnd = (): void => {
    this.#ended = true;
    this.#wake?.();
  };

  readonly #onClose = (): void => this.#break("the client went away");

  readonly #onAbort = (): void => this.#break("the upload was taken over");

  readonly #onIdle = (): void => {
    // While the disk is slow it is we who do not read.
    if (this.#request.isPaused()) this.#idle.refresh();
    else this.#break("nothing came for too long");
  };

  #break(why: string): void {
    if (!this.#ended) this.#broken ??= new BodyBroken(why);
    this.#wake?.();
  }

  async run(): Promise<number> {
    for (;;) {
      if (this.#queue.length > 0) await this.#take();
      else if (this.#broken !== undefined) throw this.#broken;
      else if (this.#ended) return this.#total;
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
      }
    }
  }

  async #take(): Promise<void> {
    const chunks = this.#queue;
    const bytes = this.#queuedBytes;
    this.#queue = [];
    this.#queuedBytes = 0;
    if (this.#request.isPaused()) this.#request.resume();
    await this.#options.write(chunks, bytes);
    this.#total += bytes;
  }

  detach(): void {
    clearTimeout(this.#idle);
    const { signal } = this.#options;
    signal.removeEventListener("abort", this.#onAbort);
    this.#request.off("data", this.#onData);
    this.#request.off("end", this.#onEnd);
    this.#request.off("close", this.#onClose);
    this.#request.off("error", this.#onClose);
    // A request that breaks later must not end the process.
    this.#request.on("error", () => undefined);
  }
}

/** A small body whole, or undefined as soon as it is longer than `bytesMax`. */
export async function readBody(
  request: IncomingMessage,
  bytesMax: number,
  options: Omit<BodyOptions, "write">,
): Promise<Buffer | undefined> {
  if (Number(request.headers["content-length"] ?? 0) > bytesMax) return undefined;
  const parts: Buffer[] = [];
  let total = 0;
  class TooLong extends Error {}
  try {
    await receiveBody(request, {
      ...options,
      write: async (chunks, bytes) => {
        total += bytes;
        if (total > bytesMax) throw new TooLong();
        // Chunks of one byte each cost a hundred times their size: they are put together as they come.
        parts.push(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, bytes));
      },
    });
  } catch (error) {
    if (error instanceof TooLong) return undefined;
    throw error;
  }
  return Buffer.concat(parts, total);
}
