import { type ChainId, type DiffId, hexOf } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import { Semaphore } from "#base/lock.ts";
import type { ContentStore } from "#content/content-store.ts";
import type { AppliedLayer, LayerKey, Snapshotter } from "#snapshot/snapshotter.ts";
import type { ByteKeeper, Hold } from "./byte-keeper.ts";
import type { ImageLayer } from "./image.ts";
import { type FetchLayer, type LayerProgress, LayerUnpack, type WantedLayer } from "./unpack.ts";

/**
 * Layers of a pull: each is downloaded and, at the same time, inflated, hashed and unpacked in a worker that reads the
 * growing file. Several at once; two pulls that need the same layer share one transfer.
 *
 * 1. Nothing is sealed here: the caller syncs once for the whole image.
 * 2. A transfer ends when its last watcher leaves: then its download stops and its partial stays for a resume.
 * 3. Lower layers are always started before higher ones, so a worker that waits for what lies below never starves it.
 */

export interface LayerPullRequest {
  /** Bottom first. */
  readonly layers: readonly WantedLayer[];
  readonly fetch: FetchLayer;
  readonly hold: Hold;
  readonly report: (layer: WantedLayer, progress: LayerProgress) => void;
  readonly signal: AbortSignal;
}

export interface PulledLayers {
  readonly layers: readonly ImageLayer[];
  /** What was unpacked and is to be sealed. */
  readonly applied: readonly AppliedLayer[];
}

interface Outcome {
  readonly key: LayerKey;
  readonly sizeBytes: number;
  readonly applied?: AppliedLayer;
}

interface Joined {
  readonly outcome: Promise<Outcome>;
  /** True when this was the last watcher of an unfinished transfer, which is stopping now. */
  readonly leave: () => boolean;
}

interface Transfer {
  readonly controller: AbortController;
  readonly watchers: Set<(progress: LayerProgress) => void>;
  last: LayerProgress;
  done: Promise<Outcome>;
}

export interface LayerPullerDeps {
  readonly content: ContentStore;
  readonly snapshotter: Snapshotter;
  readonly keeper: ByteKeeper;
  readonly maxConcurrentDownloads: number;
}

/** Names under which a layer may come to lie (contract of Snapshotter, rule 2). */
export function possibleKeys(layer: { diffId: DiffId; chainId: ChainId }): LayerKey[] {
  return [hexOf(layer.diffId) as LayerKey, `c-${hexOf(layer.chainId)}` as LayerKey];
}

export class LayerPuller {
  readonly #content: ContentStore;
  readonly #snapshotter: Snapshotter;
  readonly #keeper: ByteKeeper;
  readonly #downloads: Semaphore;
  readonly #transfers = new Map<string, Transfer>();

  constructor(deps: LayerPullerDeps) {
    this.#content = deps.content;
    this.#snapshotter = deps.snapshotter;
    this.#keeper = deps.keeper;
    this.#downloads = new Semaphore(Math.max(1, deps.maxConcurrentDownloads));
  }

  /** Another number of downloads at once; those under way go on. */
  setConcurrency(maxConcurrentDownloads: number): void {
    this.#downloads.resize(Math.max(1, maxConcurrentDownloads));
  }

  /** All layers of an image. Throws the first failure, once everything of this pull has stopped. */
  async pull(request: LayerPullRequest): Promise<PulledLayers> {
    const { layers } = request;
    const joined = await this.#joinAll(request);
    const below = joined.map(({ outcome }) => outcome);
    const cancelled = Promise.withResolvers<never>();
    cancelled.promise.catch(() => {});
    const onAbort = (): void => cancelled.reject(new EngineError("cancelled", "context canceled"));
    request.signal.addEventListener("abort", onAbort, { once: true });
    if (request.signal.aborted) onAbort();
    try {
      const outcomes = await Promise.race([Promise.all(below), cancelled.promise]);
      return await this.#collect(layers, outcomes);
    } finally {
      request.signal.removeEventListener("abort", onAbort);
      // What nobody else watches stops now, and has stopped when this returns.
      const stopping = joined.filter(({ leave }) => leave()).map(({ outcome }) => outcome);
      await Promise.allSettled(stopping);
    }
  }

