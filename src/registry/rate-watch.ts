import { TransportError } from "./network-error.ts";
import type { RegistryTiming } from "./timing.ts";

export interface RateWatch {
  /** Bytes that have come by now. */
  seen: number;
  /** What has come is being written: a slow disk is not the server's fault. */
  writing: boolean;
  stop(): void;
}

/** Gives a body up that brings less than `rateBytesMin` in a window: a trickle would never fall silent. */
export function watchRate(body: { destroy(error: Error): unknown }, timing: RegistryTiming): RateWatch {
  let last = 0;
  const watch: RateWatch = { seen: 0, writing: false, stop: () => clearInterval(timer) };
  const timer = setInterval(() => {
    if (!watch.writing && watch.seen - last < timing.rateBytesMin) {
      body.destroy(new TransportError("download is slower than the minimum rate", true));
    }
    last = watch.seen;
  }, timing.rateWindowMs);
  timer.unref();
  return watch;
}
