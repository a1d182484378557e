import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { type FileHandle, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { type Compression, detectBytes, detectFormat } from "#archive/compression.ts";
import type { Digest } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { releaseBytes } from "#base/release-bytes.ts";
import type { RingWriter } from "#content/byte-ring.ts";
import { GatheredWriter } from "#content/gathered-writer.ts";
import { GrowingCells } from "#content/growing-cells.ts";
import type { Hold } from "#image/byte-keeper.ts";
import { registerError } from "#image/unpack.ts";
import type { AppliedLayer } from "#snapshot/snapshotter.ts";
import { mediaTypes } from "#wire/oci-image.ts";
import type { ImageContext } from "./image-context.ts";

/** A layer that was unpacked and is held, not yet sealed. */
export interface ImportedLayer {
  readonly applied: AppliedLayer;
  /** Length of its tar, where it came as one. */
  readonly diffSizeBytes?: number;
  /** The archive as it came, kept in the content store: where packing the layer again would not give the same bytes. */
  readonly blob?: { readonly digest: Digest; readonly sizeBytes: number; readonly mediaType: string };
}

/** Pieces too small to wake a worker for wait no longer than this. */
const tellMs = 5;

/** The media type of a layer's archive by its compression. */
const layerMediaTypes: Readonly<Record<Compression, string>> = {
  none: mediaTypes.ociLayer,
  gzip: mediaTypes.ociLayerGzip,
  zstd: mediaTypes.ociLayerZstd,
};

/** For what no media type of layers describes (xz, bzip2): such an archive is unpacked and not kept. */
export const otherArchive = "application/octet-stream";

/** The media type of a layer's archive by its first bytes. */
export async function archiveType(file: FileHandle): Promise<string> {
  const { buffer } = await file.read(Buffer.alloc(detectBytes), 0, detectBytes, 0);
  const format = detectFormat(buffer);
  return format in layerMediaTypes ? layerMediaTypes[format as Compression] : otherArchive;
}

/** What importing needs of the image engine. */
export type LayerImportContext = Pick<ImageContext, "content" | "images" | "snapshotter" | "temporaryDir">;

/**
 * Unpacks a layer's archive (plain, gzip, zstd, xz, bzip2) while it still arrives: it goes through a file, since the worker
 * that unpacks reads one. The archive stays where packing the layer again would give other bytes. The layer and the blob are held
 * and neither sealed nor flushed.
 */
export async function importLayer(
  ctx: LayerImportContext,
  source: AsyncIterable<Uint8Array>,
  hold: Hold,
  signal: AbortSignal,
): Promise<ImportedLayer> {
  mkdirSync(ctx.temporaryDir, { recursive: true, mode: 0o700 });
  const path = join(ctx.temporaryDir, `import-${randomBytes(8).toString("hex")}`);
  const file = await open(path, "wx+", 0o600);
  try {
    const applied = await applyWhileSpooling(ctx, source, { path, file }, hold, signal);
    const isPlain = (applied.blobDigest as string) === applied.diffId;
    const length = isPlain ? { diffSizeBytes: applied.blobSizeBytes } : {};
    const blob = await keepBlob(ctx, applied, { path, file }, hold, signal);
    return { applied, ...length, ...(blob === undefined ? {} : { blob }) };
  } finally {
    await file.close();
    await rm(path, { force: true });
  }
}

interface Spool {
  readonly path: string;
  readonly file: FileHandle;
}

async function applyWhileSpooling(
  ctx: LayerImportContext,
  source: AsyncIterable<Uint8Array>,
  { path, file }: Spool,
  hold: Hold,
  signal: AbortSignal,
): Promise<AppliedLayer> {
  const cells = new GrowingCells(0);
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  const applying = ctx.snapshotter.apply({
    source: { path, cells: cells.buffer },
    below: async () => [],
    sentByClient: true,
    signal: both,
  });
  // A layer that cannot be unpacked ends the reading; a body that breaks off ends the unpacking.
  applying.catch((error: unknown) => stop.abort(registerError(error)));
  let broken: { readonly reason: unknown } | undefined;
  try {
    await spool(source, file, cells, both);
  } catch (error) {
    broken = { reason: stop.signal.aborted ? stop.signal.reason : error };
    cells.settle("failed");
  }
  const [unpacked] = await Promise.allSettled([applying]);
  if (unpacked.status === "fulfilled") {
    hold.layer(unpacked.value.key);
    ctx.images.bytes.applied(unpacked.value);
  }
  if (signal.aborted) throw new EngineError("cancelled", "context canceled", { cause: signal.reason });
  if (broken !== undefined) throw broken.reason;
  if (unpacked.status === "rejected") throw registerError(unpacked.reason);
  return unpacked.value;
}

/** An archive in a layer's compressed form always stays; any other only when the layer's own packing differs. */
async function keepBlob(
  ctx: LayerImportContext,
  applied: AppliedLayer,
  { path, file }: Spool,
  hold: Hold,
  signal: AbortSignal,
): Promise<ImportedLayer["blob"]> {
  const mediaType = await archiveType(file);
  if (mediaType === otherArchive) return await inOwnForm(ctx, applied, path, hold, signal);
  const isPlain = (applied.blobDigest as string) === applied.diffId;
  if (isPlain && (await packsAgain(ctx, applied, signal))) return undefined;
  hold.blob(applied.blobDigest);
  await ctx.content.adopt(path, applied.blobDigest);
  return { digest: applied.blobDigest, sizeBytes: applied.blobSizeBytes, mediaType };
}

/** Whether a layer's tar can be made again of its directory. */
async function packsAgain(
  ctx: LayerImportContext,
  { key, diffId }: Pick<AppliedLayer, "key" | "diffId">,
  signal: AbortSignal,
): Promise<boolean> {
  return (await ctx.snapshotter.pack(key, { signal })).diffId === diffId;
}

/**
 * For an archive of no kind that layers are kept in: nothing where packing the layer again gives its tar, else that tar,
 * compressed as layers are. Held and not flushed.
 */
export async function inOwnForm(
  ctx: LayerImportContext,
  layer: Pick<AppliedLayer, "key" | "diffId">,
  path: string,
  hold: Hold,
  signal: AbortSignal,
): Promise<ImportedLayer["blob"]> {
  if (await packsAgain(ctx, layer, signal)) return undefined;
  mkdirSync(ctx.temporaryDir, { recursive: true, mode: 0o700 });
  const output = join(ctx.temporaryDir, `pack-${randomBytes(8).toString("hex")}`);
  try {
    const { blob, diffId } = await ctx.snapshotter.pack({ path }, { output, signal });
    if (blob === undefined || diffId !== layer.diffId) {
      throw new EngineError("system", `layer ${layer.diffId} changed while it was packed`, {
        code: "damaged-layer",
      });
    }
    hold.blob(blob.digest);
    await ctx.content.adopt(output, blob.digest);
    return { ...blob, mediaType: mediaTypes.ociLayerGzip };
  } finally {
    await rm(output, { force: true });
  }
}

/** Writes what comes to a growing file, within `limits.layerBytesMax`; the pieces are taken over, as in `pour`. */
async function spool(
  source: AsyncIterable<Uint8Array>,
  file: FileHandle,
  cells: GrowingCells,
  signal: AbortSignal,
): Promise<void> {
  let length = 0;
  const writer = new GatheredWriter(file, (bytes) => cells.grow(bytes));
  try {
    for await (const chunk of source) {
      signal.throwIfAborted();
      length += chunk.length;
      if (length > limits.layerBytesMax) throw new EngineError("invalid", "archive is too large");
      const full = writer.write(chunk);
      if (full !== undefined) await full;
    }
    await writer.drain();
  } finally {
    await writer.stop();
  }
  cells.settle("complete");
}

/**
 * Hands what comes to a worker's ring, within `limits.layerBytesMax`; `what` is too large beyond it. The pieces are taken
 * over: their memory goes back as soon as they are in the ring.
 */
export async function pour(
  source: AsyncIterable<Uint8Array>,
  ring: RingWriter,
  signal: AbortSignal,
  what: string,
): Promise<void> {
  let length = 0;
  const tell = setInterval(() => ring.tell(), tellMs);
  try {
    for await (const chunk of source) {
      length += chunk.length;
      if (length > limits.layerBytesMax) throw new EngineError("invalid", `${what} is too large`);
      const full = ring.write(chunk, signal);
      if (full !== undefined) await full;
      else if (signal.aborted) throw signal.reason;
      releaseBytes(chunk);
    }
  } finally {
    clearInterval(tell);
  }
  ring.settle("complete");
}
