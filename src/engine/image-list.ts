import { parseTime } from "#base/clock.ts";
import type { ImageId } from "#base/digest.ts";
import type { Image } from "#image/image.ts";
import {
  type Filters,
  hasLabel,
  invalidFilter,
  matchLabels,
  parseFilters,
  parseInstant,
} from "#wire/filters.ts";
import { familiarString, matchesPattern, type Reference } from "#wire/reference.ts";
import type { ImageContext } from "./image-context.ts";

/** One row of `docker images`. Shapes that differ between API versions are the API's business. */
export interface ImageSummary {
  readonly id: ImageId;
  readonly parentId: string;
  readonly tags: readonly string[];
  readonly digests: readonly string[];
  /** Seconds since the epoch; Go's zero time where the image does not say. */
  readonly createdSeconds: number;
  readonly sizeBytes: number;
  /** −1: not asked for. */
  readonly sharedSizeBytes: number;
  readonly labels: Readonly<Record<string, string>> | null;
}

export interface ListOptions {
  readonly all: boolean;
  readonly sharedSize: boolean;
  /** The `filters` parameter as it came. */
  readonly filters: string | undefined;
}

const listFilters: ReadonlySet<string> = new Set([
  "before",
  "dangling",
  "label",
  "reference",
  "since",
  "until",
]);

/** Seconds since the epoch of Go's zero time. */
const zeroSeconds = -62_135_596_800;

export function createdSeconds(text: string | undefined): number {
  const ns = text === undefined ? undefined : parseTime(text);
  return ns === undefined ? zeroSeconds : Number(ns / 1_000_000_000n) - (ns % 1_000_000_000n < 0n ? 1 : 0);
}

function createdNs(image: Image): bigint {
  const text = image.config.created;
  return (text === undefined ? undefined : parseTime(text)) ?? BigInt(zeroSeconds) * 1_000_000_000n;
}

/** The value of a filter that is a truth value, or undefined when it is not there. Throws `invalid`. */
function booleanFilter(filters: Filters, key: string): boolean | undefined {
  const values = filters.get(key);
  if (values === undefined || values.length === 0) return undefined;
  const truths = values.map((value) => {
    if (/^(1|t|true)$/i.test(value)) return true;
    if (/^(0|f|false)$/i.test(value)) return false;
    throw invalidFilter(key, `[${value}]`);
  });
  // Docker takes contradicting values for an error too.
  if (new Set(truths).size > 1) throw invalidFilter(key, `[${values.join(" ")}]`);
  return truths[0];
}

function instantFilter(ctx: ImageContext, filters: Filters): bigint | undefined {
  const text = filters.get("until")?.[0];
  if (text === undefined) return undefined;
  const at = parseInstant(text, ctx.clock.nowNs());
  if (at === undefined) throw invalidFilter("until", `[${text}]`);
  return at;
}

/** Names of an image that a `reference` filter lets through. */
function namesThrough(names: readonly Reference[], patterns: readonly string[] | undefined): Reference[] {
  if (patterns === undefined) return [...names];
  return names.filter((name) => patterns.some((pattern) => matchesPattern(pattern, name)));
}

/** The rows of `docker images`, newest first. Throws `invalid` for filters, `notFound` for images they name. */
export function listImages(ctx: ImageContext, options: ListOptions): ImageSummary[] {
  const filters = parseFilters(options.filters, listFilters);
  const dangling = booleanFilter(filters, "dangling");
  const before = filters.get("before")?.map((name) => createdNs(ctx.images.resolve(name)));
  const since = filters.get("since")?.map((name) => createdNs(ctx.images.resolve(name)));
  const until = instantFilter(ctx, filters);
  const patterns = filters.get("reference");
  const users = options.sharedSize ? layerUsers(ctx) : undefined;
  const parents = new Set(ctx.images.list().map(({ parent }) => parent));
  const rows: ImageSummary[] = [];
  for (const image of ctx.images.list()) {
    const created = createdNs(image);
    if (before?.some((limit) => created >= limit) || since?.some((limit) => created <= limit)) continue;
    if (until !== undefined && created >= until) continue;
    if (!matchLabels(filters.get("label"), image.config.config?.Labels ?? null)) continue;
    const names = namesThrough(ctx.images.namesOf(image.id), patterns);
    const tags = names.filter(({ digest }) => digest === undefined).map(familiarString);
    const isParent = parents.has(image.id);
    if (names.length === 0) {
      // An image of a build step, or one that the filters leave no name of.
      if ((isParent && !options.all) || dangling === false || patterns !== undefined) continue;
    } else if (dangling === true && tags.length > 0) continue;
    if (isParent && dangling === true) continue;
    rows.push({
      id: image.id,
      parentId: image.parent ?? "",
      tags,
      digests: names.filter(({ digest }) => digest !== undefined).map(familiarString),
      createdSeconds: createdSeconds(image.config.created),
      sizeBytes: image.sizeBytes,
      sharedSizeBytes: users === undefined ? -1 : sharedSize(image, users),
      labels: image.config.config?.Labels ?? null,
    });
  }
  return rows.sort((left, right) => right.createdSeconds - left.createdSeconds);
}

/** How many images have each chain. */
function layerUsers(ctx: ImageContext): Map<string, number> {
  const users = new Map<string, number>();
  for (const image of ctx.images.list()) {
    for (const { chainId } of image.layers) users.set(chainId, (users.get(chainId) ?? 0) + 1);
  }
  return users;
}

function sharedSize(image: Image, users: ReadonlyMap<string, number>): number {
  return image.layers.reduce(
    (sum, { chainId, sizeBytes }) => ((users.get(chainId) ?? 0) > 1 ? sum + sizeBytes : sum),
    0,
  );
}

const pruneFilters: ReadonlySet<string> = new Set(["dangling", "label", "label!", "until"]);

/** What `docker image prune` is asked to remove. `dangling=false` means all unused images. */
export function pruneSelection(
  ctx: ImageContext,
  text: string | undefined,
): { all: boolean; matches: (image: Image) => boolean } {
  const filters = parseFilters(text, pruneFilters);
  const dangling = booleanFilter(filters, "dangling") ?? true;
  const until = instantFilter(ctx, filters);
  const unwanted = filters.get("label!") ?? [];
  return {
    all: !dangling,
    matches: (image) => {
      const labels = image.config.config?.Labels ?? null;
      if (until !== undefined && createdNs(image) >= until) return false;
      if (!matchLabels(filters.get("label"), labels)) return false;
      return !unwanted.some((entry) => hasLabel(entry, labels));
    },
  };
}
