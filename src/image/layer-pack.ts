import { randomBytes } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Digest } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import { KeyedLock } from "#base/lock.ts";
import type { ContentStore } from "#content/content-store.ts";
import type { Snapshotter } from "#snapshot/snapshotter.ts";
import { mediaTypes } from "#wire/oci-image.ts";
import type { Hold } from "./byte-keeper.ts";
import type { ImageLayer } from "./image.ts";
import type { LocalImageStore } from "./image-store.ts";
import { PackingFile } from "./packing-file.ts";

/** Less is packed in a moment, and can then be looked for and mounted instead of being sent. */
const growingBytesMin = 8 * 1024 * 1024;

/** A layer's compressed blob in the content store. */
export interface PackedBlob {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly mediaType: string;
}

/**
 * Compressed forms of layers: the one a layer came with or was packed to before, else it is packed now, in a worker. Two
 * that need one layer wait for the same packing.
 */
export class LayerPacker {
  readonly #content: ContentStore;
  readonly #snapshotter: Snapshotter;
  readonly #images: LocalImageStore;
  readonly #temporaryDir: string;
  readonly #locks = new KeyedLock();

  constructor(deps: {
    content: ContentStore;
    snapshotter: Snapshotter;
    images: LocalImageStore;
    temporaryDir: string;
  }) {
    this.#content = deps.content;
    this.#snapshotter = deps.snapshotter;
    this.#images = deps.images;
    this.#temporaryDir = deps.temporaryDir;
  }

  /**
   * The layer's compressed blob, held. Not durable before the store's next `sync`. Where it has to be made first, and is not
   * small, `onGrowing` is given the file that it grows in, to be disposed of by the caller.
   */
  async pack(
    layer: ImageLayer,
    hold: Hold,
    signal: AbortSignal,
    onGrowing?: (file: PackingFile) => void,
  ): Promise<PackedBlob> {
    using _turn = await this.#locks.acquire(layer.diffId);
    return (await this.#kept(layer, hold)) ?? (await this.#packNow(layer, hold, signal, onGrowing));
  }

  /** Compressed blobs of this layer or of another image's equal one. */
  async #kept(layer: ImageLayer, hold: Hold): Promise<PackedBlob | undefined> {
    using _gate = await this.#images.bytes.gate();
    for (const known of [layer, this.#images.blobOf(layer.diffId), ...this.#fresh(layer)]) {
      const { blobDigest, blobSizeBytes, mediaType = mediaTypes.ociLayerGzip } = known;
      if (blobDigest === undefined || blobSizeBytes === undefined) continue;
      if ((blobDigest as string) === layer.diffId || !(await this.#content.has(blobDigest))) continue;
      hold.blob(blobDigest);
      return { digest: blobDigest, sizeBytes: blobSizeBytes, mediaType };
    }
    return undefined;
  }

  /** Packed by somebody whose image's row does not name it yet: as long as it is held it is as good. */
  readonly #packed = new Map<string, PackedBlob>();

  #fresh({ diffId }: ImageLayer): Pick<ImageLayer, "blobDigest" | "blobSizeBytes" | "mediaType">[] {
    const blob = this.#packed.get(diffId);
    return blob === undefined
      ? []
      : [{ blobDigest: blob.digest, blobSizeBytes: blob.sizeBytes, mediaType: blob.mediaType }];
  }

  async #packNow(
    layer: ImageLayer,
    hold: Hold,
    signal: AbortSignal,
    onGrowing: ((file: PackingFile) => void) | undefined,
  ): Promise<PackedBlob> {
    await mkdir(this.#temporaryDir, { recursive: true, mode: 0o700 });
    const output = join(this.#temporaryDir, `pack-${randomBytes(8).toString("hex")}`);
    const { blobDigest } = layer;
    // A plain archive is kept where packing the directory would give other bytes.
    const isKeptPlain = blobDigest !== undefined && (await this.#content.has(blobDigest));
    const source = isKeptPlain ? { path: this.#content.pathOf(blobDigest) } : layer.key;
    const growing = new PackingFile(output);
    let told = false;
    const onWritten = (bytes: number): void => {
      growing.grow(bytes);
      if (told || bytes < growingBytesMin) return;
      told = true;
      if (onGrowing === undefined) return;
      growing.open();
      onGrowing(growing);
    };
    try {
      const packed = await this.#snapshotter.pack(source, { output, signal, onWritten });
      if (packed.diffId !== layer.diffId || packed.blob === undefined) {
        throw new EngineError("system", `layer ${layer.diffId} can no longer be packed as it was`, {
          code: "damaged-layer",
        });
      }
      hold.blob(packed.blob.digest);
      growing.settle("complete");
      await this.#content.adopt(output, packed.blob.digest);
      const blob = { ...packed.blob, mediaType: mediaTypes.ociLayerGzip };
      this.#packed.set(layer.diffId, blob);
      return blob;
    } catch (error) {
      growing.settle("failed");
      throw error;
    } finally {
      await rm(output, { force: true });
    }
  }
}
