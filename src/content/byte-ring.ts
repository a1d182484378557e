/**
 * Bytes from the event loop to a worker through shared memory: what is only passing through touches no file. One writer,
 * one reader. Cells before the bytes: written and read (both ever growing), state (0 open, 1 complete, 2 failed).
 */
const ringBytes = 4 * 1024 * 1024;
const cellBytes = 24;
const cell = { written: 0, read: 1, state: 2 } as const;
/** How long either side sleeps before it looks again whether it is still wanted. */
const pollMs = 100;

function partsOf(buffer: SharedArrayBuffer): { cells: BigInt64Array; bytes: Buffer } {
  return {
    cells: new BigInt64Array(buffer, 0, cellBytes / 8),
    bytes: Buffer.from(buffer, cellBytes),
  };
}

export class RingWriter {
  readonly buffer: SharedArrayBuffer;
  readonly #cells: BigInt64Array;
  readonly #bytes: Buffer;
  #written = 0;
  /** Of these the reader knows nothing yet: waking it costs more than copying a small piece. */
  #untold = 0;

  constructor(size = ringBytes) {
    this.buffer = new SharedArrayBuffer(cellBytes + size);
    const { cells, bytes } = partsOf(this.buffer);
    this.#cells = cells;
    this.#bytes = bytes;
  }

  /** Copies a piece in. A promise is to be awaited before the next one: the ring is full. Rejects when aborted. */
  write(chunk: Uint8Array, signal: AbortSignal): Promise<void> | undefined {
    const taken = this.#put(chunk);
    return taken === chunk.length ? undefined : this.#rest(chunk.subarray(taken), signal);
  }

  #put(chunk: Uint8Array): number {
    const size = this.#bytes.length;
    const free = size - (this.#written - Number(Atomics.load(this.#cells, cell.read)));
    const taken = Math.min(free, chunk.length);
    const at = this.#written % size;
    const first = Math.min(taken, size - at);
    // By Buffer: `set` moves single words where memory is shared.
    const from = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
    from.copy(this.#bytes, at, 0, first);
    if (first < taken) from.copy(this.#bytes, 0, first, taken);
    this.#written += taken;
    this.#untold += taken;
    if (this.#untold >= 64 * 1024 || taken < chunk.length) this.tell();
    return taken;
  }

  /** Lets the reader have what was written; to be called when no more comes for now. */
  tell(): void {
    if (this.#untold === 0) return;
    this.#untold = 0;
    Atomics.store(this.#cells, cell.written, BigInt(this.#written));
    Atomics.notify(this.#cells, cell.written);
  }

  async #rest(chunk: Uint8Array, signal: AbortSignal): Promise<void> {
    for (let at = 0; at < chunk.length; ) {
      signal.throwIfAborted();
      const read = Atomics.load(this.#cells, cell.read);
      if (this.#written - Number(read) === this.#bytes.length) {
        const waiting = Atomics.waitAsync(this.#cells, cell.read, read, pollMs);
        if (waiting.async) await waiting.value;
      }
      at += this.#put(chunk.subarray(at));
    }
  }

  /** Ends the stream, once: later calls change nothing. */
  settle(state: "complete" | "failed"): void {
    this.tell();
    Atomics.compareExchange(this.#cells, cell.state, 0n, state === "complete" ? 1n : 2n);
    Atomics.notify(this.#cells, cell.written);
  }
}

export class RingReader {
  readonly #cells: BigInt64Array;
  readonly #bytes: Buffer;
  readonly #checkWanted: () => void;
  #position = 0;

  /** `checkWanted` is called now and then and throws when the reader is to give up. */
  constructor(buffer: SharedArrayBuffer, checkWanted: () => void) {
    const { cells, bytes } = partsOf(buffer);
    this.#cells = cells;
    this.#bytes = bytes;
    this.#checkWanted = checkWanted;
  }

  /**
   * The next bytes, at most `bytesMax`, valid until the next call; undefined at the end, "failed" where the writer broke off.
   * Sleeps: workers only.
   */
  read(bytesMax: number): Buffer | "failed" | undefined {
    this.#checkWanted();
    Atomics.store(this.#cells, cell.read, BigInt(this.#position));
    Atomics.notify(this.#cells, cell.read);
    for (;;) {
      // The state first: what was written before it said "complete" is then seen by the second load.
      const state = Atomics.load(this.#cells, cell.state);
      const written = Atomics.load(this.#cells, cell.written);
      const available = Number(written) - this.#position;
      if (available > 0) return this.#view(Math.min(available, bytesMax));
      if (state === 1n) return undefined;
      if (state === 2n) return "failed";
      Atomics.wait(this.#cells, cell.written, written, pollMs);
      this.#checkWanted();
    }
  }

  #view(length: number): Buffer {
    const at = this.#position % this.#bytes.length;
    const taken = Math.min(length, this.#bytes.length - at);
    this.#position += taken;
    return Buffer.from(this.#bytes.buffer, this.#bytes.byteOffset + at, taken);
  }
}
