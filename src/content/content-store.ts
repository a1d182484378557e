/**
 * Content: immutable bytes by their sha256.
 *
 * 1. A blob that `has` reports is whole, durable and was verified (length and sha256) on the way in.
 * 2. A partial ingest is never visible as a blob. It is kept under its expected digest so that a download can resume.
 * 3. Removing is the garbage collector's: a blob in use is protected by a reference row or by a lease.
 */
import type { Digest } from "#base/digest.ts";

/** A file that one side appends to while a worker reads it: the layer pipeline of a pull overlaps with its download. */
export interface GrowingFile {
  readonly path: string;
  /**
   * Two 64-bit cells (BigInt64Array over a SharedArrayBuffer): [0] bytes that may be read, [1] state: 0 growing,
   * 1 complete, 2 failed. The writer stores, then Atomics.notify on cell [0]; a reader in a worker Atomics.waits.
   */
  readonly cells: SharedArrayBuffer;
}

export interface BlobWriter extends AsyncDisposable {
  /** Bytes kept from an earlier attempt: ask the registry for the range from here. 0 when there are none. */
  readonly offset: number;
  get file(): GrowingFile;
  /**
   * Takes a chunk over: it must not change afterwards, and is empty once it is on its way to the disk, where it has its
   * buffer to itself. Waits only while too many are on their way.
   */
  write(chunk: Uint8Array): Promise<void>;
  /** No more bytes come: flushes, and tells the reader of `file` so. Implied by `commit` and by the expected size. */
  end(): Promise<void>;
  /** Forgets what was kept (the server did not honour the range). `file` is another one afterwards; the old one fails. */
  restart(): Promise<void>;
  /**
   * Verifies length and digest, then makes the blob durable (no fsync of its own when `durable` is false: the caller
   * does one syncfs for a whole image before it commits). Throws `EngineError` code `wrong-digest` or `short-blob`.
   */
  commit(options?: {
    durable?: boolean;
    verifiedDigest?: Digest;
  }): Promise<{ digest: Digest; sizeBytes: number }>;
  /** Disposal without commit keeps the partial for a resume; `abort` deletes it. */
  abort(): Promise<void>;
}

export interface ContentStore {
  has(digest: Digest): Promise<boolean>;
  /** Size in bytes, or undefined when not there. */
  size(digest: Digest): Promise<number | undefined>;
  /** Whole small blob (manifest, config), bounded by `maxBytes`. `notFound` when missing. */
  read(digest: Digest, maxBytes: number): Promise<Buffer>;
  /** Where the blob lies, for workers and streams. Only for a blob that `has`. */
  pathOf(digest: Digest): string;
  /** Opens an ingest for an expected blob; a second writer of the same digest waits for the first. */
  ingest(expected: { digest: Digest; sizeBytes?: number }): Promise<BlobWriter>;
  /** Stores small bytes under their own digest, durably unless told otherwise. */
  put(bytes: Uint8Array, options?: { durable?: boolean }): Promise<Digest>;
  /**
   * Takes over a finished file of the store's file system, whose digest the caller has verified; the path is free
   * afterwards. Durable after the next `sync`.
   */
  adopt(path: string, digest: Digest): Promise<void>;
  remove(digest: Digest): Promise<void>;
  list(): Promise<Digest[]>;
  /** syncfs of the store's file system, in a worker. */
  sync(): Promise<void>;
}
