import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import type { Ipv4 } from "./ipv4.ts";
import type { NamespaceHelper } from "./namespace-helper.ts";

/** A namespace that the helper holds under a descriptor. */
export interface HeldNamespace {
  readonly helper: NamespaceHelper;
  readonly descriptor: number;
  /** Without one: only `lo`. */
  readonly link?: {
    readonly address: Ipv4;
    readonly mac: string;
    readonly hostInterface: string;
  };
}

/** Makes at once: few, so that a namespace which a request waits for stands behind few in the helper's queue. */
const makesAtOnce = 2;
/** After a take the pool waits so long before it works, to leave the processors to the container that is starting. */
const quietMs = 25;
const retryMs = 1000;

/**
 * Namespaces made ahead of time, handed out without a wait. It refills when it has been quiet, or at once when half of
 * it is gone; a namespace whose helper ended is dropped unseen.
 */
export class NamespacePool {
  readonly #make: () => Promise<HeldNamespace>;
  readonly #give: (namespace: HeldNamespace) => void;
  readonly #log: Log;
  readonly #target: number;
  #ready: HeldNamespace[] = [];
  #filling: Promise<void> | undefined;
  #making: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  /** `give` takes a namespace back that nobody will use. */
  constructor(options: {
    target: number;
    make: () => Promise<HeldNamespace>;
    give: (namespace: HeldNamespace) => void;
    log: Log;
  }) {
    this.#target = options.target;
    this.#make = options.make;
    this.#give = options.give;
    this.#log = options.log;
  }

  get size(): number {
    return this.#ready.length;
  }

  /** A ready namespace, oldest first, or undefined: the caller makes one on the spot. */
  take(): HeldNamespace | undefined {
    let taken = this.#ready.shift();
    while (taken !== undefined && !taken.helper.alive) {
      this.#give(taken);
      taken = this.#ready.shift();
    }
    this.#schedule();
    return taken;
  }

  /** Takes the namespace with this address out, for a container that asks for the address. */
  takeAddress(address: Ipv4): HeldNamespace | undefined {
    const index = this.#ready.findIndex((namespace) => namespace.link?.address === address);
    if (index < 0) return undefined;
    const [taken] = this.#ready.splice(index, 1);
    this.#schedule();
    return taken;
  }

  /** Fills up to the target; resolves when full or when making failed. */
  fill(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#filling ??= this.#fill().finally(() => {
      this.#filling = undefined;
      if (this.#ready.length < this.#target) this.#schedule();
    });
    return this.#filling;
  }

  /** Resolves when nothing is being made. */
  async settled(): Promise<void> {
    await this.#making;
  }

  /** Forgets the namespaces of a helper that ended. */
  dropDead(): void {
    const dead = this.#ready.filter((namespace) => !namespace.helper.alive);
    this.#ready = this.#ready.filter((namespace) => namespace.helper.alive);
    for (const namespace of dead) this.#give(namespace);
  }

  /** Gives every namespace back and makes no more. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#filling;
    for (const namespace of this.#ready.splice(0)) this.#give(namespace);
  }

  #schedule(): void {
    if (this.#closed || this.#filling !== undefined) return;
    if (this.#ready.length * 2 < this.#target) {
      void this.fill();
      return;
    }
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.fill(), quietMs).unref();
  }

  async #fill(): Promise<void> {
    const worker = async (): Promise<void> => {
      while (!this.#closed && this.#ready.length + pending < this.#target) {
        pending += 1;
        try {
          this.#ready.push(await this.#make());
        } finally {
          pending -= 1;
        }
      }
    };
    let pending = 0;
    const making = Promise.allSettled(Array.from({ length: makesAtOnce }, worker));
    this.#making = making;
    const results = await making;
    const failure = results.find((result) => result.status === "rejected");
    if (failure === undefined || this.#closed) return;
    this.#log.warn("cannot make network namespaces ahead of time", { error: messageOf(failure.reason) });
    await sleep(retryMs, undefined, { ref: false });
  }
}
