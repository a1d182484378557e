/** The build cache's size, and giving it back. */
import type { BuildCache, CacheRecord } from "#builder/build-cache.ts";
import type { LayerKey } from "#snapshot/snapshotter.ts";
import { invalidFilter, parseFilters, parseInstant } from "#wire/filters.ts";
import type { CacheMounts } from "./build-cache-mounts.ts";
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

function imageLayers({ images }: Parts): Set<LayerKey> {
  return new Set(images.store.listAll().flatMap(({ layers }) => layers.map(({ key }) => key)));
}

export async function cacheUsage(parts: Parts): Promise<CacheUsage[]> {
  const ofImages = imageLayers(parts);
  const seen = new Set<LayerKey>();
  const usage: CacheUsage[] = [];
  for (const { key, layer, description, created, lastUsedNs, uses } of parts.cache.all()) {
    if (layer === undefined || seen.has(layer.key)) continue;
    seen.add(layer.key);
    usage.push({
      id: key.slice(0, 25),
      type: "regular",
      description,
      inUse: false,
      shared: ofImages.has(layer.key),
      sizeBytes: layer.sizeBytes,
      createdAt: created,
      lastUsedNs,
      uses,
    });
  }
  return usage;
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

/**
 * Removes records: with `all` every one, else those whose layer no image has. With `keepBytes` the longest unused go until
 * no more than that is left. Layers that nothing else needs go with them.
 */
export async function pruneBuildCache(
  parts: Parts,
  call: PruneCall,
): Promise<{ CachesDeleted: string[]; SpaceReclaimed: number }> {
  const { cache, cacheMounts, images } = parts;
  const filters = parseFilters(call.filters, pruneFilters);
  const until = filters.get("until") ?? filters.get("unused-for");
  const before = until?.[0] === undefined ? undefined : parseInstant(until[0], images.context.clock.nowNs());
  if (until !== undefined && before === undefined) throw invalidFilter("until", until[0]);
  const ids = filters.get("id");
  const ofImages = imageLayers(parts);
  const matches = (record: CacheRecord): boolean => {
    if (before !== undefined && BigInt(record.lastUsedNs) >= before) return false;
    return ids === undefined || ids.some((id) => record.key.startsWith(id));
  };
  const isOwn = ({ layer }: CacheRecord): boolean => layer !== undefined && !ofImages.has(layer.key);
  const ownBytes = (): number =>
    [...cache.layers()].reduce(
      (sum, key) => (ofImages.has(key) ? sum : sum + (images.context.snapshotter.sizeBytes(key) ?? 0)),
      0,
    );
  const bytesBefore = ownBytes();
  let excess = call.keepBytes > 0 ? bytesBefore - call.keepBytes : Number.POSITIVE_INFINITY;
  const gone: CacheRecord[] = [];
  for (const record of cache.byAge()) {
    if (excess <= 0) break;
    if (!matches(record) || !(call.all || isOwn(record) || record.layer === undefined)) continue;
    gone.push(record);
    if (isOwn(record)) excess -= record.layer?.sizeBytes ?? 0;
  }
  await cache.removeWhere(gone);
  if (gone.length > 0) await images.store.bytes.collect();
  const deleted = gone.map(({ key }) => key.slice(0, 25));
  if (before === undefined && ids === undefined && call.keepBytes === 0) {
    for (const name of cacheMounts.idle()) {
      cacheMounts.remove(name);
      deleted.push(name.slice(0, 25));
    }
  }
  const reclaimed = bytesBefore - ownBytes();
  images.context.events.publish("builder", "prune", "", { reclaimed: String(reclaimed) });
  return { CachesDeleted: deleted, SpaceReclaimed: reclaimed };
}
