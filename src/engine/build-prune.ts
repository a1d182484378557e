/** The build cache's size, and giving it back. */

import { EngineError } from "#base/errors.ts";
import type { BuildCache, CacheRecord } from "#builder/build-cache.ts";
import type { LayerKey } from "#snapshot/snapshotter.ts";
import { type Filters, invalidFilter, parseFilters, parseInstant } from "#wire/filters.ts";
import type { CacheMountStatus, CacheMounts } from "./build-cache-mounts.ts";
import type { ImageService } from "./images.ts";

export interface PruneCall {
  /** Everything, not only what no image has. */
  readonly all: boolean;
  /** Bytes that may stay; 0 for none. */
  readonly keepBytes: number;
  readonly filters: string | undefined;
}

/** One record as `docker system df -v` shows it. */
export interface CacheUsage {
  readonly id: string;
  readonly type: "regular" | "exec.cachemount";
  readonly description: string;
  readonly inUse: boolean;
  /** An image has the layer too: removing the record frees nothing. */
  readonly shared: boolean;
  readonly sizeBytes: number;
  readonly createdAt: string;
  readonly lastUsedNs: string;
  readonly uses: number;
}

interface Parts {
  readonly cache: BuildCache;
  readonly cacheMounts: CacheMounts;
  readonly images: ImageService;
}

/** Ids are shown so long. */
const idLength = 25;

function imageLayers({ images }: Parts): Set<LayerKey> {
  return new Set(images.store.listAll().flatMap(({ layers }) => layers.map(({ key }) => key)));
}

function usageOf(record: CacheRecord, ofImages: ReadonlySet<LayerKey>): CacheUsage {
  const { key, layer, description, created, lastUsedNs, uses } = record;
  return {
    id: key.slice(0, idLength),
    type: "regular",
    description,
    inUse: false,
    shared: layer !== undefined && ofImages.has(layer.key),
    sizeBytes: layer?.sizeBytes ?? 0,
    createdAt: created,
    lastUsedNs,
    uses,
  };
}

/** A record a layer, and every cache mount. */
export async function cacheUsage(parts: Parts): Promise<CacheUsage[]> {
  const ofImages = imageLayers(parts);
  const seen = new Set<LayerKey>();
  const usage: CacheUsage[] = [];
  for (const record of parts.cache.all()) {
    if (record.layer === undefined || seen.has(record.layer.key)) continue;
    seen.add(record.layer.key);
    usage.push(usageOf(record, ofImages));
  }
  return [...usage, ...(await parts.cacheMounts.list()).map(mountUsage)];
}

function mountUsage({ name, inUse, sizeBytes, createdAt, lastUsedNs }: CacheMountStatus): CacheUsage {
  return {
    id: name.slice(0, idLength),
    type: "exec.cachemount",
    description: "cache mount",
    inUse,
    shared: false,
    sizeBytes,
    createdAt,
    lastUsedNs: String(lastUsedNs),
    uses: 0,
  };
}

const pruneFilters: ReadonlySet<string> = new Set([
  "until",
  "unused-for",
  "id",
  "type",
  "description",
  "inuse",
  "shared",
  "private",
  "parent",
]);

type Matches = (usage: CacheUsage, parents: readonly string[]) => boolean;

/** Docker's filters of the build cache: `id` by its beginning, others whole; one value each. Throws `invalid`. */
function matcher(filters: Filters, nowNs: bigint): Matches {
  const tests: Matches[] = [];
  for (const name of pruneFilters) {
    const values = filters.get(name);
    if (values === undefined) continue;
    const [value = ""] = values;
    if (values.length > 1)
      throw new EngineError("invalid", "filters expect only one value", { code: "bad-filter" });
    if (name === "until" || name === "unused-for") {
      const before = parseInstant(value, nowNs);
      if (before === undefined) throw invalidFilter(name, value);
      tests.push(({ lastUsedNs }) => BigInt(lastUsedNs) < before);
    } else if (name === "id") tests.push(({ id }) => id.startsWith(value.slice(0, idLength)));
    else if (name === "type") tests.push(({ type }) => type === value);
    else if (name === "description") tests.push(({ description }) => description === value);
    else if (name === "parent") tests.push((_usage, parents) => parents.includes(value));
    else {
      if (!["", "true", "false", "1", "0"].includes(value)) throw invalidFilter(name, value);
      const wanted = value !== "false" && value !== "0";
      const isSo = ({ inUse, shared }: CacheUsage): boolean =>
        name === "inuse" ? inUse : name === "shared" ? shared : !shared;
      tests.push((usage) => isSo(usage) === wanted);
    }
  }
  return (usage, parents) => tests.every((one) => one(usage, parents));
}

/**
 * Removes records: with `all` every one, else those whose layer no image has; and cache mounts that no step uses. With
 * `keepBytes` the longest unused go until no more than that is left. Layers that nothing else needs go with them.
 */
export async function pruneBuildCache(
  parts: Parts,
  call: PruneCall,
): Promise<{ CachesDeleted: string[]; SpaceReclaimed: number }> {
  const { cache, cacheMounts, images } = parts;
  const matches = matcher(parseFilters(call.filters, pruneFilters), images.context.clock.nowNs());
  const ofImages = imageLayers(parts);
  const mounts = await cacheMounts.list();
  const ownBytes = (): number =>
    [...cache.layers()].reduce(
      (sum, key) => (ofImages.has(key) ? sum : sum + (images.context.snapshotter.sizeBytes(key) ?? 0)),
      0,
    );
  const bytesBefore = ownBytes();
  const mountBytes = mounts.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let excess = call.keepBytes > 0 ? bytesBefore + mountBytes - call.keepBytes : Number.POSITIVE_INFINITY;
  const gone: CacheRecord[] = [];
  const goneMounts: typeof mounts = [];
  const candidates = [
    ...cache.byAge().map((record) => ({ record, usage: usageOf(record, ofImages) })),
    ...mounts.map((mount) => ({ mount, usage: mountUsage(mount) })),
  ].sort((left, right) => (BigInt(left.usage.lastUsedNs) < BigInt(right.usage.lastUsedNs) ? -1 : 1));
  for (const candidate of candidates) {
    if (excess <= 0) break;
    const { usage } = candidate;
    if ("record" in candidate) {
      const { record } = candidate;
      if (!matches(usage, record.parents) || (usage.shared && !call.all)) continue;
      gone.push(record);
      if (!usage.shared) excess -= usage.sizeBytes;
    } else if (!usage.inUse && matches(usage, [])) {
      goneMounts.push(candidate.mount);
      excess -= usage.sizeBytes;
    }
  }
  await cache.removeWhere(gone);
  if (gone.length > 0) await images.store.bytes.collect();
  const deleted = gone.map(({ key }) => key.slice(0, idLength));
  let reclaimed = bytesBefore - ownBytes();
  for (const { name, sizeBytes } of goneMounts) {
    if (!(await cacheMounts.remove(name))) continue;
    deleted.push(name.slice(0, idLength));
    reclaimed += sizeBytes;
  }
  images.context.events.publish("builder", "prune", "", { reclaimed: String(reclaimed) });
  return { CachesDeleted: deleted, SpaceReclaimed: reclaimed };
}
