import type { FileHandle } from "node:fs/promises";

/** After so many bytes their way to the disk begins, so that the flush before the answer finds little left. */
const headStartBytes = 32 * 1024 * 1024;

/**
 * Flushes of a file that still grows, one at a time. `run` starts a flush, or gives undefined where there are enough: it is
 * only a head start.
 */
export class HeadStart {
  readonly #file: FileHandle;
  readonly #run: (flush: () => Promise<void>) => Promise<void> | undefined;
  #unflushedBytes = 0;
  #running: Promise<void> | undefined;

  constructor(file: FileHandle, run: (flush: () => Promise<void>) => Promise<void> | undefined) {
    this.#file = file;
    this.#run = run;
  }

  written(bytes: number): void {
    this.#unflushedBytes += bytes;
    if (this.#unflushedBytes < headStartBytes || this.#running !== undefined) return;
    const running = this.#run(() => this.#file.datasync());
    if (running === undefined) return;
    this.#unflushedBytes = 0;
    this.#running = running;
    // A failure stays: the kernel tells it once, so the flush before the answer would not meet it again.
    running.then(
      () => {
        this.#running = undefined;
      },
      () => {},
    );
  }

  /** Resolves when the file is not touched any more; throws what the disk said. */
  async settled(): Promise<void> {
    await this.#running;
  }
}
