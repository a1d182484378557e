import type { Clock } from "#base/clock.ts";
import { limits } from "#base/limits.ts";

export type EventType = "container" | "image" | "volume" | "network" | "daemon" | "builder";

/** One event as the Engine API sends it (1.22 and later shape; `status`, `id`, `from` for containers and images below 1.52). */
export interface EngineEvent {
  readonly type: EventType;
  readonly action: string;
  readonly actorId: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly timeNs: bigint;
}

export interface EventReader extends AsyncIterable<EngineEvent>, Disposable {
  /** Events that this reader lost because it did not read (invariant 6). */
  readonly dropped: number;
}

/** Readers woken in one turn of the event loop: each writes to its client, some 40 µs. */
const wakesATurn = 32;

/** Publishes events to readers and keeps the last ones for `since`. Never waits for a reader. */
export class EventBus {
  readonly #clock: Clock;
  readonly #recent: EngineEvent[] = [];
  readonly #readers = new Set<(event: EngineEvent) => void>();
  /** Readers with something to read that have not been woken. A hundred of them do not hold up everybody else. */
  readonly #toWake: (() => void)[] = [];
  #waking = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  publish(
    type: EventType,
    action: string,
    actorId: string,
    attributes: Readonly<Record<string, string>>,
  ): void {
    const event: EngineEvent = { type, action, actorId, attributes, timeNs: this.#clock.nowNs() };
    this.#recent.push(event);
    if (this.#recent.length > limits.eventBacklogMax) this.#recent.shift();
    for (const deliver of this.#readers) deliver(event);
    if (!this.#waking) this.#wakeSome();
  }

  #wakeSome(): void {
    for (const wake of this.#toWake.splice(0, wakesATurn)) wake();
    this.#waking = this.#toWake.length > 0;
    if (this.#waking) setImmediate(() => this.#wakeSome());
  }

  recent(): readonly EngineEvent[] {
    return this.#recent;
  }

  /** Reads from now on; past events come from `recent`. Both in the same turn lose nothing between them. */
  subscribe(): EventReader {
    const queue: EngineEvent[] = [];
    /** Of a reader that waits and is not about to be woken. */
    let wake: (() => void) | undefined;
    let wakeAtOnce: (() => void) | undefined;
    let closed = false;
    let dropped = 0;
    const deliver = (event: EngineEvent): void => {
      if (queue.length >= limits.eventBacklogMax) dropped += 1;
      else queue.push(event);
      if (wake === undefined) return;
      this.#toWake.push(wake);
      wake = undefined;
    };
    this.#readers.add(deliver);
    const close = (): void => {
      closed = true;
      this.#readers.delete(deliver);
      wakeAtOnce?.();
    };
    return {
      get dropped() {
        return dropped;
      },
      [Symbol.dispose]: close,
      async *[Symbol.asyncIterator]() {
        try {
          for (;;) {
            const next = queue.shift();
            if (next !== undefined) yield next;
            else if (closed) return;
            else {
              await new Promise<void>((resolve) => {
                wake = resolve;
                wakeAtOnce = resolve;
              });
            }
          }
        } finally {
          close();
        }
      },
    };
  }
}
