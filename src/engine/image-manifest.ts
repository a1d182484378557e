/** The manifest of an image as it is kept here: for save, push and questions about it. */
import type { Digest } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import type { Image, ImageLayer } from "#image/image.ts";
import { parseManifest } from "#image/validate.ts";
import { type Descriptor, type Manifest, mediaTypes } from "#wire/oci-image.ts";
import type { ImageContext } from "./image-context.ts";

export interface ImageManifest {
  readonly manifest: Manifest;
  readonly bytes: Buffer;
  readonly mediaType: string;
}

/** The manifest that the image came with, undefined when there is none. The layers it names need not be here as they came. */
export async function knownManifest(ctx: ImageContext, image: Image): Promise<ImageManifest | undefined> {
  if (image.manifestDigest === undefined || !(await ctx.content.has(image.manifestDigest))) return undefined;
  const bytes = await ctx.content.read(image.manifestDigest, limits.manifestBytesMax);
  const parsed = parseManifest(bytes, "");
  if (parsed.kind !== "manifest" || parsed.manifest.layers.length !== image.layers.length) return undefined;
  return { manifest: parsed.manifest, bytes, mediaType: parsed.mediaType };
}

async function areHere(ctx: ImageContext, layers: readonly Descriptor[]): Promise<boolean> {
  for (const { digest } of layers) if (!(await ctx.content.has(digest))) return false;
  return true;
}

/** The manifest it came with, if all layers are here as they came, or one of the layers as they are: compressed where a blob is kept, plain else. */
export async function manifestOf(
  ctx: ImageContext,
  image: Image,
  signal: AbortSignal,
): Promise<ImageManifest> {
  const known = await knownManifest(ctx, image);
  if (known !== undefined && (await areHere(ctx, known.manifest.layers))) return known;
  const layers: Descriptor[] = [];
  for (const layer of image.layers) layers.push(await layerDescriptor(ctx, layer, signal));
  return await newManifest(ctx, image, layers);
}

/** A manifest over layers. Its bytes depend on what is in it alone. */
export async function newManifest(
  ctx: ImageContext,
  image: Image,
  layers: readonly Descriptor[],
): Promise<ImageManifest> {
  const digest = image.id as string as Digest;
  const size = await ctx.content.size(digest);
  if (size === undefined) {
    throw new EngineError("system", `the config of image ${image.id} is gone`, { code: "damaged-image" });
  }
  const manifest: Manifest = {
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    config: { mediaType: mediaTypes.ociConfig, digest, size },
    layers,
  };
  return { manifest, bytes: Buffer.from(JSON.stringify(manifest)), mediaType: mediaTypes.ociManifest };
}

async function layerDescriptor(
  ctx: ImageContext,
  layer: ImageLayer,
  signal: AbortSignal,
): Promise<Descriptor> {
  const { blobDigest, blobSizeBytes, mediaType, diffSizeBytes } = layer;
  if (blobDigest !== undefined && blobSizeBytes !== undefined && (await ctx.content.has(blobDigest))) {
    return { mediaType: ociLayerType(mediaType), digest: blobDigest, size: blobSizeBytes };
  }
  const digest = layer.diffId as string as Digest;
  if (diffSizeBytes !== undefined) return { mediaType: mediaTypes.ociLayer, digest, size: diffSizeBytes };
  const packed = await ctx.snapshotter.pack(layer.key, { signal });
  if (packed.diffId !== layer.diffId) {
    throw new EngineError("system", `layer ${layer.diffId} can no longer be packed as it was`, {
      code: "damaged-layer",
    });
  }
  return { mediaType: mediaTypes.ociLayer, digest, size: packed.diffSizeBytes };
}

/** The OCI name of a layer's media type: one manifest does not mix the two families. */
export function ociLayerType(mediaType: string | undefined): string {
  if (mediaType === undefined || mediaType.endsWith("gzip")) return mediaTypes.ociLayerGzip;
  if (mediaType.endsWith("zstd")) return mediaTypes.ociLayerZstd;
  return mediaTypes.ociLayer;
}
