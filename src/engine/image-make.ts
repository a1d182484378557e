/** An image out of its config and its layers: for import, commit and builds. */
import { chainIds, type Digest, digestOf, type ImageId } from "#base/digest.ts";
import type { Hold } from "#image/byte-keeper.ts";
import type { Image, ImageLayer } from "#image/image.ts";
import type { ImageConfig } from "#wire/oci-image.ts";
import type { ImageContext } from "./image-context.ts";
import type { ImportedLayer } from "./layer-import.ts";

export interface ImageParts {
  /** `rootfs.diff_ids` must be those of the layers. */
  readonly config: ImageConfig;
  /** Layers of the image it is made from, sealed and held. */
  readonly below: readonly ImageLayer[];
  /** A new layer on top. */
  readonly added?: ImportedLayer;
  readonly hold: Hold;
  readonly parent?: ImageId;
}

/** Makes everything of an image durable but its row, which is the caller's to write (`images.put`). */
export async function makeImage(ctx: ImageContext, parts: ImageParts): Promise<Image> {
  const { config, below, added, hold, parent } = parts;
  const bytes = Buffer.from(JSON.stringify(config));
  hold.blob(digestOf(bytes));
  // A kept archive was not flushed yet; the config alone is a small file.
  const keptBlob = added?.blob !== undefined;
  const id = (await ctx.content.put(bytes, { durable: !keptBlob })) as string as ImageId;
  if (keptBlob) await ctx.content.sync();
  if (added !== undefined) await ctx.snapshotter.seal([added.applied]);
  const layers = added === undefined ? below : [...below, layerOf(config, below.length, added)];
  return {
    id,
    config,
    layers,
    ...(parent === undefined ? {} : { parent }),
    lastTaggedNs: String(ctx.clock.nowNs()),
    sizeBytes: layers.reduce((sum, layer) => sum + layer.sizeBytes, 0),
  };
}

function layerOf(
  config: ImageConfig,
  index: number,
  { applied, blob, diffSizeBytes }: ImportedLayer,
): ImageLayer {
  return {
    diffId: applied.diffId,
    chainId: chainIds(config.rootfs.diff_ids)[index]!,
    key: applied.key,
    sizeBytes: applied.sizeBytes,
    ...(diffSizeBytes === undefined ? {} : { diffSizeBytes }),
    ...(blob === undefined
      ? {}
      : { blobDigest: blob.digest, blobSizeBytes: blob.sizeBytes, mediaType: blob.mediaType }),
  };
}

/** Holds everything of an image under the gate, so that a removal beside us takes nothing away. */
export async function holdImage(ctx: ImageContext, image: Image, hold: Hold): Promise<void> {
  using _gate = await ctx.images.bytes.gate();
  hold.blob(image.id as string as Digest);
  for (const layer of image.layers) {
    hold.layer(layer.key);
    if (layer.blobDigest !== undefined) hold.blob(layer.blobDigest);
  }
  for (const document of image.documents ?? []) hold.blob(document);
}

/**
 * A layer that was here already and whose archive was therefore not fetched: the archive that another image has of it is
 * this image's from now on too. Not every layer can be packed again as it was, and the other image may go.
 */
export async function withKnownBlob(
  ctx: ImageContext,
  { diffId, chainId, key, sizeBytes, ...own }: ImageLayer,
  hold: Hold,
): Promise<ImageLayer> {
  const bare = { diffId, chainId, key, sizeBytes };
  if (own.blobDigest !== undefined) return { ...bare, ...own };
  using _gate = await ctx.images.bytes.gate();
  const known = ctx.images.blobOf(diffId);
  if (known.blobDigest !== undefined) hold.blob(known.blobDigest);
  return { ...bare, ...known };
}
