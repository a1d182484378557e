/**
 * Where an archive's bytes go when they are wanted in large pieces: small ones are copied behind each other, and what is read
 * from a file goes straight into its place.
 */
export class ChunkSink {
  readonly #next: () => Buffer;
  readonly #full: (bytes: number) => void;
  #chunk: Buffer | undefined;
  #filled = 0;

  /** `next` gives memory to be filled, `full` is told how much of it was: all of it, less only at the end. */
  constructor(next: () => Buffer, full: (bytes: number) => void) {
    this.#next = next;
    this.#full = full;
  }

  write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const chunk = this.#current();
      const taken = Math.min(bytes.length - at, chunk.length - this.#filled);
      chunk.set(taken === bytes.length ? bytes : bytes.subarray(at, at + taken), this.#filled);
      at += taken;
      this.#passed(chunk, taken);
    }
  }

  /**
   * Up to `bytesMax` bytes by `read`, which puts them at `offset` of `buffer`, at most `length`, and returns how many there
   * were. Returns the same.
   */
  fill(bytesMax: number, read: (buffer: Buffer, offset: number, length: number) => number): number {
    const chunk = this.#current();
    const filled = this.#filled;
    const bytes = read(chunk, filled, Math.min(bytesMax, chunk.length - filled));
    this.#passed(chunk, bytes);
    return bytes;
  }

  #current(): Buffer {
    this.#chunk ??= this.#next();
    return this.#chunk;
  }

  #passed(chunk: Buffer, bytes: number): void {
    this.#filled += bytes;
    if (this.#filled === chunk.length) this.flush();
  }

  /** Passes on what there is. */
  flush(): void {
    const filled = this.#filled;
    if (filled === 0) return;
    this.#chunk = undefined;
    this.#filled = 0;
    this.#full(filled);
  }
}
