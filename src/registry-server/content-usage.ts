import type { Digest } from "#base/digest.ts";

/** How many rows of all repositories name a content, and its size. What nobody names may be swept. */
export class ContentUsage {
  readonly #rows = new Map<Digest, { count: number; readonly sizeBytes: number }>();
  #bytes = 0;

  get size(): number {
    return this.#rows.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(content: Digest, sizeBytes: number): void {
    const row = this.#rows.get(content);
    if (row !== undefined) row.count += 1;
    else {
      this.#rows.set(content, { count: 1, sizeBytes });
      this.#bytes += sizeBytes;
    }
  }

  remove(content: Digest): void {
    const row = this.#rows.get(content);
    if (row === undefined) return;
    row.count -= 1;
    if (row.count > 0) return;
    this.#rows.delete(content);
    this.#bytes -= row.sizeBytes;
  }

  has(content: Digest): boolean {
    return this.#rows.has(content);
  }
}
