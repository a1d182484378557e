import { EngineError } from "#base/errors.ts";
import type { AppliedLayer, ApplyRequest, LayerKey } from "./snapshotter.ts";

type Work = (
  request: ApplyRequest,
  signal: AbortSignal,
  onProgress: (consumedBytes: number) => void,
) => Promise<AppliedLayer>;

interface Running {
  readonly abort: AbortController;
  readonly result: Promise<AppliedLayer>;
  readonly listeners: Set<(consumedBytes: number) => void>;
  waiting: number;
}

/**
 * One unpack for all who ask for the same layer at the same time, and a count of who uses layers that are not sealed yet,
 * so that a pull that fails removes nothing that another one is about to seal.
 */
export class SharedApplies {
  readonly #work: Work;
  readonly #drop: (layer: AppliedLayer) => void;
  readonly #running = new Map<string, Running>();
  readonly #unsealed = new Map<LayerKey, { layer: AppliedLayer; users: number; name: string | undefined }>();

  /** `drop` removes a layer that was finished although nobody waits for it any more. */
  constructor(work: Work, drop: (layer: AppliedLayer) => void) {
    this.#work = work;
    this.#drop = drop;
  }

  async apply(request: ApplyRequest): Promise<AppliedLayer> {
    const name = nameOf(request);
    for (const known of this.#unsealed.values()) {
      if (name === undefined || known.name !== name) continue;
      known.users += 1;
      return known.layer;
    }
    let running = name === undefined ? undefined : this.#running.get(name);
    if (running === undefined || running.abort.signal.aborted) running = this.#begin(request, name);
    const layer = await this.#join(running, request);
    const known = this.#unsealed.get(layer.key);
    if (known === undefined) this.#unsealed.set(layer.key, { layer, users: 1, name });
    else known.users += 1;
    return layer;
  }

  #begin(request: ApplyRequest, name: string | undefined): Running {
    const abort = new AbortController();
    const listeners = new Set<(consumedBytes: number) => void>();
    const result = this.#work(request, abort.signal, (consumed) => {
      for (const listener of listeners) listener(consumed);
    });
    const running: Running = { abort, result, listeners, waiting: 0 };
    if (name !== undefined) {
      this.#running.set(name, running);
      const forget = (): void => {
        if (this.#running.get(name) === running) this.#running.delete(name);
      };
      result.then(forget, forget);
    }
    return running;
  }

  /** The work stops when the last who waits for it has given up. */
  async #join(running: Running, request: ApplyRequest): Promise<AppliedLayer> {
    const { signal, onProgress } = request;
    running.waiting += 1;
    if (onProgress !== undefined) running.listeners.add(onProgress);
    let onAbort: (() => void) | undefined;
    const given = new Promise<never>((_, reject) => {
      onAbort = () => reject(new EngineError("cancelled", "context canceled", { code: "aborted" }));
      if (signal?.aborted === true) onAbort();
      else signal?.addEventListener("abort", onAbort, { once: true });
    });
    try {
      return await Promise.race([running.result, given]);
    } catch (error) {
      running.waiting -= 1;
      if (running.waiting === 0 && signal?.aborted === true) {
        running.abort.abort();
        // The disk space is given back before the caller hears of it (snapshotter.ts, invariant 4).
        const late = await running.result.catch(() => undefined);
        if (late !== undefined && !this.isUsed(late.key)) this.#drop(late);
      }
      throw error;
    } finally {
      if (onAbort !== undefined) signal?.removeEventListener("abort", onAbort);
      if (onProgress !== undefined) running.listeners.delete(onProgress);
    }
  }

  /** Counts a layer that was made without an apply. */
  adopt(layer: AppliedLayer): AppliedLayer {
    const known = this.#unsealed.get(layer.key);
    if (known === undefined) this.#unsealed.set(layer.key, { layer, users: 1, name: undefined });
    else known.users += 1;
    return layer;
  }

  /** The layer is sealed: no longer counted. */
  settle(layer: AppliedLayer): void {
    this.#unsealed.delete(layer.key);
  }

  /** One user less; true when it was the last and the layer may go. */
  release(layer: AppliedLayer): boolean {
    const known = this.#unsealed.get(layer.key);
    if (known === undefined) return false;
    known.users -= 1;
    if (known.users > 0) return false;
    this.#unsealed.delete(layer.key);
    return true;
  }

  isUsed(key: LayerKey): boolean {
    return this.#unsealed.has(key);
  }
}

/** What makes two requests the same work; undefined when nothing is known of the layer beforehand. */
function nameOf(request: ApplyRequest): string | undefined {
  if (request.expectedDiffId === undefined || request.expectedBlobDigest === undefined) return undefined;
  return `${request.expectedDiffId} ${request.expectedBlobDigest} ${request.chainId ?? ""}`;
}
