import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, renameSync } from "node:fs";
import { mkdir, open, rename } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { assert } from "#base/assert.ts";
import { type ChainId, type DiffId, type Digest, digestOf, hexOf } from "#base/digest.ts";
import { EngineError, errnoOf } from "#base/errors.ts";
import type { ContainerId } from "#base/ids.ts";
import type { Log } from "#base/log.ts";
import type { Database, SqlValue } from "#state/database.ts";
import type { ContextJob, ContextOutcome } from "./context-job.ts";
import type { CopySpec } from "./copy-spec.ts";
import type { LayerJob } from "./layer-job.ts";
import type { LayerPools } from "./layer-pools.ts";
import type { LayerWorkers } from "./layer-workers.ts";
import { closeBlocks, helperFailed, sharedBlocks } from "./pack-blocks.ts";
import { SharedApplies } from "./shared-applies.ts";
import type {
  AppliedLayer,
  ApplyRequest,
  BundleMember,
  Change,
  DeriveRequest,
  LayerKey,
  PackedLayer,
  PackOptions,
  Snapshotter,
  WritableLayer,
} from "./snapshotter.ts";

export interface OverlayOptions {
  /** Directory of the driver, `<data root>/overlay2`: made when missing. */
  readonly root: string;
  /** Where the rows of sealed layers are; without one they last as long as the object (tests). */
  readonly database?: Database;
  readonly log: Log;
  readonly pools: LayerPools;
}

interface LayerRow extends Record<string, SqlValue> {
  readonly key: string;
  readonly size_bytes: number;
}

/** Beyond these, reading and hashing by the one that packs is what takes the time. */
const packHelpersMax = 3;
const keyPattern = /^(?:c-)?[0-9a-f]{64}$/;
const idPattern = /^[0-9a-zA-Z][0-9a-zA-Z_.-]{0,127}$/;

/**
 * Opens the overlay snapshotter. Layout below `root`:
 * `<key>/diff` a layer · `w-<id>/{diff,work}` a writable layer · `tmp/` layers being applied · `trash/` what is being deleted.
 * A directory without a row is left over from a crash (invariant 1) and goes to the trash, which is emptied in a worker.
 */
export async function createOverlaySnapshotter(options: OverlayOptions): Promise<Snapshotter> {
  // Nobody but root may walk in: layers hold setuid programs (CVE-2021-41091). 0710 would let a group through.
  for (const name of ["", "tmp", "trash"])
    mkdirSync(join(options.root, name), { recursive: true, mode: 0o700 });
  const rows = await options.database?.all<LayerRow>("SELECT key, size_bytes FROM layer");
  const sealed = new Map<LayerKey, number>();
  const lost: string[] = [];
  for (const row of rows ?? []) {
    if (existsSync(join(options.root, row.key, "diff"))) sealed.set(row.key as LayerKey, row.size_bytes);
    else lost.push(row.key);
  }
  if (lost.length > 0) {
    options.log.error("layers are gone from the disk; their images must be pulled again", { keys: lost });
    await options.database?.commit(
      lost.map((key) => ({ sql: "DELETE FROM layer WHERE key = ?", params: [key] })),
    );
  }
  const snapshotter = new OverlaySnapshotter(options, sealed);
  snapshotter.clearLeftovers();
  return snapshotter;
}

class OverlaySnapshotter implements Snapshotter {
  readonly driverName = "overlay2";
  readonly #root: string;
  readonly #database: Database | undefined;
  readonly #log: Log;
  readonly #pools: LayerPools;
  readonly #sealed: Map<LayerKey, number>;
  readonly #applies: SharedApplies;
  /** Made by `derive` and on the disk, but for their directories' names. */
  readonly #flushed = new Set<LayerKey>();
  #nextStaging = 0;

  constructor(options: OverlayOptions, sealed: Map<LayerKey, number>) {
    this.#root = options.root;
    this.#database = options.database;
    this.#log = options.log;
    this.#pools = options.pools;
    this.#sealed = sealed;
    this.#applies = new SharedApplies(
      (request, signal, onProgress) => this.#apply(request, signal, onProgress),
      (layer) => {
        if (!this.#sealed.has(layer.key)) this.#removeDirectory(layer.key);
      },
    );
  }

  has(key: LayerKey): boolean {
    return this.#sealed.has(key);
  }

