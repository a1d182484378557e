/** What `cp` shows on stderr while it runs. */
import { humanSize } from "./units.ts";

/** How often a terminal is redrawn. */
const intervalMs = 75;

/** Docker's size in these lines: three digits. */
export function copiedSize(bytes: number): string {
  return humanSize(bytes, 3);
}

/** Counts bytes, and shows the count behind `title` where stderr is a terminal; `stop` clears the line. */
export class CopyProgress {
  bytes = 0;
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #target: NodeJS.WriteStream;

  constructor(title: string, quiet: boolean, target: NodeJS.WriteStream = process.stderr) {
    this.#target = target;
    if (quiet || target.isTTY !== true) return;
    let last = 0;
    target.write(`\x1b[s\x1b[?25l\x1b[u\x1b[2K${title}${copiedSize(0)}`);
    this.#timer = setInterval(() => {
      if (this.bytes === last) return;
      last = this.bytes;
      target.write(`\x1b[${title.length + 1}G\x1b[K${copiedSize(last)}`);
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
    if (this.#timer === undefined) return;
    clearInterval(this.#timer);
    this.#target.write("\x1b[?25h\x1b[u\x1b[2K");
  }
}
