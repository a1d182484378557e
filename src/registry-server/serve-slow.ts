import type { IncomingMessage } from "node:http";

export interface Pace {
  readonly windowMs: number;
  /** A body that brings less than this in a window is ended. */
  readonly bytesMin: number;
}

/** 1 KiB/s: the slowest modem sends more, and who drips a byte a minute holds a connection for nothing. */
export const slowestPace: Pace = { windowMs: 60_000, bytesMin: 60 * 1024 };

interface Watched {
  bytesRead: number;
  sinceMs: number;
}

/**
 * Ends requests whose bodies come too slowly (slow-loris), beside the registry's own watch over bodies that stand still.
 * While we are the ones who do not read, a window does not count.
 */
export class SlowBodies implements Disposable {
  readonly #pace: Pace;
  readonly #watched = new Map<IncomingMessage, Watched>();
  readonly #timer: NodeJS.Timeout;

  constructor(pace: Pace = slowestPace) {
    this.#pace = pace;
    this.#timer = setInterval(() => this.#look(), pace.windowMs / 4);
    this.#timer.unref();
  }

  watch(request: IncomingMessage): void {
    if (request.complete) return;
    this.#watched.set(request, { bytesRead: request.socket.bytesRead, sinceMs: performance.now() });
    request.once("close", () => this.#watched.delete(request));
  }

  #look(): void {
    const now = performance.now();
    for (const [request, window] of this.#watched) {
      const { socket } = request;
      if (request.complete) this.#watched.delete(request);
      else if (request.isPaused() || request.readableLength > 0) window.sinceMs = now;
      else if (now - window.sinceMs >= this.#pace.windowMs) {
        if (socket.bytesRead - window.bytesRead < this.#pace.bytesMin) socket.destroy();
        window.bytesRead = socket.bytesRead;
        window.sinceMs = now;
      }
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#watched.clear();
  }
}
