import type { ImageId } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import { shortId } from "#base/ids.ts";
import type { Image } from "#image/image.ts";
import {
  canonicalName,
  familiarString,
  parseReference,
  type Reference,
  repositoryOf,
  withDefaultTag,
  withDigest,
} from "#wire/reference.ts";
import { type ImageContext, imageEvent } from "./image-context.ts";

/** One line of `docker rmi`. */
export type RemovalRecord = { readonly Untagged: string } | { readonly Deleted: string };

export interface RemoveOptions {
  readonly force: boolean;
  /** Also remove parents that nothing names or needs (`noprune` is its opposite). */
  readonly prune: boolean;
}

interface Conflict {
  readonly hard: boolean;
  readonly used: boolean;
  readonly message: string;
}

/** Which reasons against a deletion count. Hard ones cannot be forced. */
interface ConflictMask {
  readonly references: boolean;
  readonly stopped: boolean;
}

function conflictError(id: ImageId, conflict: Conflict): EngineError {
  const force = conflict.hard ? "cannot be forced" : "must be forced";
  const message = `conflict: unable to delete ${shortId(id)} (${force}) - ${conflict.message}`;
  return new EngineError("conflict", message, { code: "image-in-use" });
}

function findConflict(ctx: ImageContext, id: ImageId, mask: ConflictMask): Conflict | undefined {
  if (ctx.images.childrenOf(id).length > 0) {
    return { hard: true, used: false, message: "image has dependent child images" };
  }
  const users = ctx.containersUsing(id);
  const running = users.find((user) => user.running);
  if (running !== undefined) {
    const message = `image is being used by running container ${shortId(running.id)}`;
    return { hard: true, used: true, message };
  }
  if (mask.references && ctx.images.namesOf(id).length > 0) {
    return { hard: false, used: false, message: "image is referenced in multiple repositories" };
  }
  const stopped = mask.stopped ? users[0] : undefined;
  if (stopped !== undefined) {
    const message = `image is being used by stopped container ${shortId(stopped.id)}`;
    return { hard: false, used: true, message };
  }
  return undefined;
}

/** Whether a text is the start of the image's id: then the image is meant, not a name. */
function isIdPrefix(id: ImageId, text: string): boolean {
  return id.startsWith(text) || id.slice("sha256:".length).startsWith(text);
}

/** At most one tag, and every digest in the tag's own repository: removing it by id loses nothing else. */
function isSingleReference(names: readonly Reference[]): boolean {
  if (names.length <= 1) return true;
  const tags = names.filter(({ digest }) => digest === undefined);
  const repositories = new Set(names.filter(({ digest }) => digest !== undefined).map(canonicalName));
  if (tags.length > 1) return false;
  return repositories.size === 1 && repositories.has(canonicalName(tags[0] ?? names[0]!));
}

/**
 * Docker's `rmi`: by name it untags first and deletes when no name is left; by id it deletes when the image has one
 * repository. Throws `notFound`, or `conflict` with Docker's reason.
 */
export async function removeImage(
  ctx: ImageContext,
  text: string,
  options: RemoveOptions,
): Promise<RemovalRecord[]> {
  const image = ctx.images.resolve(text);
  const records: RemovalRecord[] = [];
  const names = ctx.images.namesOf(image.id);
  if (isIdPrefix(image.id, text)) {
    if (isSingleReference(names)) {
      const conflict = findConflict(ctx, image.id, { references: false, stopped: !options.force });
      if (conflict !== undefined) throw conflictError(image.id, conflict);
      await untag(ctx, image, names, records);
    }
    await deleteImage(ctx, image, options, records, false);
    return records;
  }
  const user = ctx.containersUsing(image.id)[0];
  if (!options.force && user !== undefined && isSingleReference(names)) {
    const message = `conflict: unable to remove repository reference ${JSON.stringify(text)} (must force) - container ${shortId(user.id)} is using its referenced image ${shortId(image.id)}`;
    throw new EngineError("conflict", message, { code: "image-in-use" });
  }
  await untag(ctx, image, namesToRemove(text, names), records);
  if (ctx.images.namesOf(image.id).length === 0) await deleteImage(ctx, image, options, records, true);
  return records;
}

