import { createHash, type Hash, randomUUID } from "node:crypto";
import { constants, mkdirSync, readdirSync, statSync, unlinkSync } from "node:fs";
import { type FileHandle, link, open, unlink } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { join } from "node:path";
import type { Digest } from "#base/digest.ts";
import { EngineError, errnoOf } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { KeyedLock } from "#base/lock.ts";
import { releaseBytes } from "#base/release-bytes.ts";
import type { Database, Statement } from "#state/database.ts";
import { hashFile } from "./hash-file.ts";
import { HeadStart } from "./head-start.ts";
import { BodyBroken, receiveBody } from "./receive-body.ts";
import { algorithmOf, asContent, digestFrom } from "./registry-digest.ts";
import { RegistryFault } from "./registry-fault.ts";
import type { RegistryDigest } from "./registry-store.ts";

/** Uploads that were begun and not ended: more are refused until some have ended or expired. */
const uploadsMax = 16_384;
/** A session that got nothing for so long may have to go when there are too many. */
const unfedMs = 10 * 60_000;
/** A body of which nothing comes for so long is given up; what came is kept for a resume. */
const bodyIdleMs = 60_000;
/** Uploads that are flushed ahead at a time: each holds a thread of libuv's pool of four. */
const headStartsMax = 2;

export interface Upload {
  readonly id: string;
  readonly repository: string;
  readonly path: string;
  sizeBytes: number;
  touchedAtMs: number;
  /** Of the first `sizeBytes`; undefined after a restart or a failed write: then the file is read once more at the end. */
  hash: Hash | undefined;
  /** The request that writes now, and how to end it. */
  writer: { readonly request: IncomingMessage; readonly abort: AbortController } | undefined;
}

export interface ChunkRange {
  /** Where the client says that the chunk begins, or undefined: at the end of what is there. */
  readonly start?: number;
  /** How long it says that the chunk is. */
  readonly lengthBytes?: number;
}

export interface FinishedUpload {
  readonly content: Digest;
  readonly sizeBytes: number;
  readonly path: string;
  /** Goes with the blob's row. */
  readonly also: readonly Statement[];
}

/**
 * Blobs on their way, a file each. A session's row says which repository it belongs to, its file's length how much is
 * there: nothing else is needed to go on after a restart. One request writes at a time; a new one takes over from one
 * that is stuck, because its client has evidently given that one up.
 */
export class Uploads {
  readonly #root: string;
  readonly #database: Database;
  readonly #sessions: Map<string, Upload>;
  readonly #locks = new KeyedLock();
  readonly #closing = new AbortController();
  /** Bodies that are being received. */
  #bodies = 0;
  #headStarts = 0;

  /** Opens the folder; files that no row names are of uploads in one request, which cannot be resumed. */
  static async open(root: string, database: Database): Promise<Uploads> {
    mkdirSync(root, { recursive: true, mode: 0o700 });
    const sessions = new Map<string, Upload>();
    const rows = await database.all<{ id: string; repository: string; begun_at_ms: number }>(
      "SELECT * FROM upload",
    );
    for (const { id, repository, begun_at_ms } of rows) {
      const path = join(root, id);
      const file = statSync(path, { throwIfNoEntry: false });
      sessions.set(id, {
        id,
        repository,
        path,
        sizeBytes: file?.size ?? 0,
        touchedAtMs: file?.mtimeMs ?? begun_at_ms,
        hash: file === undefined || file.size === 0 ? createHash("sha256") : undefined,
        writer: undefined,
      });
    }
    for (const name of readdirSync(root)) if (!sessions.has(name)) unlinkSync(join(root, name));
    return new Uploads(root, database, sessions);
  }

  private constructor(root: string, database: Database, sessions: Map<string, Upload>) {
    this.#root = root;
    this.#database = database;
    this.#sessions = sessions;
  }

  get size(): number {
    return this.#sessions.size;
  }

  #fresh(repository: string): Upload {
    const id = randomUUID();
    return {
      id,
      repository,
      path: join(this.#root, id),
      sizeBytes: 0,
      touchedAtMs: Date.now(),
      hash: createHash("sha256"),
      writer: undefined,
    };
  }

  /** Begins a session that survives a restart. */
  async begin(repository: string): Promise<Upload> {
    // Those that were begun and never fed make room for others, lest one client keep everybody out.
    if (this.#sessions.size >= uploadsMax) {
      const idle = [...this.#sessions.values()].find(
        ({ writer, sizeBytes, touchedAtMs }) =>
          writer === undefined && sizeBytes === 0 && Date.now() - touchedAtMs > unfedMs,
      );
      if (idle !== undefined) await this.cancel(idle);
    }
    if (this.#sessions.size >= uploadsMax) {
      throw new RegistryFault(429, "TOOMANYREQUESTS", { message: "too many unfinished uploads" });
    }
    const upload = this.#fresh(repository);
    this.#sessions.set(upload.id, upload);
    try {
      const sql = "INSERT INTO upload (id, repository, begun_at_ms) VALUES (?, ?, ?)";
      const params = [upload.id, repository, upload.touchedAtMs];
      await this.#database.commit([{ sql, params }], { durable: false });
    } catch (error) {
      this.#sessions.delete(upload.id);
      throw error;
    }
    return upload;
  }

