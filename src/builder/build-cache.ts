import { createHash } from "node:crypto";
import type { Clock } from "#base/clock.ts";
import type { Log } from "#base/log.ts";
import type { ImageLayer } from "#image/image.ts";
import type { LayerKey } from "#snapshot/snapshotter.ts";

/** What a step made, by the key of all that it depends on. */
export interface CacheRecord {
  readonly key: string;
  /** Undefined for a step that changed no file. */
  readonly layer?: ImageLayer;
  /** RFC 3339: goes into the image again, so that a build from the cache gives the same digests. */
  readonly created: string;
  /** What history says of the step; for `docker system df -v`. */
  readonly description: string;
  readonly parents: readonly string[];
  lastUsedNs: string;
  uses: number;
}

/** Where records are kept across the daemon's lives. */
export interface CacheStorage {
  load(): Promise<readonly { readonly key: string; readonly document: string }[]>;
  save(key: string, document: string): Promise<void>;
  remove(keys: readonly string[]): Promise<void>;
}

/** A record is some 500 bytes of memory; a busy build machine makes a few thousand steps a day. */
const recordsMax = 20_000;
/** Layers that only the cache holds, beyond which the longest unused go. */
export const cacheBytesMax = 20 * 1024 ** 3;

/** Digest of everything that a step's result depends on. */
export function cacheKey(parts: readonly unknown[]): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex");
}

/**
 * The build cache: records in memory and in the database, layers held by them. It is an optimisation only: a record that is
 * missing, damaged or names a layer that is gone is a miss, and the step runs.
 */
export class BuildCache {
  readonly #records = new Map<string, CacheRecord>();
  readonly #storage: CacheStorage;
  readonly #clock: Clock;
  readonly #log: Log;

  private constructor(storage: CacheStorage, clock: Clock, log: Log) {
    this.#storage = storage;
    this.#clock = clock;
    this.#log = log;
  }

  static async open(storage: CacheStorage, clock: Clock, log: Log): Promise<BuildCache> {
    const cache = new BuildCache(storage, clock, log);
    const damaged: string[] = [];
    for (const { key, document } of await storage.load()) {
      const record = readRecord(key, document);
      if (record === undefined) damaged.push(key);
      else cache.#records.set(key, record);
    }
    if (damaged.length > 0) {
      log.warn("damaged records of the build cache are dropped", { records: damaged.length });
      await storage.remove(damaged);
    }
    return cache;
  }

  get size(): number {
    return this.#records.size;
  }

  all(): IterableIterator<CacheRecord> {
    return this.#records.values();
  }

  /** Layers that must stay for the cache's sake. */
  layers(): Set<LayerKey> {
    const keys = new Set<LayerKey>();
    for (const { layer } of this.#records.values()) if (layer !== undefined) keys.add(layer.key);
    return keys;
  }

  find(key: string): CacheRecord | undefined {
    return this.#records.get(key);
  }

  /** Counts a use; it is written down with the next record only, since losing it does no harm. */
  touch(record: CacheRecord): void {
    record.uses += 1;
    record.lastUsedNs = String(this.#clock.nowNs());
  }

  async put(record: Omit<CacheRecord, "lastUsedNs" | "uses">): Promise<void> {
    const full: CacheRecord = { ...record, lastUsedNs: String(this.#clock.nowNs()), uses: 0 };
    this.#records.set(record.key, full);
    try {
      await this.#storage.save(record.key, JSON.stringify(full));
    } catch (error) {
      this.#log.warn("a record of the build cache could not be written", { error });
    }
    if (this.#records.size > recordsMax)
      await this.removeWhere(this.#oldest(this.#records.size - recordsMax));
  }

  #oldest(count: number): CacheRecord[] {
    return this.byAge().slice(0, count);
  }

  /** Longest unused first. */
  byAge(): CacheRecord[] {
    return [...this.#records.values()].sort((left, right) =>
      BigInt(left.lastUsedNs) < BigInt(right.lastUsedNs) ? -1 : 1,
    );
  }

  async removeWhere(records: readonly CacheRecord[]): Promise<void> {
    if (records.length === 0) return;
    for (const { key } of records) this.#records.delete(key);
    await this.#storage.remove(records.map(({ key }) => key));
  }
}

function readRecord(key: string, document: string): CacheRecord | undefined {
  try {
    const value = JSON.parse(document) as CacheRecord;
    const layer = value.layer;
    const isLayer =
      layer === undefined ||
      (/^(?:c-)?[0-9a-f]{64}$/.test(layer.key) && Number.isSafeInteger(layer.sizeBytes));
    const isGood =
      value.key === key &&
      isLayer &&
      typeof value.created === "string" &&
      /^\d+$/.test(value.lastUsedNs) &&
      Array.isArray(value.parents);
    return isGood ? value : undefined;
  } catch {
    return undefined;
  }
}