/** The name that was given, and with a repository's last tag its digests. */
function namesToRemove(text: string, names: readonly Reference[]): Reference[] {
  const given = parseReference(text);
  const name =
    given.digest === undefined ? withDefaultTag(given) : withDigest(repositoryOf(given), given.digest);
  if (name.digest !== undefined) return [name];
  const own = names.filter((other) => canonicalName(other) === canonicalName(name));
  const tagsLeft = own.some(({ digest, tag }) => digest === undefined && tag !== name.tag);
  return tagsLeft ? [name] : [name, ...own.filter(({ digest }) => digest !== undefined)];
}

async function untag(
  ctx: ImageContext,
  image: Image,
  names: readonly Reference[],
  records: RemovalRecord[],
): Promise<void> {
  await ctx.images.untag(names);
  for (const name of names) {
    records.push({ Untagged: familiarString(name) });
    imageEvent(ctx, "untag", image.id, image.id, image);
  }
}

/** `quiet`: the name is gone already; an image that stays for other reasons is then no error. */
async function deleteImage(
  ctx: ImageContext,
  image: Image,
  options: RemoveOptions,
  records: RemovalRecord[],
  quiet: boolean,
): Promise<void> {
  const mask = { references: !options.force, stopped: !options.force };
  const conflict = findConflict(ctx, image.id, mask);
  if (conflict !== undefined) {
    const dangling =
      ctx.images.namesOf(image.id).length === 0 && ctx.images.childrenOf(image.id).length === 0;
    if (quiet && (!dangling || conflict.used)) return;
    throw conflictError(image.id, conflict);
  }
  const names = ctx.images.namesOf(image.id);
  if (names.length > 0) await untag(ctx, image, names, records);
  const keepForContainers = ctx.containersUsing(image.id).length > 0 || (ctx.leases.get(image.id) ?? 0) > 0;
  const chains = await ctx.images.remove(image.id, { keepForContainers });
  imageEvent(ctx, "delete", image.id, image.id, image);
  records.push({ Deleted: image.id }, ...chains.map((chain) => ({ Deleted: chain as string })));
  const parent = image.parent === undefined ? undefined : ctx.images.get(image.parent);
  if (!options.prune || parent === undefined || parent.removed === true) return;
  if (ctx.images.namesOf(parent.id).length > 0) return;
  await deleteImage(ctx, parent, { force: false, prune: true }, records, true);
}

export interface PruneResult {
  readonly ImagesDeleted: RemovalRecord[] | null;
  readonly SpaceReclaimed: number;
}

/** Removes images that no container uses: untagged ones, or with `all` every one. `keep` is the filters' verdict. */
export async function pruneImages(
  ctx: ImageContext,
  options: { all: boolean; matches: (image: Image) => boolean },
): Promise<PruneResult> {
  const records: RemovalRecord[] = [];
  const before = storedSizes(ctx);
  for (const image of ctx.images.list()) {
    // An earlier removal may have taken it along as a parent.
    if (ctx.images.get(image.id) === undefined || !options.matches(image)) continue;
    const names = ctx.images.namesOf(image.id);
    if (!options.all && names.some(({ digest }) => digest === undefined)) continue;
    if (ctx.containersUsing(image.id).length > 0) continue;
    // A step of a build goes with what was made of it; an image with names of its own loses them now.
    if (names.length === 0 && ctx.images.childrenOf(image.id).length > 0) continue;
    await untag(ctx, image, names, records);
    await deleteImage(ctx, image, { force: false, prune: true }, records, true);
  }
  const after = storedSizes(ctx);
  let reclaimed = 0;
  for (const [key, size] of before) if (!after.has(key)) reclaimed += size;
  ctx.events.publish("image", "prune", "", { reclaimed: String(reclaimed) });
  return { ImagesDeleted: records.length === 0 ? null : records, SpaceReclaimed: reclaimed };
}

/** What images have on the disk, a shared thing once: their unpacked layers and the compressed ones kept beside them. */
function storedSizes(ctx: ImageContext): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const image of ctx.images.listAll()) {
    for (const { key, sizeBytes, blobDigest, blobSizeBytes = 0 } of image.layers) {
      sizes.set(key, sizeBytes);
      if (blobDigest !== undefined) sizes.set(blobDigest, blobSizeBytes);
    }
  }
  return sizes;
}

/** Bytes of all layers of images, in both forms: what `docker system df` says of the disk. */
export function storedBytes(ctx: ImageContext): number {
  return [...storedSizes(ctx).values()].reduce((sum, size) => sum + size, 0);
}
