import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { type ChainId, type DiffId, type Digest, digestOfHash } from "#base/digest.ts";
import { EngineError, errnoOf, messageOf } from "#base/errors.ts";
import type { BlobWriter, ContentStore } from "#content/content-store.ts";
import type { AppliedLayer, LayerKey, Snapshotter } from "#snapshot/snapshotter.ts";
import type { Descriptor } from "#wire/oci-image.ts";
import type { ByteKeeper } from "./byte-keeper.ts";

/** How far a layer is. */
export type LayerProgress =
  | { readonly phase: "waiting" | "verifying" | "downloaded" | "complete" | "exists" | "found" }
  | { readonly phase: "downloading" | "extracting"; readonly current: number; readonly total: number }
  | { readonly phase: "retrying"; readonly seconds: number };

export interface FetchOptions {
  readonly signal: AbortSignal;
  readonly onProgress: (receivedBytes: number) => void;
  readonly onRetry: (seconds: number) => void;
}

/** Brings a blob from wherever it is. */
export type FetchLayer = (descriptor: Descriptor, writer: BlobWriter, options: FetchOptions) => Promise<void>;

export interface WantedLayer {
  readonly descriptor: Descriptor;
  readonly diffId: DiffId;
  readonly chainId: ChainId;
}

/** A download that goes on although its layer is known to be bad, to say whether the registry or the image is at fault. */
const finishBytesMax = 32 * 1024 * 1024;

/** One layer's way from the registry into its directory. */
export class LayerUnpack {
  readonly #content: ContentStore;
  readonly #snapshotter: Snapshotter;
  readonly #keeper: ByteKeeper;
  readonly #layer: WantedLayer;
  readonly #below: readonly Promise<{ readonly key: LayerKey }>[];
  readonly #report: (progress: LayerProgress) => void;
  readonly #signal: AbortSignal;
  #fetched = false;
  #consumed = 0;

  constructor(
    stores: { content: ContentStore; snapshotter: Snapshotter; keeper: ByteKeeper },
    task: {
      layer: WantedLayer;
      below: readonly Promise<{ readonly key: LayerKey }>[];
      report: (progress: LayerProgress) => void;
      signal: AbortSignal;
    },
  ) {
    this.#content = stores.content;
    this.#snapshotter = stores.snapshotter;
    this.#keeper = stores.keeper;
    this.#layer = task.layer;
    this.#below = task.below;
    this.#report = task.report;
    this.#signal = task.signal;
  }

