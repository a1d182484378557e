/** Use case: load. Images of an archive, made of layers as a pull makes them, from files instead of a registry. */
import { randomBytes } from "node:crypto";
import { mkdir, open, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { chainIds, type DiffId, type Digest, type ImageId } from "#base/digest.ts";
import { EngineError, messageOf } from "#base/errors.ts";
import { shortId } from "#base/ids.ts";
import { RingWriter } from "#content/byte-ring.ts";
import type { Hold } from "#image/byte-keeper.ts";
import type { Image, ImageLayer } from "#image/image.ts";
import { type ArchivedImage, readImageArchive } from "#image/image-archive.ts";
import { hostPlatform } from "#image/platform.ts";
import { type LayerProgress, type WantedLayer, writeBack } from "#image/unpack.ts";
import type { BundleMember } from "#snapshot/snapshotter.ts";
import { type Descriptor, mediaTypes, type Platform } from "#wire/oci-image.ts";
import { familiarString } from "#wire/reference.ts";
import { mayBeOwnTar } from "./archive-style.ts";
import { type ImageContext, imageEvent, type Report } from "./image-context.ts";
import { holdImage, withKnownBlob } from "./image-make.ts";
import { archiveType, inOwnForm, otherArchive, pour } from "./layer-import.ts";

export interface LoadRequest {
  readonly body: AsyncIterable<Uint8Array>;
  /** No progress of layers. */
  readonly quiet: boolean;
  /** Which image of an index; undefined: the host's. */
  readonly platform: Platform | undefined;
}

/**
 * Loads every image of an archive, each with its names in one commit. Throws `invalid` for what is no archive of images;
 * images before the bad one stay.
 */
export async function loadImages(
  ctx: ImageContext,
  request: LoadRequest,
  report: Report,
  signal: AbortSignal,
): Promise<void> {
  const directory = join(ctx.temporaryDir, `load-${randomBytes(8).toString("hex")}`);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  try {
    const members = await takeApart(ctx, request.body, directory, signal);
    const read = (path: string): Promise<Buffer> => readFile(path);
    const images = await readImageArchive(members, read, request.platform ?? hostPlatform());
    for (const archived of images)
      await loadOne(ctx, archived, request.quiet ? () => {} : report, report, signal);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** A worker takes the archive apart while it arrives. */
async function takeApart(
  ctx: ImageContext,
  body: AsyncIterable<Uint8Array>,
  directory: string,
  signal: AbortSignal,
): Promise<readonly BundleMember[]> {
  const ring = new RingWriter();
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  const opening = ctx.snapshotter.openBundle(ring.buffer, directory, both);
  // An archive that cannot be read ends the reading; a body that breaks off ends the taking apart.
  opening.catch((error: unknown) => stop.abort(error));
  try {
    await pour(body, ring, both, "archive");
  } catch (error) {
    // Judged before the worker is told to give up, which it reports as a failure of its own.
    const failure = stop.signal.aborted ? unreadable(stop.signal.reason) : error;
    ring.settle("failed");
    await Promise.allSettled([opening]);
    if (signal.aborted) throw new EngineError("cancelled", "context canceled", { cause: signal.reason });
    throw failure;
  }
  return await opening.catch((error: unknown) => Promise.reject(unreadable(error)));
}

function unreadable(error: unknown): unknown {
  if (!(error instanceof EngineError) || error.kind !== "invalid") return error;
  return new EngineError("invalid", `Error processing tar file: ${messageOf(error)}`, {
    code: error.code,
    cause: error,
  });
}

async function loadOne(
  ctx: ImageContext,
  archived: ArchivedImage,
  progress: Report,
  report: Report,
  signal: AbortSignal,
): Promise<void> {
  await using hold = ctx.images.bytes.hold();
  const image = await assemble(ctx, archived, hold, progress, signal);
  const names = archived.names.map((reference) => ({ reference }));
  for (const name of archived.names) {
    const before = ctx.images.idOf(name);
    if (before === undefined || before === image.id) continue;
    const text = `The image ${familiarString(name)} already exists, renaming the old one with ID ${before} to empty string\n`;
    report({ kind: "stream", text });
  }
  await ctx.images.put(image, names);
  imageEvent(ctx, "load", image.id, image.id, image);
  for (const name of archived.names)
    report({ kind: "stream", text: `Loaded image: ${familiarString(name)}\n` });
  if (names.length === 0) report({ kind: "stream", text: `Loaded image ID: ${image.id}\n` });
}

/** The image with all of its bytes there, durable and held. */
async function assemble(
  ctx: ImageContext,
  archived: ArchivedImage,
  hold: Hold,
  progress: Report,
  signal: AbortSignal,
): Promise<Image> {
  const { config, configBytes } = archived;
  const chains = chainIds(config.rootfs.diff_ids);
  const wanted: WantedLayer[] = [];
  for (const [index, { descriptor, file }] of archived.layers.entries()) {
    const diffId = config.rootfs.diff_ids[index]!;
    const mediaType = await mediaTypeOf(descriptor, diffId, file);
    wanted.push({ descriptor: { ...descriptor, mediaType }, diffId, chainId: chains[index]! });
  }
  const foreign = await adoptLayers(ctx, archived, wanted, hold);
  const pulled = await ctx.puller.pull({
    layers: wanted,
    hold,
    signal,
    fetch: ({ digest }) =>
      Promise.reject(new EngineError("invalid", `layer ${digest} of the archive is damaged`)),
    report: loadReporter(progress),
  });
  const layers = await Promise.all(
    pulled.layers.map((layer) => settleBlob(ctx, layer, { foreign, hold, signal })),
  );
  const documents: Digest[] = [];
  for (const bytes of archived.documents) {
    const digest = await ctx.content.put(bytes, { durable: false });
    hold.blob(digest);
    documents.push(digest);
  }
  const id = (await ctx.content.put(configBytes, { durable: false })) as string as ImageId;
  hold.blob(id as string as Digest);
  await ctx.content.sync();
  await ctx.snapshotter.seal(pulled.applied);
  const image: Image = {
    id,
    config,
    layers,
    ...(archived.manifestDigest === undefined ? {} : { manifestDigest: archived.manifestDigest }),
    documents,
    lastTaggedNs: String(ctx.clock.nowNs()),
    sizeBytes: layers.reduce((sum, layer) => sum + layer.sizeBytes, 0),
  };
  return await united(ctx, image, hold);
}

/** Docker's own layout does not say how a layer is compressed: its first bytes do. */
async function mediaTypeOf(descriptor: Descriptor, diffId: DiffId, path: string): Promise<string> {
  if (descriptor.mediaType !== mediaTypes.ociLayer || (descriptor.digest as string) === diffId) {
    return descriptor.mediaType;
  }
  await using file = await open(path, "r");
  return await archiveType(file);
}

/**
 * Archives of layers go to the content store, as if they had been downloaded. Gives those of plain tars that packing the
 * layer again would make otherwise: they stay, so their way to the disk begins.
 */
async function adoptLayers(
  ctx: ImageContext,
  archived: ArchivedImage,
  wanted: readonly WantedLayer[],
  hold: Hold,
): Promise<ReadonlySet<Digest>> {
  const foreign = new Set<Digest>();
  for (const [index, { descriptor, file }] of archived.layers.entries()) {
    const { diffId, chainId } = wanted[index]!;
    const isPlain = (descriptor.digest as string) === diffId;
    // A plain archive of a layer that is here already tells nothing new.
    if (isPlain && ctx.snapshotter.find(diffId, chainId) !== undefined) continue;
    hold.blob(descriptor.digest);
    if (!(await ctx.content.has(descriptor.digest))) await ctx.content.adopt(file, descriptor.digest);
    const path = ctx.content.pathOf(descriptor.digest);
    if (!isPlain || (await mayBeOwnTar(path))) continue;
    foreign.add(descriptor.digest);
    void writeBack(path);
  }
  return foreign;
}

/**
 * A plain archive is kept only where packing the layer again gives other bytes, one in no form of layers never; what is not
 * named by the image's row goes with the hold.
 */
async function settleBlob(
  ctx: ImageContext,
  layer: ImageLayer,
  { foreign, hold, signal }: { foreign: ReadonlySet<Digest>; hold: Hold; signal: AbortSignal },
): Promise<ImageLayer> {
  const { diffId, chainId, key, sizeBytes, blobDigest, blobSizeBytes = 0 } = layer;
  if (blobDigest === undefined) return await withKnownBlob(ctx, layer, hold);
  const bare = { diffId, chainId, key, sizeBytes };
  if (layer.mediaType === otherArchive) {
    const known = await withKnownBlob(ctx, bare, hold);
    if (known.blobDigest !== undefined) return known;
    const blob = await inOwnForm(ctx, layer, ctx.content.pathOf(blobDigest), hold, signal);
    if (blob === undefined) return known;
    return { ...bare, blobDigest: blob.digest, blobSizeBytes: blob.sizeBytes, mediaType: blob.mediaType };
  }
  if ((blobDigest as string) !== diffId) return layer;
  const isOwn = !foreign.has(blobDigest) && (await ctx.snapshotter.pack(key, { signal })).diffId === diffId;
  return { ...(isOwn ? bare : layer), diffSizeBytes: blobSizeBytes };
}

/** What was known of the image before stays: its parent, its documents, its compressed layers. */
async function united(ctx: ImageContext, image: Image, hold: Hold): Promise<Image> {
  const existing = ctx.images.get(image.id);
  if (existing === undefined) return image;
  await holdImage(ctx, existing, hold);
  const layers = image.layers.map((layer, index) => {
    const { blobDigest, blobSizeBytes = 0, mediaType = layer.mediaType } = existing.layers[index]!;
    if (blobDigest === undefined || (blobDigest as string) === layer.diffId) return layer;
    return { ...layer, blobDigest, blobSizeBytes, ...(mediaType === undefined ? {} : { mediaType }) };
  });
  const manifestDigest = existing.manifestDigest ?? image.manifestDigest;
  return {
    ...image,
    layers,
    ...(existing.parent === undefined ? {} : { parent: existing.parent }),
    ...(manifestDigest === undefined ? {} : { manifestDigest }),
    documents: [...new Set([...(existing.documents ?? []), ...(image.documents ?? [])])],
  };
}

/** Docker's lines: a bar for each layer that is unpacked, none for those that are here. */
function loadReporter(report: Report): (layer: WantedLayer, progress: LayerProgress) => void {
  const shownAt = new Map<string, number>();
  return ({ diffId, descriptor }, progress) => {
    const id = shortId(diffId);
    const now = performance.now();
    const total = descriptor.size;
    if (progress.phase === "complete") {
      report({ kind: "progress", id, action: "Loading layer", detail: { current: total, total } });
    } else if (progress.phase === "extracting" && progress.current > 0) {
      const last = shownAt.get(id);
      if (last !== undefined && now - last < 100) return;
      shownAt.set(id, now);
      report({ kind: "progress", id, action: "Loading layer", detail: { current: progress.current, total } });
    }
  };
}
