import { type FileHandle, open, unlink } from "node:fs/promises";
import { assert } from "#base/assert.ts";
import type { Digest } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import type { BlobWriter, GrowingFile } from "./content-store.ts";
import { digestOfFile } from "./file-digest.ts";
import { GatheredWriter } from "./gathered-writer.ts";
import { GrowingCells } from "./growing-cells.ts";

export interface WriterOptions {
  readonly digest: Digest;
  readonly sizeBytes?: number;
  /** Held for as long as the writer lives: one writer a digest. */
  readonly lock: Disposable;
  /** Renames the finished file to its place. */
  readonly publish: (path: string, file: FileHandle, durable: boolean) => Promise<void>;
}

/** An ingest into a partial file that stays for a resume until it is committed or aborted. */
export class DiskBlobWriter implements BlobWriter {
  readonly #path: string;
  readonly #options: WriterOptions;
  readonly #handle: FileHandle;
  #offset: number;
  #cells: GrowingCells;
  #position: number;
  readonly #writer: GatheredWriter;
  #open = true;

  static async open(path: string, options: WriterOptions): Promise<DiskBlobWriter> {
    const handle = await open(path, "a+", 0o600);
    try {
      let kept = (await handle.stat()).size;
      if (options.sizeBytes !== undefined && kept > options.sizeBytes) {
        await handle.truncate(0);
        kept = 0;
      }
      return new DiskBlobWriter(path, options, handle, kept);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  private constructor(path: string, options: WriterOptions, handle: FileHandle, kept: number) {
    this.#path = path;
    this.#options = options;
    this.#handle = handle;
    this.#offset = kept;
    this.#position = kept;
    this.#cells = new GrowingCells(kept);
    this.#writer = new GatheredWriter(handle, (bytes) => this.#grow(bytes));
    if (kept === options.sizeBytes) this.#cells.settle("complete");
  }

  get offset(): number {
    return this.#offset;
  }

  get file(): GrowingFile {
    return { path: this.#path, cells: this.#cells.buffer };
  }

  async write(chunk: Uint8Array): Promise<void> {
    assert(this.#open, "blob written after its end");
    const { sizeBytes, digest } = this.#options;
    const end = this.#position + this.#writer.queuedBytes + chunk.length;
    if (sizeBytes !== undefined && end > sizeBytes) {
      throw new EngineError(
        "invalid",
        `blob ${digest} is longer than the ${sizeBytes} bytes it should have`,
        { code: "long-blob" },
      );
    }
    try {
      await this.#writer.write(chunk);
    } catch (error) {
      this.#cells.settle("failed");
      throw error;
    }
  }

  #grow(bytes: number): void {
    this.#position += bytes;
    this.#cells.grow(bytes);
    if (this.#position === this.#options.sizeBytes) this.#cells.settle("complete");
  }

  async #drain(): Promise<void> {
    try {
      await this.#writer.drain();
    } catch (error) {
      this.#cells.settle("failed");
      throw error;
    }
  }

  async restart(): Promise<void> {
    await this.#drain();
    // A reader of what was kept must not go on with other bytes.
    this.#cells.settle("failed");
    await this.#handle.truncate(0);
    this.#offset = 0;
    this.#position = 0;
    this.#cells = new GrowingCells(0);
  }

  async end(): Promise<void> {
    await this.#drain();
    const { sizeBytes, digest } = this.#options;
    if (sizeBytes !== undefined && this.#position !== sizeBytes) {
      this.#cells.settle("failed");
      throw new EngineError("invalid", `blob ${digest} has ${this.#position} bytes, not ${sizeBytes}`, {
        code: "short-blob",
      });
    }
    this.#cells.settle("complete");
  }

  async commit(
    options: { durable?: boolean; verifiedDigest?: Digest } = {},
  ): Promise<{ digest: Digest; sizeBytes: number }> {
    await this.end();
    const { digest } = this.#options;
    const found = options.verifiedDigest ?? (await digestOfFile(this.#path));
    if (found !== digest) {
      // Nothing of it can be used for a resume.
      await this.abort();
      throw new EngineError("invalid", `filesystem layer verification failed for digest ${digest}`, {
        code: "wrong-digest",
      });
    }
    await this.#options.publish(this.#path, this.#handle, options.durable !== false);
    await this.#close();
    return { digest, sizeBytes: this.#position };
  }

  async abort(): Promise<void> {
    if (!this.#open) return;
    this.#cells.settle("failed");
    await unlink(this.#path);
    await this.#close();
  }

  async #close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#writer.stop();
    await this.#handle.close();
    this.#options.lock[Symbol.dispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#open) await this.#drain().catch(() => undefined);
    this.#cells.settle("failed");
    await this.#close();
  }
}

/** A writer for a blob that turned out to be there: nothing is to be written, a commit succeeds at once. */
export function presentBlob(digest: Digest, sizeBytes: number, path: string, lock: Disposable): BlobWriter {
  const cells = new GrowingCells(sizeBytes);
  cells.settle("complete");
  let held = true;
  const release = async (): Promise<void> => {
    if (held) lock[Symbol.dispose]();
    held = false;
  };
  return {
    offset: sizeBytes,
    file: { path, cells: cells.buffer },
    write: async () => undefined,
    restart: async () => undefined,
    end: async () => undefined,
    commit: async () => {
      await release();
      return { digest, sizeBytes };
    },
    abort: release,
    [Symbol.asyncDispose]: release,
  };
}
