/** The writer's side of a `GrowingFile`'s cells (content-store.ts). */
export class GrowingCells {
  readonly buffer = new SharedArrayBuffer(16);
  readonly #cells = new BigInt64Array(this.buffer);

  constructor(readableBytes: number) {
    this.#cells[0] = BigInt(readableBytes);
  }

  grow(bytes: number): void {
    Atomics.add(this.#cells, 0, BigInt(bytes));
    Atomics.notify(this.#cells, 0);
  }

  /** Ends the growth, once: later calls change nothing. */
  settle(state: "complete" | "failed"): void {
    Atomics.compareExchange(this.#cells, 1, 0n, state === "complete" ? 1n : 2n);
    Atomics.notify(this.#cells, 0);
  }
}
