/** Progress streams of pull, push, load and import, as Docker's client shows them. */
import type { Readable } from "node:stream";
import { jsonStream } from "#sdk/client.ts";
import type { ProgressMessage } from "#sdk/types.ts";
import { sanitizeCell, sanitizeOutput } from "./sanitize.ts";
import { humanSize } from "./units.ts";

/** The stream carried an error: its text is the daemon's. */
export class StreamError extends Error {
  readonly code: number | undefined;

  constructor(message: string, code?: number) {
    super(message);
    this.code = code;
  }
}

export interface ProgressTarget {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

/**
 * Shows a stream on `target` until it ends. On a terminal every id has its own line, redrawn in place; elsewhere each
 * message is a line, and byte counts are left out. Throws `StreamError`. `onAux` gets what is meant for programs.
 */
export async function showProgress(
  body: Readable,
  target: ProgressTarget,
  onAux?: (aux: unknown) => void,
): Promise<void> {
  const screen = target.isTTY === true ? new Screen(target) : undefined;
  for await (const message of jsonStream<ProgressMessage>(body)) {
    if (message.aux !== undefined && message.aux !== null) {
      onAux?.(message.aux);
      continue;
    }
    if (message.errorDetail !== undefined || (message.error ?? "") !== "") {
      const detail = message.errorDetail;
      throw new StreamError((detail?.message ?? message.error ?? "").trim(), detail?.code);
    }
    if (screen === undefined) showPlain(message, target);
    else screen.show(message);
  }
}

function showPlain(message: ProgressMessage, target: ProgressTarget): void {
  if (message.stream !== undefined && message.stream !== "") {
    target.write(sanitizeOutput(message.stream));
    return;
  }
  // Byte counts only make sense where a line can be drawn over.
  const hasProgress = message.progressDetail !== undefined && Object.keys(message.progressDetail).length > 0;
  if (hasProgress && ((message.progressDetail?.current ?? 0) > 0 || (message.progressDetail?.total ?? 0) > 0))
    return;
  target.write(`${line(message, 0)}\n`);
}

function line(message: ProgressMessage, width: number): string {
  const id = message.id === undefined || message.id === "" ? "" : `${sanitizeCell(message.id)}: `;
  const bar = width > 0 ? progressBar(message, width) : "";
  return `${id}${sanitizeCell(message.status ?? "")}${bar === "" ? "" : ` ${bar}`}`;
}

/** `[=====>     ]  12.3MB/45MB`, shorter on a narrow terminal. */
export function progressBar(message: ProgressMessage, width: number): string {
  const { current = 0, total = 0, hidecounts, units } = message.progressDetail ?? {};
  if (current <= 0 && total <= 0) return "";
  const amount = (value: number): string =>
    units === undefined || units === "" ? humanSize(value) : `${value} ${units}`;
  if (total <= 0) return `${amount(current).padStart(8)}`;
  let bar = "";
  if (width > 110) {
    const done = Math.min(50, Math.floor((current / total) * 50));
    bar = `[${"=".repeat(done)}>${" ".repeat(50 - done)}] `;
  }
  if (hidecounts === true) return bar;
  const counts = amount(current).padStart(8) + (current > total ? "" : `/${amount(total)}`);
  return bar + counts;
}

/** Lines of a terminal that are drawn over: one for each id, in order of appearance. */
class Screen {
  readonly #target: ProgressTarget;
  readonly #rows = new Map<string, number>();

  constructor(target: ProgressTarget) {
    this.#target = target;
  }

  show(message: ProgressMessage): void {
    if (message.stream !== undefined && message.stream !== "") {
      this.#target.write(sanitizeOutput(message.stream));
      return;
    }
    const width = this.#target.columns ?? 80;
    const id = message.id ?? "";
    if (id === "" || (message.progressDetail === undefined && message.progress === undefined)) {
      // A line of its own: whatever follows starts a new block below it.
      if (id === "") this.#rows.clear();
      if (id === "" || !this.#rows.has(id)) {
        this.#rows.clear();
        this.#target.write(`${line(message, width)}\n`);
        return;
      }
    }
    let row = this.#rows.get(id);
    if (row === undefined) {
      row = this.#rows.size;
      this.#rows.set(id, row);
      this.#target.write("\n");
    }
    const up = this.#rows.size - row;
    const text = line(message, width);
    this.#target.write(
      `\x1b[${up}A\r\x1b[2K${[...text].slice(0, Math.max(10, width - 1)).join("")}\x1b[${up}B\r`,
    );
  }
}
