import type { Digest } from "#base/digest.ts";

/** The manifests last asked for, by content, up to a number of bytes; immutable, so never stale. */
export class ManifestCache {
  readonly #bytesMax: number;
  readonly #found = new Map<Digest, Buffer>();
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get(content: Digest): Buffer | undefined {
    const bytes = this.#found.get(content);
    if (bytes === undefined) return undefined;
    // The last in a map's order is the one used last.
    this.#found.delete(content);
    this.#found.set(content, bytes);
    return bytes;
  }

  set(content: Digest, bytes: Buffer): void {
    this.drop(content);
    if (bytes.length > this.#bytesMax) return;
    this.#found.set(content, bytes);
    this.#bytes += bytes.length;
    for (const [oldest, { length }] of this.#found) {
      if (this.#bytes <= this.#bytesMax) return;
      this.#found.delete(oldest);
      this.#bytes -= length;
    }
  }

  drop(content: Digest): void {
    const bytes = this.#found.get(content);
    if (bytes === undefined) return;
    this.#found.delete(content);
    this.#bytes -= bytes.length;
  }
}