  async #apply(
    source: { readonly path: string } | BlobWriter["file"],
    signal: AbortSignal,
  ): Promise<AppliedLayer> {
    const { descriptor, diffId, chainId } = this.#layer;
    const applied = await this.#snapshotter.apply({
      source,
      expectedBlobDigest: descriptor.digest,
      expectedDiffId: diffId,
      chainId,
      below: async () => (await Promise.all(this.#below)).map(({ key }) => key),
      signal,
      onProgress: (consumed) => {
        this.#consumed = consumed;
        // While the download is shown, what is unpacked beside it is not.
        if (this.#fetched) this.#reportExtracting();
      },
    });
    // Known from here on, so that it is given up even when something else of this layer fails.
    this.#keeper.applied(applied);
    return applied;
  }

  #reportExtracting(): void {
    this.#report({ phase: "extracting", current: this.#consumed, total: this.#layer.descriptor.size });
  }

  #markFetched(): void {
    this.#fetched = true;
    this.#report({ phase: "downloaded" });
    this.#reportExtracting();
  }

  /** From a blob that is kept, or undefined when it is not, or no longer sound. */
  async kept(): Promise<AppliedLayer | undefined> {
    const { digest } = this.#layer.descriptor;
    if (!(await this.#content.has(digest))) return undefined;
    this.#markFetched();
    try {
      return await this.#apply({ path: this.#content.pathOf(digest) }, this.#signal);
    } catch (error) {
      if (this.#signal.aborted || noSpace(error)) throw error;
      // A pull heals a damaged blob: what does not carry its own digest is dropped and fetched again.
      if ((await hashFile(this.#content.pathOf(digest))) === digest) throw registerError(error);
      await this.#content.remove(digest);
      this.#fetched = false;
      return undefined;
    }
  }

  /** Download and unpacking side by side. `slot` is given back as soon as the bytes are there. */
  async downloaded(fetch: FetchLayer, slot: Disposable): Promise<AppliedLayer> {
    using held = slot;
    const { digest, size } = this.#layer.descriptor;
    for (let retried = false; ; ) {
      const kept = await this.kept();
      if (kept !== undefined) return kept;
      await using writer = await this.#content.ingest({ digest, sizeBytes: size });
      // Whoever wrote it while this waited for the writer finished it.
      if (await this.#content.has(digest)) continue;
      const resumed = writer.offset > 0;
      try {
        return await this.#sideBySide(fetch, writer, held);
      } catch (error) {
        if (this.#signal.aborted) throw this.#signal.reason;
        if (!mayResume(error)) await writer.abort();
        if (!(error instanceof BadLayer)) throw noSpace(error) ? registerError(error) : error;
        // Bytes kept from an earlier attempt may be what is wrong: once more from the start.
        this.#fetched = false;
        if (!resumed || retried) throw error.reason;
        retried = true;
      }
    }
  }

  async #sideBySide(fetch: FetchLayer, writer: BlobWriter, slot: Disposable): Promise<AppliedLayer> {
    const { descriptor } = this.#layer;
    const stop = new AbortController();
    const signal = AbortSignal.any([this.#signal, stop.signal]);
    let received = writer.offset;
    const showDownload = (): void =>
      this.#report({ phase: "downloading", current: received, total: descriptor.size });
    showDownload();
    const fetching = fetch(descriptor, writer, {
      signal,
      onProgress: (bytes) => {
        received = bytes;
        showDownload();
      },
      onRetry: (seconds) => this.#report({ phase: "retrying", seconds }),
    }).then(async () => {
      await writer.end();
      void writeBack(writer.file.path);
      slot[Symbol.dispose]();
      this.#report({ phase: "verifying" });
      this.#markFetched();
    });
    const applying = this.#apply(writer.file, signal);
    const fetchFailed = fetching.then(
      () => undefined,
      (reason: unknown) => {
        stop.abort();
        return { reason };
      },
    );
    const applied = await applying.then(
      (layer) => ({ layer }),
      (reason: unknown) => ({ reason }),
    );
    if (stop.signal.aborted) throw (await fetchFailed)?.reason;
    if ("layer" in applied) {
      const failure = await fetchFailed;
      if (failure !== undefined) throw failure.reason;
      await writer.commit({ durable: false, verifiedDigest: applied.layer.blobDigest });
      return applied.layer;
    }
    throw await this.#judge(applied.reason, writer, received, fetchFailed, stop);
  }

  /** Why a layer could not be unpacked: the transport, the registry's bytes, or the image itself. */
  async #judge(
    reason: unknown,
    writer: BlobWriter,
    received: number,
    fetchFailed: Promise<{ reason: unknown } | undefined>,
    stop: AbortController,
  ): Promise<unknown> {
    const { digest, size } = this.#layer.descriptor;
    if (this.#signal.aborted) {
      await fetchFailed;
      return this.#signal.reason;
    }
    if (noSpace(reason) || size - received > finishBytesMax) stop.abort();
    const failure = await fetchFailed;
    if (stop.signal.aborted && failure?.reason !== undefined && !isCancelled(failure.reason)) {
      return failure.reason;
    }
    if (this.#signal.aborted) return this.#signal.reason;
    if (!stop.signal.aborted && (await hashFile(writer.file.path)) !== digest) {
      const message = `filesystem layer verification failed for digest ${digest}`;
      return new BadLayer(new EngineError("system", message, { code: "wrong-digest", cause: reason }));
    }
    return new BadLayer(registerError(reason));
  }
}

/** The bytes are not the layer that was promised: they are dropped. */
class BadLayer extends Error {
  readonly reason: EngineError;

  constructor(reason: EngineError) {
    super(reason.message);
    this.reason = reason;
  }
}

/** What came so far is worth keeping after a broken connection or an error of the registry, not after anything else. */
function mayResume(error: unknown): boolean {
  return error instanceof EngineError && error.code.startsWith("registry-");
}

function noSpace(error: unknown): boolean {
  const errno = errnoOf(error);
  return errno === "ENOSPC" || errno === "EDQUOT";
}

function isCancelled(error: unknown): boolean {
  return error instanceof EngineError && error.kind === "cancelled";
}

/** Docker's words for a layer that could not be unpacked. */
export function registerError(error: unknown): EngineError {
  const kind = error instanceof EngineError ? error.kind : "system";
  const code = error instanceof EngineError ? error.code : "apply-failed";
  const text = noSpace(error) ? "no space left on device" : messageOf(error);
  return new EngineError(kind, `failed to register layer: ${text}`, { code, cause: error });
}

/**
 * Starts a blob's way to the disk while its layer is still unpacked, so that the flush of the whole image finds little
 * left. Only a head start: that flush is what counts.
 */
export async function writeBack(path: string): Promise<void> {
  try {
    await using file = await open(path, "r");
    await file.datasync();
  } catch {
    // Renamed meanwhile, or an error that the flush will meet again.
  }
}

async function hashFile(path: string): Promise<Digest> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) {
    hash.update(chunk as Buffer);
  }
  return digestOfHash(hash);
}
