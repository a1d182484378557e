import type { Digest } from "#base/digest.ts";
import { KeyedLock } from "#base/lock.ts";
import type { Log } from "#base/log.ts";
import type { ContentStore } from "#content/content-store.ts";
import type { AppliedLayer, LayerKey, Snapshotter } from "#snapshot/snapshotter.ts";
import type { Image } from "./image.ts";

/** What the rows of images use. */
export interface ByteRoots {
  readonly layers: ReadonlySet<LayerKey>;
  readonly blobs: ReadonlySet<Digest>;
}

/** Keeps layers and blobs alive while an image is made of them; what no image took over goes on disposal. */
export interface Hold extends AsyncDisposable {
  layer(key: LayerKey): void;
  blob(digest: Digest): void;
}

/**
 * Decides which bytes may go. A layer or blob stays while an image's row names it or a hold keeps it; everything else
 * is removed, rows before bytes.
 */
export class ByteKeeper {
  readonly #content: ContentStore;
  readonly #snapshotter: Snapshotter;
  readonly #log: Log;
  readonly #roots: () => ByteRoots;
  readonly #heldLayers = new Map<LayerKey, number>();
  readonly #heldBlobs = new Map<Digest, number>();
  /** Unpacked, not yet known to be sealed: one entry for each `apply` that made or shared it. */
  readonly #applied = new Map<LayerKey, AppliedLayer[]>();
  readonly #gate = new KeyedLock();

  constructor(deps: { content: ContentStore; snapshotter: Snapshotter; log: Log }, roots: () => ByteRoots) {
    this.#content = deps.content;
    this.#snapshotter = deps.snapshotter;
    this.#log = deps.log;
    this.#roots = roots;
  }

  /** Held while bytes are removed, and by whoever decides that bytes which are there need not be made again. */
  async gate(): Promise<Disposable> {
    return await this.#gate.acquire("bytes");
  }

  hold(): Hold {
    const layers = new Set<LayerKey>();
    const blobs = new Set<Digest>();
    return {
      layer: (key) => {
        if (!layers.has(key)) count(this.#heldLayers, key, 1);
        layers.add(key);
      },
      blob: (digest) => {
        if (!blobs.has(digest)) count(this.#heldBlobs, digest, 1);
        blobs.add(digest);
      },
      [Symbol.asyncDispose]: async () => {
        for (const key of layers) count(this.#heldLayers, key, -1);
        for (const digest of blobs) count(this.#heldBlobs, digest, -1);
        await this.#removeUnused([...layers], [...blobs]);
      },
    };
  }

  /** A layer was unpacked for somebody who holds its key. */
  applied(layer: AppliedLayer): void {
    const known = this.#applied.get(layer.key);
    if (known === undefined) this.#applied.set(layer.key, [layer]);
    else known.push(layer);
  }

  /** After an image's row is gone. */
  async release(image: Image): Promise<void> {
    const blobs = [image.id as string as Digest, ...(image.documents ?? [])];
    if (image.manifestDigest !== undefined) blobs.push(image.manifestDigest);
    for (const layer of image.layers) if (layer.blobDigest !== undefined) blobs.push(layer.blobDigest);
    await this.#removeUnused(
      image.layers.map(({ key }) => key),
      blobs,
    );
  }

  /** Everything that no image uses: what a crash left. Returns how much went. */
  async collect(): Promise<{ layers: number; blobs: number }> {
    return await this.#removeUnused(this.#snapshotter.listLayers(), await this.#content.list());
  }

  async #removeUnused(
    layers: readonly LayerKey[],
    blobs: readonly Digest[],
  ): Promise<{ layers: number; blobs: number }> {
    if (layers.length === 0 && blobs.length === 0) return { layers: 0, blobs: 0 };
    using _gate = await this.gate();
    const roots = this.#roots();
    const goneLayers = new Set(layers.filter((key) => !roots.layers.has(key) && !this.#heldLayers.has(key)));
    const goneBlobs = new Set(
      blobs.filter((digest) => !roots.blobs.has(digest) && !this.#heldBlobs.has(digest)),
    );
    for (const key of layers) if (!this.#heldLayers.has(key)) await this.#settle(key, goneLayers.has(key));
    for (const digest of goneBlobs) await this.#attempt(() => this.#content.remove(digest), digest);
    return { layers: goneLayers.size, blobs: goneBlobs.size };
  }

  /** Nobody makes an image of this layer any more: it goes, or is an image's own by now. */
  async #settle(key: LayerKey, gone: boolean): Promise<void> {
    const applied = this.#applied.get(key) ?? [];
    this.#applied.delete(key);
    if (!gone) return;
    if (this.#snapshotter.has(key)) await this.#attempt(() => this.#snapshotter.removeLayer(key), key);
    else if (applied.length > 0) await this.#attempt(() => this.#snapshotter.discard(applied), key);
  }

  /** Bytes that cannot be removed now are garbage for the next collection, no failure of what the user asked. */
  async #attempt(remove: () => Promise<void>, what: string): Promise<void> {
    try {
      await remove();
    } catch (error) {
      this.#log.warn("could not remove unused bytes", { what, error });
    }
  }
}

function count<Key>(counts: Map<Key, number>, key: Key, by: 1 | -1): void {
  const now = (counts.get(key) ?? 0) + by;
  if (now <= 0) counts.delete(key);
  else counts.set(key, now);
}
