/**
 * Snapshots: unpacked layers that never change, and writable layers on top of them.
 *
 * Vocabulary: a *layer* is an unpacked directory under a `LayerKey`; a *stack* is the list of keys of an image, bottom
 * first; a *writable layer* is the upper (and work) directory of one container.
 *
 * 1. A layer that `has` reports is whole and durable: extract to a temporary name, sync, rename, then the row.
 * 2. A layer is keyed by its DiffID; where its content depends on the layers below (a hardlink into one, a parent
 *    directory that the archive only implies) it is keyed by its ChainID and applied over them.
 * 3. Nothing in an archive, whatever its links say, touches a path outside the layer's own directory.
 * 4. Disk space of a failed apply is given back before the call returns.
 */
import type { Readable } from "node:stream";
import type { ChainId, DiffId, Digest } from "#base/digest.ts";
import type { ContainerId } from "#base/ids.ts";
import type { GrowingFile } from "#content/content-store.ts";
import type { ContextJob, ContextOutcome } from "./context-job.ts";
import type { CopySpec } from "./copy-spec.ts";
import type { DeriveSource } from "./derive-job.ts";

/** Name of a layer's directory: `<hex of DiffID>` or `c-<hex of ChainID>`. */
export type LayerKey = string & { readonly __brand: "LayerKey" };

export interface AppliedLayer {
  readonly key: LayerKey;
  readonly diffId: DiffId;
  /** Sum of the sizes of regular files: what `docker images` counts. */
  readonly sizeBytes: number;
  /** Digest and length of the stream as it was stored (compressed). */
  readonly blobDigest: Digest;
  readonly blobSizeBytes: number;
}

export interface ApplyRequest {
  /** A finished file, or one that is still downloaded. Its first bytes tell how it is compressed. */
  readonly source: { readonly path: string } | GrowingFile;
  /** What the manifest and the config say; a difference is an error and nothing stays. */
  readonly expectedBlobDigest?: Digest;
  readonly expectedDiffId?: DiffId;
  /** The chain this layer ends, and the keys below it: needed only when it turns out to depend on them. */
  readonly chainId?: ChainId;
  /** The source grows as a client sends it, at whatever pace that likes. */
  readonly sentByClient?: true;
  /** Resolves once the layers below are there; awaited only when needed. */
  readonly below: () => Promise<readonly LayerKey[]>;
  readonly signal?: AbortSignal;
  /** Compressed bytes consumed so far, for progress lines. */
  readonly onProgress?: (consumedBytes: number) => void;
}

/** A member of an archive of images; a later one of the same path has taken an earlier one's place. */
export type BundleMember =
  | {
      readonly kind: "file";
      /** Cleaned, from the archive's root. */
      readonly path: string;
      /** Where its bytes lie now. */
      readonly file: string;
      readonly digest: string;
      readonly sizeBytes: number;
    }
  | { readonly kind: "link"; readonly path: string; readonly target: string };

export interface PackedLayer {
  readonly diffId: DiffId;
  /** Length of the tar. */
  readonly diffSizeBytes: number;
  /** Of the compressed file, where one was made. */
  readonly blob?: { readonly digest: Digest; readonly sizeBytes: number };
}

export interface PackOptions {
  readonly output?: string;
  readonly signal?: AbortSignal;
  readonly onWritten?: (bytes: number) => void;
}

/** A layer made of files that are here (a build step), over the layers below. */
export interface DeriveRequest {
  readonly source: DeriveSource;
  /** Keys of the layers below, bottom first, and the chain that they make; undefined for none. */
  readonly stack: readonly LayerKey[];
  readonly belowChain: ChainId | undefined;
  /** Later modification times become this one (SOURCE_DATE_EPOCH). */
  readonly mtimeNsMax?: bigint;
  readonly signal?: AbortSignal;
}

/** Kinds of Docker's diff: 0 modified, 1 added, 2 deleted. */
export interface Change {
  readonly path: string;
  readonly kind: 0 | 1 | 2;
}

