import { EngineError } from "#base/errors.ts";
import { BlockGzip, gzipBlockBytes, gzipBlockOutputMax } from "#sys/gzip-members.ts";

/**
 * Blocks of a layer on their way through compression, in memory that threads share. The packing thread fills blocks in
 * order and takes their compressed forms in order; in between each belongs to whoever claims it first, a helping thread or
 * the packing thread itself when it has nowhere to go on. So nothing waits for a helper that never comes, and the bytes do
 * not depend on who did the work.
 *
 * A slot's state: `free` → filled → `ready` → claimed → `taken` → `done` → collected → `free`.
 */
const slots = 6;
const states = { free: 0, ready: 1, taken: 2, done: 3 } as const;
/** Int32 cells: blocks filled so far, the end of it, a helper's failure; then state, input and output length of each slot. */
const filledCell = 0;
const closedCell = 1;
const failedCell = 2;
const firstSlotCell = 3;
const cellsPerSlot = 3;
const headBytes = 4096;
const slotBytes = gzipBlockBytes + gzipBlockOutputMax;
/** So often the packing thread looks whether the one it waits for is still there. */
const patienceMs = 100;

export function sharedBlocks(): SharedArrayBuffer {
  return new SharedArrayBuffer(headBytes + slots * slotBytes);
}

/** There will be no more blocks: helpers end, also those that have not begun. Once or again. */
export function closeBlocks(shared: SharedArrayBuffer): void {
  closeCells(new Int32Array(shared, 0, firstSlotCell));
}

function closeCells(cells: Int32Array): void {
  Atomics.store(cells, closedCell, 1);
  // What helpers wait on, changed once more: none that is about to wait misses it.
  Atomics.add(cells, filledCell, slots);
  Atomics.notify(cells, filledCell);
}

/** A helper has ended without finishing what it had claimed, perhaps. */
export function helperFailed(shared: SharedArrayBuffer): void {
  Atomics.store(new Int32Array(shared, 0, firstSlotCell), failedCell, 1);
}

/** The memory as its users see it. */
class SharedBlocks {
  readonly cells: Int32Array;
  readonly inputs: readonly Buffer[];
  readonly outputs: readonly Buffer[];

  constructor(shared: SharedArrayBuffer) {
    this.cells = new Int32Array(shared, 0, headBytes / 4);
    const at = (slot: number): number => headBytes + slot * slotBytes;
    const all = Array.from({ length: slots }, (_, slot) => slot);
    this.inputs = all.map((slot) => Buffer.from(shared, at(slot), gzipBlockBytes));
    this.outputs = all.map((slot) => Buffer.from(shared, at(slot) + gzipBlockBytes, gzipBlockOutputMax));
  }

  stateCell(slot: number): number {
    return firstSlotCell + slot * cellsPerSlot;
  }

  state(slot: number): number {
    return Atomics.load(this.cells, this.stateCell(slot));
  }

  setState(slot: number, state: number): void {
    Atomics.store(this.cells, this.stateCell(slot), state);
    Atomics.notify(this.cells, this.stateCell(slot));
  }

  /** Claims a filled slot and compresses it. False where somebody else was first. */
  compress(slot: number, gzip: BlockGzip): boolean {
    const cell = this.stateCell(slot);
    if (Atomics.compareExchange(this.cells, cell, states.ready, states.taken) !== states.ready) return false;
    const input = this.inputs[slot] as Buffer;
    try {
      const length = this.cells[cell + 1] as number;
      this.cells[cell + 2] = gzip.compress(input.subarray(0, length), this.outputs[slot] as Buffer);
    } catch (error) {
      this.setState(slot, states.ready);
      throw error;
    }
    this.setState(slot, states.done);
    return true;
  }
}

/** The packing thread's side. */
export class PackBlocks implements Disposable {
  readonly #shared: SharedBlocks;
  readonly #gzip: BlockGzip;
  readonly #emit: (chunk: Buffer) => void;
  /** Blocks filled, and blocks whose output was emitted. */
  #filled = 0;
  #collected = 0;

  /** `emit` gets output in order, valid only during the call. */
  constructor(shared: SharedArrayBuffer, gzip: BlockGzip, emit: (chunk: Buffer) => void) {
    this.#shared = new SharedBlocks(shared);
    this.#gzip = gzip;
    this.#emit = emit;
  }

  /** Memory for the next block; waits, working, until some is free. */
  next(): Buffer {
    while (this.#filled - this.#collected >= slots) this.#advance();
    return this.#shared.inputs[this.#filled % slots] as Buffer;
  }

  /** The block that `next` gave is filled this far; only the last may be short. */
  filled(bytes: number): void {
    const slot = this.#filled % slots;
    this.#shared.cells[this.#shared.stateCell(slot) + 1] = bytes;
    this.#shared.setState(slot, states.ready);
    this.#filled += 1;
    Atomics.store(this.#shared.cells, filledCell, this.#filled);
    Atomics.notify(this.#shared.cells, filledCell);
    while (this.#collect());
  }

  finish(): void {
    while (this.#collected < this.#filled) this.#advance();
  }

  /** Emits the oldest block if it is done. */
  #collect(): boolean {
    const slot = this.#collected % slots;
    if (this.#collected === this.#filled || this.#shared.state(slot) !== states.done) return false;
    const length = this.#shared.cells[this.#shared.stateCell(slot) + 2] as number;
    this.#emit((this.#shared.outputs[slot] as Buffer).subarray(0, length));
    this.#shared.setState(slot, states.free);
    this.#collected += 1;
    return true;
  }

  /** Emits the oldest block, compresses one that nobody has taken, or waits for the oldest. */
  #advance(): void {
    if (this.#collect()) return;
    for (let block = this.#collected; block < this.#filled; block += 1) {
      if (this.#shared.compress(block % slots, this.#gzip)) return;
    }
    const cell = this.#shared.stateCell(this.#collected % slots);
    const waited = Atomics.wait(this.#shared.cells, cell, states.taken, patienceMs);
    // What a thread that ended has claimed stays claimed.
    if (waited !== "timed-out" || Atomics.load(this.#shared.cells, failedCell) === 0) return;
    throw new EngineError("system", "a thread that helped to pack a layer failed", { code: "worker" });
  }

  [Symbol.dispose](): void {
    closeCells(this.#shared.cells);
    this.#gzip[Symbol.dispose]();
  }
}

/** A helping thread's side: compresses blocks until there will be no more. */
export function helpPacking(shared: SharedArrayBuffer): undefined {
  const blocks = new SharedBlocks(shared);
  using gzip = BlockGzip.open();
  if (gzip === undefined) return undefined;
  for (let next = 0; ; ) {
    const filled = Atomics.load(blocks.cells, filledCell);
    if (Atomics.load(blocks.cells, closedCell) !== 0) return undefined;
    if (next >= filled) {
      Atomics.wait(blocks.cells, filledCell, filled);
      continue;
    }
    next = Math.max(next, filled - slots);
    blocks.compress(next % slots, gzip);
    next += 1;
  }
}
