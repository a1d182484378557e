/**
 * Images: a config (whose digest is the image's id), a stack of layers, and the names that point at it.
 *
 * 1. An image that `get` returns is complete: config in the content store, every layer unpacked and sealed.
 * 2. A name (`repo:tag` or `repo@digest`) points at exactly one image; an image may have any number of names or none.
 * 3. Deleting removes rows first, bytes later; a layer or blob shared with another image stays.
 * 4. A container holds its image through a lease that lasts as long as the container's row.
 */
import type { ChainId, DiffId, Digest, ImageId } from "#base/digest.ts";
import type { LayerKey } from "#snapshot/snapshotter.ts";
import type { ImageConfig } from "#wire/oci-image.ts";

export interface ImageLayer {
  readonly diffId: DiffId;
  readonly chainId: ChainId;
  readonly key: LayerKey;
  readonly sizeBytes: number;
  /** The compressed blob it was pulled as, where it is kept. */
  readonly blobDigest?: Digest;
  readonly blobSizeBytes?: number;
  readonly mediaType?: string;
  /** Length of the layer's tar, where it is known. */
  readonly diffSizeBytes?: number;
}

export interface Image {
  readonly id: ImageId;
  readonly config: ImageConfig;
  /** Bottom first. Empty for an image of no layers. */
  readonly layers: readonly ImageLayer[];
  /** Only for images built or committed here. */
  readonly parent?: ImageId;
  readonly manifestDigest?: Digest;
  /** Nanoseconds since the epoch as text: when it was last named. */
  readonly lastTaggedNs: string;
  /** Docker's `Size`: sum of the layers' sizes. */
  readonly sizeBytes: number;
  /** Manifests and indexes that led to it, kept as they came: for digests, push and save. */
  readonly documents?: readonly Digest[];
  /**
   * Removed by the user while containers still need it: it has no names, `list` and `resolve` leave it out, `get` finds
   * it, and it goes with its last container.
   */
  readonly removed?: boolean;
}

/**
 * The layers to mount, bottom first. A layer that occurs twice (the empty one does) is needed only where it lies highest:
 * there it covers all that the lower one shows, and overlayfs refuses the same directory twice.
 */
export function stackOf(image: Image): LayerKey[] {
  const keys = image.layers.map(({ key }) => key);
  return keys.filter((key, index) => keys.lastIndexOf(key) === index);
}

export interface ImageStore {
  /** By name, name with digest, id, or unique id prefix. Throws 404 `No such image: <as Docker spells it>`. */
  resolve(reference: string): Image;
  /** Also an image that was removed while containers use it. */
  get(id: ImageId): Image | undefined;
  /** All that can be named, in no order. */
  list(): Image[];
  /** Familiar `repo:tag` names of an image, sorted. */
  tagsOf(id: ImageId): string[];
  /** Familiar `repo@sha256:…` names of an image. */
  digestsOf(id: ImageId): string[];
}