  find(diffId: DiffId, chainId: ChainId): LayerKey | undefined {
    const candidates = [diffKey(diffId), chainKey(chainId)];
    return candidates.find((key) => this.#sealed.has(key));
  }

  sizeBytes(key: LayerKey): number | undefined {
    return this.#sealed.get(key);
  }

  pathOf(key: LayerKey): string {
    assert(keyPattern.test(key), `bad layer key ${key}`);
    return join(this.#root, key, "diff");
  }

  apply(request: ApplyRequest): Promise<AppliedLayer> {
    return this.#applies.apply(request);
  }

  async #apply(
    request: ApplyRequest,
    signal: AbortSignal,
    onProgress: (consumedBytes: number) => void,
  ): Promise<AppliedLayer> {
    const { source, expectedBlobDigest, expectedDiffId } = request;
    const pool = request.sentByClient === true ? this.#pools.fed : this.#pools.work;
    const job = {
      kind: "apply",
      path: source.path,
      ...("cells" in source ? { cells: source.cells } : {}),
      ...(expectedBlobDigest === undefined ? {} : { expectedBlobDigest }),
      ...(expectedDiffId === undefined ? {} : { expectedDiffId }),
    } as const;
    let staging = this.#stagingPath();
    let outcome = await pool.run<"apply">({ ...job, staging }, { signal, onProgress });
    let below: readonly LayerKey[] = [];
    if (outcome.dependsOnBelow) {
      // No thread is held while the layers below are still unpacked, or four such layers could wait for ever.
      below = await request.below();
      staging = this.#stagingPath();
      const directories = below.map((key) => this.pathOf(key)).reverse();
      outcome = await pool.run<"apply">({ ...job, staging, below: directories }, { signal, onProgress });
    }
    assert(!outcome.dependsOnBelow, "a layer applied over those below asked for them");
    const diffId = outcome.diffId as DiffId;
    const key = outcome.usedBelow ? chainKey(this.#chainOf(request, diffId, below)) : diffKey(diffId);
    this.#place(staging, key);
    return {
      key,
      diffId,
      sizeBytes: outcome.sizeBytes,
      blobDigest: outcome.blobDigest as Digest,
      blobSizeBytes: outcome.blobSizeBytes,
    };
  }

  async derive(request: DeriveRequest): Promise<AppliedLayer | undefined> {
    const { source, stack, mtimeNsMax, signal } = request;
    const staging = this.#stagingPath();
    const job = {
      kind: "derive",
      source,
      staging,
      below: this.#below(stack),
      ...(mtimeNsMax === undefined ? {} : { mtimeNsMax: String(mtimeNsMax) }),
    } as const;
    const outcome = await this.#poolNear(job).run<"derive">(job, signal === undefined ? {} : { signal });
    if (outcome.isEmpty) {
      this.#trash(staging);
      return undefined;
    }
    const diffId = outcome.diffId as DiffId;
    const chainId = request.belowChain === undefined ? diffId : digestOf(`${request.belowChain} ${diffId}`);
    const key = outcome.usedBelow ? chainKey(chainId as string as ChainId) : diffKey(diffId);
    // One that was there already may not be on the disk yet.
    if (this.#place(staging, key) && outcome.flushed) this.#flushed.add(key);
    const { sizeBytes, tarBytes } = outcome;
    // Local layers are stored uncompressed: the blob is the tar.
    return this.#applies.adopt({
      key,
      diffId,
      sizeBytes,
      blobDigest: diffId as string as Digest,
      blobSizeBytes: tarBytes,
    });
  }

  indexContext(job: Omit<ContextJob, "kind">, signal: AbortSignal): Promise<ContextOutcome> {
    return this.#pools.fed.run<"context">({ kind: "context", ...job }, { signal });
  }

  copyDigest(spec: CopySpec, signal: AbortSignal): Promise<string> {
    const job = { kind: "copy-digest", spec } as const;
    return this.#poolNear(job).run<"copy-digest">(job, { signal });
  }

  /** A thread that has the build's context in memory, if one has nothing to do: reading its index takes longer. */
  #poolNear(job: LayerJob): LayerWorkers {
    return this.#pools.fed.isNear(job) ? this.#pools.fed : this.#pools.work;
  }

