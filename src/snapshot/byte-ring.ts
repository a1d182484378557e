import { EngineError } from "#base/errors.ts";
import { controlCells } from "./layer-job.ts";

/** Int32 cells in front of the data: bytes that wait to be read, and whether the writer has come to its end. */
const cells = { waiting: 0, ended: 1 } as const;
const headerBytes = 8;
/** What a slow reader lets pile up. */
const capacityBytes = 1024 * 1024;
/** How long a reader sleeps before it looks whether its job was aborted. */
const pollMs = 100;

/** Bytes from the event loop to a thread that blocks: the writer waits for room, the reader for data. */
export class ByteRingWriter {
  readonly buffer = new SharedArrayBuffer(headerBytes + capacityBytes);
  readonly #cells = new Int32Array(this.buffer, 0, 2);
  readonly #data = new Uint8Array(this.buffer, headerBytes);
  #position = 0;

  /** Resolves when all of the chunk is in the ring, or `signal` is aborted. */
  async write(chunk: Uint8Array, signal: AbortSignal): Promise<void> {
    let at = 0;
    while (at < chunk.length && !signal.aborted) {
      const waiting = Atomics.load(this.#cells, cells.waiting);
      const room = capacityBytes - waiting;
      if (room === 0) {
        // With a time, since an abort must be seen although nobody reads any more.
        await Atomics.waitAsync(this.#cells, cells.waiting, waiting, pollMs).value;
        continue;
      }
      const length = Math.min(room, chunk.length - at, capacityBytes - this.#position);
      this.#data.set(chunk.subarray(at, at + length), this.#position);
      this.#position = (this.#position + length) % capacityBytes;
      at += length;
      Atomics.add(this.#cells, cells.waiting, length);
      Atomics.notify(this.#cells, cells.waiting);
    }
  }

  end(): void {
    Atomics.store(this.#cells, cells.ended, 1);
    Atomics.notify(this.#cells, cells.waiting);
  }
}

/** The other end, in a worker. */
export class ByteRingReader {
  readonly #cells: Int32Array;
  readonly #data: Uint8Array;
  readonly #control: Int32Array;
  #position = 0;

  constructor(buffer: SharedArrayBuffer, control: Int32Array) {
    this.#cells = new Int32Array(buffer, 0, 2);
    this.#data = new Uint8Array(buffer, headerBytes);
    this.#control = control;
  }

  /** The next bytes, a copy, or undefined at the end. Throws `cancelled` when the job was aborted. */
  read(): Buffer | undefined {
    for (;;) {
      if (Atomics.load(this.#control, controlCells.aborted) !== 0) {
        throw new EngineError("cancelled", "context canceled", { code: "aborted" });
      }
      // The end first: what was written before it is then seen by the second load.
      const ended = Atomics.load(this.#cells, cells.ended) !== 0;
      const waiting = Atomics.load(this.#cells, cells.waiting);
      if (waiting > 0) return this.#take(waiting);
      if (ended) return undefined;
      Atomics.wait(this.#cells, cells.waiting, 0, pollMs);
    }
  }

  #take(waiting: number): Buffer {
    const length = Math.min(waiting, capacityBytes - this.#position);
    const bytes = Buffer.from(this.#data.subarray(this.#position, this.#position + length));
    this.#position = (this.#position + length) % capacityBytes;
    Atomics.sub(this.#cells, cells.waiting, length);
    Atomics.notify(this.#cells, cells.waiting);
    return bytes;
  }
}
