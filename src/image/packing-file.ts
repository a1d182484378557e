import { type FileHandle, open } from "node:fs/promises";
import { Readable } from "node:stream";
import { assert } from "#base/assert.ts";

const chunkBytes = 256 * 1024;

/** A layer's compressed file while a worker still writes it: readers get what is there and wait for more. */
export class PackingFile implements AsyncDisposable {
  readonly #path: string;
  #handle: Promise<FileHandle> | undefined;
  #bytes = 0;
  #end: "complete" | "failed" | undefined;
  #wake = Promise.withResolvers<void>();

  constructor(path: string) {
    this.#path = path;
  }

  /** So much may be read by now. */
  grow(bytes: number): void {
    this.#bytes = bytes;
    this.#changed();
  }

  /** It grows no more; `failed` ends every reader with an error. */
  settle(end: "complete" | "failed"): void {
    this.#end ??= end;
    this.#changed();
  }

  #changed(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers<void>();
  }

  /** To be called while it has its name: it may be moved afterwards. */
  open(): void {
    this.#handle ??= open(this.#path, "r");
    // A file that cannot be opened fails its readers, which may not have got so far.
    this.#handle.catch(() => {});
  }

  /** All of it from the start, as it comes. */
  read(): Readable {
    assert(this.#handle !== undefined, "a layer's file is read before it was opened");
    return Readable.from(this.#chunks(this.#handle), { objectMode: false, highWaterMark: chunkBytes });
  }

  async *#chunks(opened: Promise<FileHandle>): AsyncGenerator<Buffer> {
    const handle = await opened;
    for (let at = 0; ; ) {
      if (this.#end === "failed") throw new Error("the layer could not be packed");
      if (at < this.#bytes) {
        const length = Math.min(chunkBytes, this.#bytes - at);
        const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafeSlow(length), 0, length, at);
        if (bytesRead === 0) throw new Error("a layer's file is shorter than it was");
        at += bytesRead;
        yield buffer.subarray(0, bytesRead);
      } else if (this.#end === "complete") return;
      else await this.#wake.promise;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const handle = await this.#handle?.catch(() => undefined);
    await handle?.close();
  }
}