  /** Under the gate: nothing is removed between the look at what is there and the hold on it. */
  async #joinAll(request: LayerPullRequest): Promise<Joined[]> {
    using _gate = await this.#keeper.gate();
    const joined: Joined[] = [];
    for (const layer of request.layers) {
      for (const key of possibleKeys(layer)) request.hold.layer(key);
      request.hold.blob(layer.descriptor.digest);
      const next = this.#join(
        layer,
        joined.map(({ outcome }) => outcome),
        request,
      );
      // Each is awaited later; a failure before that is no unhandled one.
      next.outcome.catch(() => {});
      joined.push(next);
    }
    return joined;
  }

  async #collect(layers: readonly WantedLayer[], outcomes: readonly Outcome[]): Promise<PulledLayers> {
    const applied = new Map<LayerKey, AppliedLayer>();
    const result: ImageLayer[] = [];
    for (const [index, outcome] of outcomes.entries()) {
      const { descriptor, diffId, chainId } = layers[index]!;
      if (outcome.applied !== undefined) applied.set(outcome.key, outcome.applied);
      const kept = await this.#content.has(descriptor.digest);
      result.push({
        diffId,
        chainId,
        key: outcome.key,
        sizeBytes: outcome.sizeBytes,
        ...(kept ? { blobDigest: descriptor.digest, blobSizeBytes: descriptor.size } : {}),
        mediaType: descriptor.mediaType,
      });
    }
    return { layers: result, applied: [...applied.values()] };
  }

  /** Watches the transfer of a layer, which is started where there is none. */
  #join(layer: WantedLayer, below: readonly Promise<Outcome>[], request: LayerPullRequest): Joined {
    const report = (progress: LayerProgress): void => request.report(layer, progress);
    const present = this.#present(layer);
    if (present !== undefined) {
      report({ phase: "exists" });
      return { outcome: Promise.resolve(present), leave: () => false };
    }
    report({ phase: "found" });
    const key = `${layer.descriptor.digest} ${layer.chainId}`;
    let transfer = this.#transfers.get(key);
    if (transfer === undefined || transfer.controller.signal.aborted) {
      transfer = this.#start(key, layer, below, request.fetch);
    } else report(transfer.last);
    const joined = transfer;
    joined.watchers.add(report);
    const leave = (): boolean => {
      if (!joined.watchers.delete(report) || joined.watchers.size > 0) return false;
      joined.controller.abort(new EngineError("cancelled", "context canceled"));
      return true;
    };
    return { outcome: joined.done, leave };
  }

  #present(layer: WantedLayer): Outcome | undefined {
    const key = this.#snapshotter.find(layer.diffId, layer.chainId);
    return key === undefined ? undefined : { key, sizeBytes: this.#snapshotter.sizeBytes(key) ?? 0 };
  }

  #start(key: string, layer: WantedLayer, below: readonly Promise<Outcome>[], fetch: FetchLayer): Transfer {
    const controller = new AbortController();
    const watchers = new Set<(progress: LayerProgress) => void>();
    const transfer: Transfer = {
      controller,
      watchers,
      last: { phase: "found" },
      done: Promise.resolve().then(() => this.#run(layer, below, fetch, report, controller.signal)),
    };
    const report = (progress: LayerProgress): void => {
      transfer.last = progress;
      for (const watcher of watchers) watcher(progress);
    };
    const forget = (): void => {
      if (this.#transfers.get(key) === transfer) this.#transfers.delete(key);
    };
    transfer.done.then(forget, forget);
    this.#transfers.set(key, transfer);
    return transfer;
  }

  async #run(
    layer: WantedLayer,
    below: readonly Promise<Outcome>[],
    fetch: FetchLayer,
    report: (progress: LayerProgress) => void,
    signal: AbortSignal,
  ): Promise<Outcome> {
    const unpack = new LayerUnpack(
      { content: this.#content, snapshotter: this.#snapshotter, keeper: this.#keeper },
      { layer, below, report, signal },
    );
    let applied = await unpack.kept();
    if (applied === undefined) {
      let slot = this.#downloads.tryAcquire();
      if (slot === undefined) {
        report({ phase: "waiting" });
        slot = await acquire(this.#downloads, signal);
      }
      applied = await unpack.downloaded(fetch, slot);
    }
    report({ phase: "complete" });
    return { key: applied.key, sizeBytes: applied.sizeBytes, applied };
  }
}

/** A slot, or the signal's reason as soon as it is aborted; a slot that comes too late is given back. */
async function acquire(semaphore: Semaphore, signal: AbortSignal): Promise<Disposable> {
  const slot = semaphore.acquire();
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([slot, aborted.promise]);
  } catch (error) {
    void slot.then((late) => late[Symbol.dispose]());
    throw error;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