export interface WritableLayer {
  readonly upperDir: string;
  readonly workDir: string;
}

export interface Snapshotter {
  /** Driver name for `docker info` and GraphDriver: `overlay2`. */
  readonly driverName: string;
  has(key: LayerKey): boolean;
  /** The key an unpacked layer is found under (DiffID first, then ChainID), or undefined. */
  find(diffId: DiffId, chainId: ChainId): LayerKey | undefined;
  sizeBytes(key: LayerKey): number | undefined;
  pathOf(key: LayerKey): string;
  /** Unpacks in a worker. Concurrent applies of one layer share the work. Not yet durable: see `seal`. */
  apply(request: ApplyRequest): Promise<AppliedLayer>;
  /** One syncfs, then the rows of all layers applied so far that are listed here. After it `has` is durable. */
  seal(layers: readonly AppliedLayer[]): Promise<void>;
  /** Gives up applied layers that will not be sealed (a pull that failed): they go unless somebody else applied them. */
  discard(layers: readonly AppliedLayer[]): Promise<void>;
  /**
   * Makes a layer of local files. Undefined when there is nothing to be in it. Otherwise as `apply`: not yet durable, to be
   * sealed or discarded. `packed again` (`layerTar`) it gives the same bytes.
   */
  derive(request: DeriveRequest): Promise<AppliedLayer | undefined>;
  /** Takes in the archive of a build context while it comes through a ring (byte-ring.ts). */
  indexContext(job: Omit<ContextJob, "kind">, signal: AbortSignal): Promise<ContextOutcome>;
  /** Digest of what a COPY would bring: equal digests give equal files. */
  copyDigest(spec: CopySpec, signal: AbortSignal): Promise<string>;
  removeLayer(key: LayerKey): Promise<void>;
  listLayers(): LayerKey[];

  createWritable(id: ContainerId): Promise<WritableLayer>;
  writableOf(id: ContainerId): WritableLayer;
  /** Moves it aside at once and deletes in a worker later; resolves after the move. */
  removeWritable(id: ContainerId): Promise<void>;
  listWritable(): Promise<ContainerId[]>;
  /** What the container changed, sorted as Docker sorts (by path). Reads the upper directory alone plus lookups below. */
  changes(id: ContainerId, stack: readonly LayerKey[]): Promise<Change[]>;
  /** Bytes of the writable layer (`docker ps -s`). */
  writableUsage(id: ContainerId): Promise<number>;
  /** The writable layer as an OCI layer tar (whiteouts as `.wh.`), deterministic. For commit and builds. */
  diffTar(id: ContainerId, stack: readonly LayerKey[], options?: { signal?: AbortSignal }): Readable;
  /**
   * What a mount of the writable layer over its stack (and over `extra` directories at the very bottom) would show, as a
   * plain tar, without a mount. For export.
   */
  mergedTar(
    id: ContainerId,
    stack: readonly LayerKey[],
    options?: { extra?: readonly string[]; signal?: AbortSignal },
  ): Readable;
  /**
   * A sealed layer packed again. The same bytes, and so the layer's DiffID, where `diffTar` made it; layers from elsewhere
   * were written by other tar programs, so whoever relies on the digest checks it.
   */
  layerTar(key: LayerKey, options?: { signal?: AbortSignal }): Readable;
  /**
   * DiffID and length of a layer's tar, packed again or read from an archive in a file; with `output` (a file to be made) also
   * gzip compressed, of which `onWritten` is told how much there is. In a worker.
   */
  pack(source: LayerKey | { readonly path: string }, options?: PackOptions): Promise<PackedLayer>;
  /**
   * Takes an archive of images (plain, gzip, zstd), which comes through a ring (byte-ring.ts), apart into a directory that is
   * empty and the caller's. In a worker.
   */
  openBundle(
    ring: SharedArrayBuffer,
    directory: string,
    signal: AbortSignal,
  ): Promise<readonly BundleMember[]>;
}