  #chainOf(request: ApplyRequest, diffId: DiffId, below: readonly LayerKey[]): ChainId {
    if (request.chainId !== undefined) return request.chainId;
    // Unknown to the caller and to us: a name made of the very layers it was applied over is as good.
    if (below.length === 0) return diffId as string as ChainId;
    return digestOf([...below, diffId].join(" ")) as string as ChainId;
  }

  /** Gives an unpacked layer its name. One that is there already, from another blob of the same content, stays: false. */
  #place(staging: string, key: LayerKey): boolean {
    mkdirSync(join(this.#root, key), { recursive: true, mode: 0o700 });
    try {
      // An empty layer's directory is empty too, and rename(2) would replace it: the content is the same.
      renameSync(staging, this.pathOf(key));
      return true;
    } catch (error) {
      if (errnoOf(error) !== "ENOTEMPTY" && errnoOf(error) !== "EEXIST") throw error;
      this.#trash(staging);
      return false;
    }
  }

  async seal(layers: readonly AppliedLayer[]): Promise<void> {
    if (layers.length === 0) return;
    await this.#flush(layers);
    await this.#database?.commit(
      layers.map((layer) => ({
        sql: "INSERT INTO layer (key, diff_id, size_bytes, blob_digest, blob_size_bytes) VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
        params: [layer.key, layer.diffId, layer.sizeBytes, layer.blobDigest, layer.blobSizeBytes],
      })),
    );
    for (const layer of layers) {
      if (!this.#sealed.has(layer.key)) this.#sealed.set(layer.key, layer.sizeBytes);
      this.#applies.settle(layer);
    }
  }

  /** Layers that their worker has flushed lack their names only; for all others one syncfs. */
  async #flush(layers: readonly AppliedLayer[]): Promise<void> {
    if (!layers.every(({ key }) => this.#flushed.has(key))) {
      await this.#pools.work.run<"sync">({ kind: "sync", directory: this.#root });
    } else {
      for (const { key } of layers) await flushDirectory(join(this.#root, key));
      await flushDirectory(this.#root);
    }
    for (const { key } of layers) this.#flushed.delete(key);
  }

  async discard(layers: readonly AppliedLayer[]): Promise<void> {
    for (const layer of layers) {
      if (this.#applies.release(layer) && !this.#sealed.has(layer.key)) this.#removeDirectory(layer.key);
    }
  }

  async removeLayer(key: LayerKey): Promise<void> {
    assert(keyPattern.test(key), `bad layer key ${key}`);
    // The row first (invariant 1): a crash in between leaves a directory that the next start removes.
    this.#sealed.delete(key);
    await this.#database?.commit([{ sql: "DELETE FROM layer WHERE key = ?", params: [key] }]);
    if (!this.#sealed.has(key) && !this.#applies.isUsed(key)) this.#removeDirectory(key);
  }

  listLayers(): LayerKey[] {
    return [...this.#sealed.keys()];
  }

  async createWritable(id: ContainerId): Promise<WritableLayer> {
    const layer = this.writableOf(id);
    const staging = this.#stagingPath();
    // Not on the event loop: while layers are unpacked the file system's journal makes it wait.
    await mkdir(staging, { mode: 0o700 });
    try {
      await Promise.all([
        mkdir(join(staging, "diff"), { mode: 0o755 }),
        mkdir(join(staging, "work"), { mode: 0o700 }),
      ]);
      // What has the name is whole, whenever the daemon dies. An empty directory in its place would be replaced.
      await rename(staging, this.#writableDir(id));
    } catch (error) {
      this.#trash(staging);
      throw error;
    }
    return layer;
  }

  writableOf(id: ContainerId): WritableLayer {
    const directory = this.#writableDir(id);
    return { upperDir: join(directory, "diff"), workDir: join(directory, "work") };
  }

  #writableDir(id: ContainerId): string {
    assert(idPattern.test(id), `bad id of a writable layer: ${id}`);
    return join(this.#root, `w-${id}`);
  }

  async removeWritable(id: ContainerId): Promise<void> {
    this.#trash(this.#writableDir(id));
  }

  async listWritable(): Promise<ContainerId[]> {
    const names = readdirSync(this.#root);
    return names.filter((name) => name.startsWith("w-")).map((name) => name.slice(2) as ContainerId);
  }

  async changes(id: ContainerId, stack: readonly LayerKey[]): Promise<Change[]> {
    const job = { kind: "changes", upper: this.writableOf(id).upperDir, below: this.#below(stack) } as const;
    return [...(await this.#pools.work.run<"changes">(job))];
  }

  writableUsage(id: ContainerId): Promise<number> {
    return this.#pools.work.run<"usage">({ kind: "usage", directory: this.writableOf(id).upperDir });
  }

  diffTar(id: ContainerId, stack: readonly LayerKey[], options: { signal?: AbortSignal } = {}): Readable {
    const { upperDir } = this.writableOf(id);
    return this.#pools.streams.tar({ kind: "tar", directory: upperDir, below: this.#below(stack) }, options);
  }

  mergedTar(
    id: ContainerId,
    stack: readonly LayerKey[],
    options: { extra?: readonly string[]; signal?: AbortSignal } = {},
  ): Readable {
    const { extra = [], ...rest } = options;
    const merge = [...this.#below(stack), ...extra];
    return this.#pools.streams.tar({ kind: "tar", directory: this.writableOf(id).upperDir, merge }, rest);
  }

  layerTar(key: LayerKey, options: { signal?: AbortSignal } = {}): Readable {
    return this.#pools.streams.tar({ kind: "tar", directory: this.pathOf(key), layer: true }, options);
  }

  async pack(source: LayerKey | { readonly path: string }, options: PackOptions = {}): Promise<PackedLayer> {
    const { output, signal, onWritten } = options;
    const from = typeof source === "string" ? { directory: this.pathOf(source) } : source;
    const blocks = output === undefined ? undefined : sharedBlocks();
    const packing = this.#pools.work.run<"pack">(
      {
        kind: "pack",
        source: from,
        ...(output === undefined ? {} : { output }),
        ...(blocks === undefined ? {} : { blocks }),
      },
      {
        ...(signal === undefined ? {} : { signal }),
        ...(onWritten === undefined ? {} : { onProgress: onWritten }),
      },
    );
    if (blocks !== undefined && signal?.aborted !== true) this.#helpPacking(blocks);
    try {
      const { diffId, diffSizeBytes, blobDigest, blobSizeBytes = 0 } = await packing;
      const blob = { digest: blobDigest as Digest, sizeBytes: blobSizeBytes };
      return { diffId: diffId as DiffId, diffSizeBytes, ...(blobDigest === undefined ? {} : { blob }) };
    } finally {
      // A pack that never began closes nothing itself, and its helpers would wait for ever.
      if (blocks !== undefined) closeBlocks(blocks);
    }
  }

  /** Other cores compress too, as soon as they have nothing else to do. */
  #helpPacking(blocks: SharedArrayBuffer): void {
    const helpers = Math.min(packHelpersMax, availableParallelism() - 1);
    for (let helper = 0; helper < helpers; helper += 1) {
      const job = { kind: "pack-help", blocks } as const;
      this.#pools.work.run<"pack-help">(job).catch(() => helperFailed(blocks));
    }
  }

  openBundle(
    ring: SharedArrayBuffer,
    directory: string,
    signal: AbortSignal,
  ): Promise<readonly BundleMember[]> {
    return this.#pools.fed.run<"bundle">({ kind: "bundle", ring, directory }, { signal });
  }

  /** Directories of a stack, top first, as overlay's lowerdir lists them. */
  #below(stack: readonly LayerKey[]): string[] {
    return stack.map((key) => this.pathOf(key)).reverse();
  }

  #stagingPath(): string {
    this.#nextStaging += 1;
    return join(this.#root, "tmp", `${process.pid}-${this.#nextStaging}`);
  }

  #removeDirectory(key: LayerKey): void {
    this.#trash(join(this.#root, key));
  }

  /** Out of the way at once, off the disk later. Missing is fine. */
  #trash(path: string): void {
    const name = randomBytes(12).toString("hex");
    try {
      renameSync(path, join(this.#root, "trash", name));
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return;
      throw error;
    }
    this.#empty(name);
  }

  #empty(name: string): void {
    const job = { kind: "remove", directory: join(this.#root, "trash"), name } as const;
    this.#pools.work.run<"remove">(job).catch((error: unknown) => {
      // What stays is tried again at the next start; the space is only late.
      const cancelled = error instanceof EngineError && error.kind === "cancelled";
      if (!cancelled) this.#log.warn("cannot delete from the trash", { name, error });
    });
  }

  /** At start: what a crash left. Layers without a row, half applied ones, and the trash. */
  clearLeftovers(): void {
    // Listed before more goes there, which is emptied by itself.
    const trash = readdirSync(join(this.#root, "trash"));
    for (const name of readdirSync(join(this.#root, "tmp"))) this.#trash(join(this.#root, "tmp", name));
    for (const name of readdirSync(this.#root)) {
      if (!keyPattern.test(name) || this.#sealed.has(name as LayerKey)) continue;
      // Without a database nobody can tell a good layer from a leftover.
      if (this.#database !== undefined) this.#trash(join(this.#root, name));
    }
    for (const name of trash) this.#empty(name);
  }
}

async function flushDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

function diffKey(diffId: DiffId): LayerKey {
  return hexOf(diffId) as LayerKey;
}

function chainKey(chainId: ChainId): LayerKey {
  return `c-${hexOf(chainId)}` as LayerKey;
}
