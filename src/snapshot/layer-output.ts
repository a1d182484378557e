import type { TarEntry } from "#archive/tar-format.ts";
import { checkEntry } from "#archive/tar-read.ts";
import { assert } from "#base/assert.ts";
import type { LayerApplier } from "./layer-apply.ts";
import type { TarInOrder } from "./tar-in-order.ts";

/**
 * Entries made here on their way into a layer's directory: `entry`, then exactly `sizeBytes` of `data` for a file. They are
 * held to the bounds of an archive's, into which the layer is packed one day.
 */
export class LayerOutput {
  readonly #applier: LayerApplier;
  readonly #checkAborted: () => void;
  readonly #tar: TarInOrder;
  #left = 0;
  #offset = 0;
  #isEmpty = true;

  /** `tar`: gets the same entries. */
  constructor(applier: LayerApplier, tar: TarInOrder, checkAborted: () => void) {
    this.#applier = applier;
    this.#tar = tar;
    this.#checkAborted = checkAborted;
  }

  get isEmpty(): boolean {
    return this.#isEmpty;
  }

  entry(entry: TarEntry): void {
    assert(this.#left === 0, "layer entry begun before the last one was complete");
    this.#begin(entry);
    this.#applier.entry(entry);
    this.#tar.entry(entry);
    this.#left = entry.type === "file" ? entry.sizeBytes : 0;
    this.#offset = 0;
    if (this.#left === 0) this.#applier.end();
  }

  data(chunk: Uint8Array): void {
    assert(chunk.length <= this.#left, "layer data beyond the size of its file");
    if (chunk.length === 0) return;
    this.#checkAborted();
    this.#applier.data(chunk, this.#offset);
    this.#tar.data(chunk);
    this.#offset += chunk.length;
    this.#left -= chunk.length;
    if (this.#left === 0) this.#applier.end();
  }

  /** A whole file whose content lies in `file` and may be taken over; `read` gives it. False: it is to be written. */
  adopt(entry: TarEntry, file: string, read: (write: (chunk: Uint8Array) => void) => void): boolean {
    assert(this.#left === 0, "layer entry begun before the last one was complete");
    this.#begin(entry);
    if (!this.#applier.adopt(entry, file)) return false;
    this.#tar.entry(entry);
    if (!this.#tar.inOrder) return true;
    read((chunk) => {
      this.#checkAborted();
      this.#tar.data(chunk);
    });
    return true;
  }

  #begin(entry: TarEntry): void {
    this.#checkAborted();
    checkEntry(entry);
    this.#isEmpty = false;
  }
}
