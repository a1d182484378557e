import type { FileHandle } from "node:fs/promises";
import { errnoOf, SyscallError } from "#base/errors.ts";
import { releaseBytes } from "#base/release-bytes.ts";

/** A write of this size costs little more than a small one: so much is gathered first. */
const gatherBytes = 256 * 1024;
/** A reader of the growing file waits no longer than this for bytes that have come. */
const gatherMs = 2;
/** Bytes accepted and not yet written, beyond which a writer is to wait. */
const queuedBytesMax = 4 * 1024 * 1024;

/**
 * Appends to a file what comes in pieces of any size, many of them in one call. The pieces are taken over: their memory
 * goes back when they are written.
 */
export class GatheredWriter {
  readonly #handle: FileHandle;
  readonly #onWritten: (bytes: number) => void;
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #flushing: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #failure: { readonly error: unknown } | undefined;

  /** `onWritten` is told of every success; a failure (`SyscallError`) is thrown by the next `write` or `drain`. */
  constructor(handle: FileHandle, onWritten: (bytes: number) => void) {
    this.#handle = handle;
    this.#onWritten = onWritten;
  }

  /** Bytes on their way. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Takes a piece, which must not change any more. A promise is to be awaited before the next one. */
  write(chunk: Uint8Array): Promise<void> | undefined {
    this.#check();
    if (chunk.length === 0) return undefined;
    this.#queue.push(chunk);
    this.#queuedBytes += chunk.length;
    if (this.#queuedBytes >= gatherBytes) this.#begin();
    else if (this.#flushing === undefined) this.#timer ??= setTimeout(() => this.#begin(), gatherMs);
    return this.#queuedBytes > queuedBytesMax ? this.drain() : undefined;
  }

  /** Resolves when all is written. */
  async drain(): Promise<void> {
    while (this.#failure === undefined && (this.#queue.length > 0 || this.#flushing !== undefined)) {
      this.#begin();
      await this.#flushing;
    }
    this.#check();
  }

  /** Forgets what was not written yet. Resolves when the file is not touched any more. */
  async stop(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#queue = [];
    await this.#flushing;
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #begin(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#queue.length > 0) this.#flushing ??= this.#flush();
  }

  async #flush(): Promise<void> {
    try {
      while (this.#queue.length > 0 && this.#failure === undefined) {
        const chunks = this.#queue;
        this.#queue = [];
        const wanted = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
        const { bytesWritten } = await this.#handle.writev(chunks);
        // A disk that is full takes a part first.
        if (bytesWritten !== wanted) throw new SyscallError("write", "ENOSPC");
        for (const chunk of chunks) releaseBytes(chunk);
        this.#queuedBytes -= bytesWritten;
        this.#onWritten(bytesWritten);
        if (this.#queuedBytes < gatherBytes) break;
      }
    } catch (error) {
      this.#failure = { error: new SyscallError("write", errnoOf(error) ?? "EIO") };
    } finally {
      this.#flushing = undefined;
    }
    if (this.#queue.length > 0 && this.#failure === undefined)
      this.#timer ??= setTimeout(() => this.#begin(), gatherMs);
  }
}
