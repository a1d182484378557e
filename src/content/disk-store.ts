import { mkdirSync, readdirSync, statSync, unlinkSync } from "node:fs";
import { type FileHandle, open, readFile, rename, stat, unlink } from "node:fs/promises";
import { join } from "node:path";
import { type Digest, digestOf, hexOf, isDigest } from "#base/digest.ts";
import { EngineError, errnoOf } from "#base/errors.ts";
import { KeyedLock } from "#base/lock.ts";
import type { Log } from "#base/log.ts";
import { DiskBlobWriter, presentBlob } from "./blob-writer.ts";
import type { BlobWriter, ContentStore } from "./content-store.ts";

export interface DiskStoreOptions {
  /** Directory of the store, made when missing: `blobs/sha256/<hex>` and `ingest/<hex>` for partials. */
  readonly root: string;
  readonly log: Log;
  /** syncfs in a worker, shared with the snapshotter. Without it, `sync` flushes what was written file by file. */
  readonly syncFileSystem?: (directory: string) => Promise<void>;
}

/** A partial download that nobody came back for. */
const partialAgeMsMax = 24 * 60 * 60 * 1000;

/** Opens the content store on a directory; keeps the list of blobs in memory. */
export async function createDiskStore(options: DiskStoreOptions): Promise<ContentStore> {
  const blobs = join(options.root, "blobs", "sha256");
  const ingest = join(options.root, "ingest");
  mkdirSync(blobs, { recursive: true, mode: 0o700 });
  mkdirSync(ingest, { recursive: true, mode: 0o700 });
  const known = new Set<Digest>();
  for (const name of readdirSync(blobs)) {
    const digest = `sha256:${name}`;
    if (isDigest(digest)) known.add(digest as Digest);
  }
  const now = Date.now();
  for (const name of readdirSync(ingest)) {
    const path = join(ingest, name);
    // Small blobs are written whole: their temporary files are of no use after a crash.
    if (!isDigest(`sha256:${name}`) || now - statSync(path).mtimeMs > partialAgeMsMax) unlinkSync(path);
  }
  return new DiskStore(options, blobs, ingest, known);
}

class DiskStore implements ContentStore {
  readonly #options: DiskStoreOptions;
  readonly #blobs: string;
  readonly #ingest: string;
  readonly #known: Set<Digest>;
  readonly #locks = new KeyedLock();
  /** Written without a flush since the last `sync`. */
  #unflushed = new Set<Digest>();
  #nextTemporary = 0;

  constructor(options: DiskStoreOptions, blobs: string, ingest: string, known: Set<Digest>) {
    this.#options = options;
    this.#blobs = blobs;
    this.#ingest = ingest;
    this.#known = known;
  }

  async has(digest: Digest): Promise<boolean> {
    return this.#known.has(digest);
  }

  async size(digest: Digest): Promise<number | undefined> {
    if (!this.#known.has(digest)) return undefined;
    return (await stat(this.pathOf(digest))).size;
  }

  async read(digest: Digest, maxBytes: number): Promise<Buffer> {
    const size = await this.size(digest);
    if (size === undefined) {
      throw new EngineError("notFound", `content ${digest} not found`, { code: "no-such-blob" });
    }
    if (size > maxBytes) {
      throw new EngineError("invalid", `content ${digest} is ${size} bytes, more than ${maxBytes}`, {
        code: "blob-too-large",
      });
    }
    return await readFile(this.pathOf(digest));
  }

  pathOf(digest: Digest): string {
    return join(this.#blobs, hexOf(digest));
  }

  async ingest(expected: { digest: Digest; sizeBytes?: number }): Promise<BlobWriter> {
    const { digest, sizeBytes } = expected;
    const lock = await this.#locks.acquire(digest);
    try {
      const size = await this.size(digest);
      if (size !== undefined) return presentBlob(digest, size, this.pathOf(digest), lock);
      const path = join(this.#ingest, hexOf(digest));
      return await DiskBlobWriter.open(path, {
        digest,
        ...(sizeBytes === undefined ? {} : { sizeBytes }),
        lock,
        publish: (from, file, durable) => this.#publish(from, file, digest, durable),
      });
    } catch (error) {
      lock[Symbol.dispose]();
      throw error;
    }
  }

  async put(bytes: Uint8Array, options: { durable?: boolean } = {}): Promise<Digest> {
    const digest = digestOf(bytes);
    if (this.#known.has(digest)) {
      if (options.durable !== false) await this.#flushIfNeeded(digest);
      return digest;
    }
    this.#nextTemporary += 1;
    const path = join(this.#ingest, `put-${this.#nextTemporary}`);
    const file = await open(path, "wx", 0o600);
    try {
      await file.writeFile(bytes);
      await this.#publish(path, file, digest, options.durable !== false);
    } catch (error) {
      await unlink(path).catch(() => undefined);
      throw error;
    } finally {
      await file.close();
    }
    return digest;
  }

  /** Invariant 1 of the engine: the bytes reach the disk before the name, the name before anybody is told. */
  async #publish(from: string, file: FileHandle, digest: Digest, durable: boolean): Promise<void> {
    if (durable) await file.sync();
    await rename(from, this.pathOf(digest));
    if (durable) await this.#flushDirectory();
    else this.#unflushed.add(digest);
    this.#known.add(digest);
  }

  async #flushDirectory(): Promise<void> {
    const directory = await open(this.#blobs, "r");
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  }

  async #flushIfNeeded(digest: Digest): Promise<void> {
    if (!this.#unflushed.has(digest)) return;
    const file = await open(this.pathOf(digest), "r");
    try {
      await file.sync();
    } finally {
      await file.close();
    }
    await this.#flushDirectory();
    this.#unflushed.delete(digest);
  }

  async adopt(path: string, digest: Digest): Promise<void> {
    using _ = await this.#locks.acquire(digest);
    if (this.#known.has(digest)) {
      await unlink(path);
      return;
    }
    await rename(path, this.pathOf(digest));
    this.#unflushed.add(digest);
    this.#known.add(digest);
  }

  async remove(digest: Digest): Promise<void> {
    using _ = await this.#locks.acquire(digest);
    this.#known.delete(digest);
    this.#unflushed.delete(digest);
    try {
      await unlink(this.pathOf(digest));
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
    }
  }

  async list(): Promise<Digest[]> {
    return [...this.#known];
  }

  async sync(): Promise<void> {
    const unflushed = this.#unflushed;
    if (unflushed.size === 0) return;
    if (this.#options.syncFileSystem === undefined) {
      for (const digest of [...unflushed]) if (this.#known.has(digest)) await this.#flushIfNeeded(digest);
      return;
    }
    // What is published while the flush runs may have missed it: it belongs to the next one.
    this.#unflushed = new Set();
    try {
      await this.#options.syncFileSystem(this.#blobs);
    } catch (error) {
      for (const digest of unflushed) this.#unflushed.add(digest);
      throw error;
    }
  }
}
