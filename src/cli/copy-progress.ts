/** What `cp` shows on stderr while it runs. */
import { humanSize } from "./units.ts";

/** How often a terminal is redrawn. */
const intervalMs = 75;

/** Docker's size in these lines: three digits. */
export function copiedSize(bytes: number): string {
  return humanSize(bytes, 3);
}

/** A copy that is done by then shows its result only. */
const firstMs = 500;

/** Counts bytes, and shows the count behind `title` where stderr is a terminal; `stop` clears the line. */
export class CopyProgress {
  bytes = 0;
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #target: NodeJS.WriteStream;
  #shown = false;

  constructor(title: string, quiet: boolean, target: NodeJS.WriteStream = process.stderr) {
    this.#target = target;
    if (quiet || target.isTTY !== true) return;
    let last = 0;
    const begun = performance.now();
    this.#timer = setInterval(() => {
      if (this.bytes === last || performance.now() - begun < firstMs) return;
      last = this.bytes;
      target.write(`${this.#shown ? "" : "\x1b[?25l"}\r\x1b[2K${title}${copiedSize(last)}`);
      this.#shown = true;
    }, intervalMs);
    this.#timer.unref();
  }

  async *counted(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of chunks) {
      this.bytes += chunk.length;
      yield chunk;
    }
  }

  stop(): void {
    clearInterval(this.#timer);
    if (this.#shown) this.#target.write("\x1b[?25h\r\x1b[2K");
  }
}