  /** A session of a repository. Throws `BLOB_UPLOAD_UNKNOWN`. */
  find(repository: string, id: string): Upload {
    const upload = this.#sessions.get(id);
    if (upload === undefined || upload.repository !== repository) throw unknownUpload();
    upload.touchedAtMs = Date.now();
    return upload;
  }

  /** Waits until a request that broke off has written what it brought: then the size is what can be gone on from. */
  async settled(upload: Upload): Promise<void> {
    if (upload.writer === undefined) return;
    const { destroyed, socket } = upload.writer.request;
    if (destroyed || socket.destroyed || socket.readableEnded) {
      (await this.#locks.acquire(upload.id))[Symbol.dispose]();
    }
  }

  /** Runs with the session to itself, after ending a request that still writes to it. */
  async #exclusive<T>(upload: Upload, work: () => Promise<T>): Promise<T> {
    upload.writer?.abort.abort();
    using _ = await this.#locks.acquire(upload.id);
    if (this.#sessions.get(upload.id) !== upload) throw unknownUpload();
    return await work();
  }

  /** Appends a request's body. Throws `OutOfOrder` before anything is read, `SIZE_INVALID` for another length than said. */
  async append(
    upload: Upload,
    request: IncomingMessage,
    range: ChunkRange,
    onBytes: (bytes: number) => void,
  ): Promise<void> {
    await this.#exclusive(upload, () => this.#append(upload, request, range, onBytes, false));
  }

  /**
   * Appends what the last request brings, verifies the whole and hands it to `take`; the session is over, whether that
   * succeeds or not. A body that breaks off leaves the session for a resume.
   */
  async finish<T>(
    upload: Upload,
    request: IncomingMessage,
    range: ChunkRange,
    digest: RegistryDigest,
    onBytes: (bytes: number) => void,
    take: (finished: FinishedUpload) => Promise<T>,
  ): Promise<T> {
    return await this.#exclusive(upload, async () => {
      await this.#append(upload, request, range, onBytes, true);
      // The store takes a second name of the file away: until the row is gone the session can be gone on with.
      const second = `${upload.path}.whole`;
      try {
        const verified = await this.#verified(upload, digest);
        await link(upload.path, second);
        return await take({ ...verified, path: second, also: [deleteRow(upload.id)] });
      } catch (error) {
        await this.#forget(upload);
        throw error;
      } finally {
        this.#sessions.delete(upload.id);
        await Promise.all([removeFile(upload.path), removeFile(second)]);
      }
    });
  }

  /** A whole blob in one request, without a session: one that breaks off leaves nothing. */
  async whole<T>(
    repository: string,
    request: IncomingMessage,
    digest: RegistryDigest,
    onBytes: (bytes: number) => void,
    take: (finished: FinishedUpload) => Promise<T>,
  ): Promise<T> {
    const upload = this.#fresh(repository);
    try {
      await this.#append(upload, request, {}, onBytes, true);
      return await take({ ...(await this.#verified(upload, digest)), also: [] });
    } finally {
      await removeFile(upload.path);
    }
  }

  async #verified(upload: Upload, digest: RegistryDigest): Promise<Omit<FinishedUpload, "also">> {
    const { path, sizeBytes, hash } = upload;
    const algorithm = algorithmOf(digest);
    const read = await hashFile(path, [
      ...(hash === undefined ? (["sha256"] as const) : []),
      ...(algorithm === "sha256" ? [] : [algorithm]),
    ]);
    const sha256 = read.get("sha256") ?? digestFrom("sha256", hash!);
    const found = algorithm === "sha256" ? sha256 : read.get(algorithm);
    if (found !== digest) {
      throw new RegistryFault(400, "DIGEST_INVALID", { detail: { digest, found } });
    }
    return { content: asContent(sha256), sizeBytes, path };
  }

  async #append(
    upload: Upload,
    request: IncomingMessage,
    range: ChunkRange,
    onBytes: (bytes: number) => void,
    isLast: boolean,
  ): Promise<void> {
    if (range.start !== undefined && range.start !== upload.sizeBytes) throw new OutOfOrder(upload);
    const abort = new AbortController();
    upload.writer = { request, abort };
    const before = upload.sizeBytes;
    // Made if it is missing, never cut: what is behind the known size is overwritten.
    const file = await open(upload.path, constants.O_RDWR | constants.O_CREAT, 0o600).catch(
      (error: unknown) => {
        upload.writer = undefined;
        throw error;
      },
    );
    const ahead = new HeadStart(file, (flush) => this.#flushAhead(flush));
    this.#bodies += 1;
    try {
      const received = await receiveBody(request, {
        write: async (chunks, bytes) => {
          await write(file, upload, chunks, bytes);
          ahead.written(bytes);
        },
        queuedBytesMax: queuedBytesFor(this.#bodies),
        idleMs: bodyIdleMs,
        signal: AbortSignal.any([abort.signal, this.#closing.signal]),
        onBytes,
      });
      if (range.lengthBytes !== undefined && received !== range.lengthBytes) {
        await undo(file, upload, before);
        throw new RegistryFault(400, "SIZE_INVALID");
      }
      await ahead.settled();
      if (isLast) await file.datasync();
    } catch (error) {
      // What came is kept: the client asks how much and goes on from there.
      if (error instanceof BodyBroken) await file.truncate(upload.sizeBytes);
      else if (isFull(error)) await this.#forget(upload);
      throw error;
    } finally {
      upload.writer = undefined;
      upload.touchedAtMs = Date.now();
      this.#bodies -= 1;
      await ahead.settled().catch(() => {});
      await file.close();
    }
  }

  /** Undefined where enough of the others do it. */
  #flushAhead(flush: () => Promise<void>): Promise<void> | undefined {
    if (this.#headStarts >= headStartsMax) return undefined;
    this.#headStarts += 1;
    return flush().finally(() => {
      this.#headStarts -= 1;
    });
  }

  /** Forgets a session and what it brought. */
  async cancel(upload: Upload): Promise<void> {
    await this.#exclusive(upload, async () => {
      await this.#forget(upload);
    });
  }

  /** On a full disk too: that is when the space is needed. */
  async #forget(upload: Upload): Promise<void> {
    this.#sessions.delete(upload.id);
    await removeFile(upload.path);
    await this.#database.commit([deleteRow(upload.id)], { durable: false });
  }

  async expire(idleSinceMs: number): Promise<number> {
    const old = [...this.#sessions.values()].filter(
      ({ touchedAtMs, writer }) => writer === undefined && touchedAtMs < idleSinceMs,
    );
    let expired = 0;
    for (const upload of old) {
      try {
        await this.cancel(upload);
        expired += 1;
      } catch (error) {
        if (!(error instanceof RegistryFault)) throw error;
      }
    }
    return expired;
  }

  /** Breaks off every body that is being received; sessions stay for the next start. */
  stop(): void {
    this.#closing.abort();
  }
}

/** A chunk that does not begin where the last one ended (OCI distribution spec, "Pushing a blob in chunks"). */
export class OutOfOrder extends EngineError {
  readonly upload: Upload;

  constructor(upload: Upload) {
    super("invalid", "the chunk does not begin where the last one ended", { code: "out-of-order" });
    this.upload = upload;
  }
}

function isFull(error: unknown): boolean {
  const errno = errnoOf(error);
  return errno === "ENOSPC" || errno === "EDQUOT";
}

function unknownUpload(): RegistryFault {
  return new RegistryFault(404, "BLOB_UPLOAD_UNKNOWN");
}

function deleteRow(id: string): Statement {
  return { sql: "DELETE FROM upload WHERE id = ?", params: [id] };
}

async function removeFile(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}

/** Bytes of one body that may wait for the disk: writes of many are cheaper; of many bodies each holds less. */
function queuedBytesFor(bodies: number): number {
  if (bodies <= 8) return 4 * 1024 * 1024;
  return bodies <= 64 ? 1024 * 1024 : 256 * 1024;
}

/** Writes and hashes at the same time: the one in a thread of the pool, the other here. */
async function write(
  file: FileHandle,
  upload: Upload,
  chunks: readonly Buffer[],
  bytes: number,
): Promise<void> {
  if (upload.sizeBytes + bytes > limits.layerBytesMax) {
    throw new RegistryFault(413, "SIZE_INVALID", { message: "the blob is too large" });
  }
  try {
    const written = file.writev(chunks, upload.sizeBytes);
    for (const chunk of chunks) upload.hash?.update(chunk);
    const { bytesWritten } = await written;
    if (bytesWritten !== bytes)
      throw new EngineError("unavailable", "no space left on device", { code: "ENOSPC" });
    for (const chunk of chunks) releaseBytes(chunk);
    upload.sizeBytes += bytes;
  } catch (error) {
    upload.hash = undefined;
    await file.truncate(upload.sizeBytes);
    throw error;
  }
}

async function undo(file: FileHandle, upload: Upload, sizeBytes: number): Promise<void> {
  upload.hash = sizeBytes === 0 ? createHash("sha256") : undefined;
  upload.sizeBytes = sizeBytes;
  await file.truncate(sizeBytes);
}
