import { shortId } from "#base/ids.ts";
import type { LayerProgress, WantedLayer } from "#image/unpack.ts";
import type { JsonMessage } from "#wire/json-message.ts";
import type { Report } from "./image-context.ts";

/** As dockerd: bars move ten times a second at most. */
const barIntervalMs = 100;

const plainActions = {
  found: "Pulling fs layer",
  waiting: "Waiting",
  verifying: "Verifying Checksum",
  downloaded: "Download complete",
  complete: "Pull complete",
  exists: "Already exists",
} as const;

/** Turns the progress of layers into Docker's lines; the first and the last state of each bar are always shown. */
export function layerReporter(report: Report): (layer: WantedLayer, progress: LayerProgress) => void {
  const shownAt = new Map<string, number>();
  return (layer, progress) => {
    const id = shortId(layer.descriptor.digest);
    if (progress.phase === "downloading" || progress.phase === "extracting") {
      const { current, total } = progress;
      const key = `${id} ${progress.phase}`;
      const now = performance.now();
      const last = shownAt.get(key);
      if (last !== undefined && now - last < barIntervalMs && current < total) return;
      if (current === 0) return;
      shownAt.set(key, now);
      const action = progress.phase === "downloading" ? "Downloading" : "Extracting";
      report({ kind: "progress", id, action, detail: { current, total } });
      return;
    }
    if (progress.phase === "retrying") {
      const { seconds } = progress;
      const action = `Retrying in ${seconds} second${seconds === 1 ? "" : "s"}`;
      report({ kind: "progress", id, action });
      return;
    }
    report({ kind: "progress", id, action: plainActions[progress.phase] });
  };
}

/** Lines kept for a client that reads slowly; beyond it the oldest moves of bars go first. */
const queueLengthMax = 4096;

/**
 * The lines of a stream on their way to a client that may be slow: work never waits for it. A bar's newer state takes
 * the place of its older one, so that the queue stays as long as the number of layers.
 */
export class ProgressQueue {
  #lines: JsonMessage[] = [];
  #wake: (() => void) | undefined;
  #ended = false;

  push(message: JsonMessage): void {
    const key = barKey(message);
    const last = this.#lines.at(-1);
    if (key !== undefined && this.#lines.length > 0) {
      const older = last !== undefined && barKey(last) === key ? this.#lines.length - 1 : this.#find(key);
      if (older !== -1) {
        this.#lines[older] = message;
        return;
      }
    }
    if (this.#lines.length >= queueLengthMax) {
      const bar = this.#lines.findIndex((line) => barKey(line) !== undefined);
      this.#lines.splice(bar === -1 ? 0 : bar, 1);
    }
    this.#lines.push(message);
    this.#wake?.();
  }

  #find(key: string): number {
    return this.#lines.findLastIndex((line) => barKey(line) === key);
  }

  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  /** All that is waiting, or undefined after the end. */
  async take(): Promise<JsonMessage[] | undefined> {
    while (this.#lines.length === 0) {
      if (this.#ended) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
    const lines = this.#lines;
    this.#lines = [];
    return lines;
  }
}

function barKey(message: JsonMessage): string | undefined {
  return message.kind === "progress" && message.detail !== undefined
    ? `${message.id} ${message.action}`
    : undefined;
}
