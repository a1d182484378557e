/** An exclusive lock for one key at a time, in request order; the holder is a disposable. */
export class KeyedLock {
  readonly #tails = new Map<string, Promise<void>>();

  async acquire(key: string): Promise<Disposable> {
    const before = this.#tails.get(key);
    let release!: () => void;
    const mine = new Promise<void>((resolve) => {
      release = resolve;
    });
    const tail = before === undefined ? mine : before.then(() => mine);
    this.#tails.set(key, tail);
    if (before !== undefined) await before;
    return {
      [Symbol.dispose]: () => {
        if (this.#tails.get(key) === tail) this.#tails.delete(key);
        release();
      },
    };
  }
}

/** At most `slots` holders at a time, first come first served. */
export class Semaphore {
  #slots: number;
  /** Below zero while there are more holders than slots: `resize` has taken some away. */
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(slots: number) {
    this.#slots = slots;
    this.#free = slots;
  }

  /** Another number of slots, from now on; who holds one keeps it. */
  resize(slots: number): void {
    this.#free += slots - this.#slots;
    this.#slots = slots;
    while (this.#free > 0 && this.#waiting.length > 0) {
      this.#free -= 1;
      this.#waiting.shift()!();
    }
  }

  async acquire(): Promise<Disposable> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    return this.#holder();
  }

  /** A slot if one is free now. */
  tryAcquire(): Disposable | undefined {
    if (this.#free <= 0) return undefined;
    this.#free -= 1;
    return this.#holder();
  }

  #holder(): Disposable {
    let released = false;
    return {
      [Symbol.dispose]: () => {
        if (released) return;
        released = true;
        const next = this.#free < 0 ? undefined : this.#waiting.shift();
        if (next === undefined) this.#free += 1;
        else next();
      },
    };
  }
}
