import { Readable } from "node:stream";
import { TransportError } from "./network-error.ts";
import type { RegistryTiming } from "./timing.ts";

/** After the last byte a registry may still copy and hash the whole blob: this many times longer than for another answer. */
const finishFactor = 10;

export interface WatchedUpload {
  /** Aborted by the caller's signal, or when nothing moves any more. */
  readonly signal: AbortSignal;
  wrap(source: Readable): Readable;
  /** What an error of the request really was. */
  reason(error: unknown): unknown;
  stop(): void;
}

/** Watches a body on its way out: HTTP's own timeouts only know the answer. `onSent` counts what was taken. */
export function uploadStream(
  outer: AbortSignal,
  timing: RegistryTiming,
  onSent: (sentBytes: number) => void,
): WatchedUpload {
  const stalled = new AbortController();
  let sourceFailure: { readonly error: unknown } | undefined;
  let timer: NodeJS.Timeout | undefined;
  const arm = (ms: number): void => {
    clearTimeout(timer);
    timer = setTimeout(() => stalled.abort(new TransportError("upload stalled", true)), ms);
  };
  arm(timing.headersMs);
  const count = async function* (source: Readable): AsyncGenerator<Buffer> {
    let sent = 0;
    try {
      for await (const chunk of source as AsyncIterable<Buffer>) {
        yield chunk;
        sent += chunk.length;
        onSent(sent);
        arm(timing.idleMs);
      }
    } catch (error) {
      sourceFailure = { error };
      throw error;
    }
    arm(timing.headersMs * finishFactor);
  };
  return {
    signal: AbortSignal.any([outer, stalled.signal]),
    wrap: (source) => Readable.from(count(source), { objectMode: false, highWaterMark: 256 * 1024 }),
    reason: (error) => {
      if (outer.aborted) return error;
      if (sourceFailure !== undefined) return sourceFailure.error;
      return stalled.signal.aborted ? stalled.signal.reason : error;
    },
    stop: () => clearTimeout(timer),
  };
}
