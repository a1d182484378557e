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
}

export interface ImageStore {
  /** By name, name with digest, id, or unique id prefix. Throws 404 `No such image: <as Docker spells it>`. */
  resolve(reference: string): Image;
  get(id: ImageId): Image | undefined;
  list(): Image[];
  /** Familiar `repo:tag` names of an image, sorted. */
  tagsOf(id: ImageId): string[];
  /** Familiar `repo@sha256:…` names of an image. */
  digestsOf(id: ImageId): string[];
}
