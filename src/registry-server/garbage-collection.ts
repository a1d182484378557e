import type { RegistryStore } from "./registry-store.ts";

export interface CollectionOptions {
  /** What was pushed, mounted or asked for within this time stays. */
  readonly graceMs: number;
  /** Also remove manifests that no tag reaches. */
  readonly deleteUntagged: boolean;
  /** Say what would go, and remove nothing. */
  readonly dryRun?: boolean;
  readonly signal?: AbortSignal;
}

export interface CollectionReport {
  readonly dryRun: boolean;
  /** Manifests that no tag reached. */
  readonly manifests: number;
  /** Blobs that a repository no longer has. */
  readonly links: number;
  /** Contents that no repository has any more, and their bytes on the disk. */
  readonly blobs: number;
  readonly bytes: number;
  readonly milliseconds: number;
}

/**
 * Collects garbage while the registry serves: untagged manifests first (where wished), then each repository's blobs that
 * no manifest names, then contents that no repository has. Each step is safe while pushes go on (invariants 2 to 4 of
 * `registry-store.ts`), so nothing is locked and nothing stands still. One collection at a time: a second one waits.
 */
export class GarbageCollector {
  readonly #store: RegistryStore;
  #last: Promise<unknown> = Promise.resolve();

  constructor(store: RegistryStore) {
    this.#store = store;
  }

  collect(options: CollectionOptions): Promise<CollectionReport> {
    const run = this.#last.then(() => this.#run(options));
    this.#last = run.catch(() => {});
    return run;
  }

  async #run(options: CollectionOptions): Promise<CollectionReport> {
    const started = performance.now();
    const { manifests, links, blobs, bytes } = await (options.dryRun === true
      ? this.#foresee(options)
      : this.#remove(options));
    const milliseconds = Math.round(performance.now() - started);
    return { dryRun: options.dryRun === true, manifests, links, blobs, bytes, milliseconds };
  }

  async #remove({ graceMs, deleteUntagged, signal }: CollectionOptions): Promise<Counts> {
    const before = Date.now() - graceMs;
    let manifests = 0;
    let links = 0;
    for (const repository of this.#store.repositories()) {
      for (const { digest } of deleteUntagged ? this.#store.untaggedManifests(repository) : []) {
        signal?.throwIfAborted();
        if (await this.#store.collectManifest(repository, digest, { pushedBeforeMs: before })) manifests += 1;
      }
      signal?.throwIfAborted();
      links += (await this.#store.collectLinks(repository, { touchedBeforeMs: before })).length;
    }
    const { removed, bytes } = await this.#store.sweepContent(signal === undefined ? {} : { signal });
    return { manifests, links, blobs: removed, bytes };
  }

  /** Blobs that only untagged manifests name are not among its links yet: the real run finds them after these are gone. */
  async #foresee({ graceMs, deleteUntagged }: CollectionOptions): Promise<Counts> {
    const before = Date.now() - graceMs;
    const store = this.#store;
    const kept = new Set<string>();
    const gone = new Map<string, number>();
    let manifests = 0;
    let links = 0;
    for (const repository of store.repositories()) {
      if (deleteUntagged) {
        const old = store.untaggedManifests(repository).filter(({ pushedAtMs }) => pushedAtMs < before);
        manifests += old.length;
      }
      const collectable = store.collectableLinks(repository, { touchedBeforeMs: before });
      links += collectable.length;
      const names = new Set<string>(collectable.map(({ digest }) => digest));
      for (const { digest } of store.links(repository)) if (!names.has(digest)) kept.add(digest);
      for (const { digest, sizeBytes } of collectable) gone.set(digest, sizeBytes);
    }
    const lost = [...gone].filter(([digest]) => !kept.has(digest));
    const { removed, bytes } = await store.sweepable();
    return {
      manifests,
      links,
      blobs: removed + lost.length,
      bytes: lost.reduce((sum, [, sizeBytes]) => sum + sizeBytes, bytes),
    };
  }
}

type Counts = Pick<CollectionReport, "manifests" | "links" | "blobs" | "bytes">;
