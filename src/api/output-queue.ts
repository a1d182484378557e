import { encodeJsonMessage, type JsonMessage } from "#wire/json-message.ts";

/** Text kept for a client that reads slowly; beyond it the work is asked to wait. */
const roomBytes = 1024 * 1024;

/** Lines on their way to a client. Nothing is dropped: who produces without end waits for `room`. */
export class OutputQueue {
  #lines: string[] = [];
  #bytes = 0;
  #ended = false;
  #wakeReader: (() => void) | undefined;
  #wakeWriters: (() => void)[] = [];

  push(message: JsonMessage): void {
    const line = encodeJsonMessage(message);
    this.#lines.push(line);
    this.#bytes += line.length;
    this.#wakeReader?.();
  }

  /** Resolves when more may be pushed; after the end always. */
  async room(): Promise<void> {
    while (this.#bytes > roomBytes && !this.#ended) {
      await new Promise<void>((resolve) => this.#wakeWriters.push(resolve));
    }
  }

  end(): void {
    this.#ended = true;
    this.#wakeReader?.();
    for (const wake of this.#wakeWriters.splice(0)) wake();
  }

  /** All that waits, or undefined after the end. */
  async take(): Promise<string | undefined> {
    while (this.#lines.length === 0) {
      if (this.#ended) return undefined;
      await new Promise<void>((resolve) => {
        this.#wakeReader = resolve;
      });
      this.#wakeReader = undefined;
    }
    const text = this.#lines.join("");
    this.#lines = [];
    this.#bytes = 0;
    for (const wake of this.#wakeWriters.splice(0)) wake();
    return text;
  }
}
