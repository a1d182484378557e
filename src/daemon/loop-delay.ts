import { monitorEventLoopDelay } from "node:perf_hooks";
import type { Log } from "#base/log.ts";

const resolutionMs = 5;

/**
 * With `--debug`: SIGUSR2 logs how late the event loop was since the signal before (or the start), measured by a timer of
 * 5 ms. Whoever asks why a daemon is slow learns here whether its loop was free (DESIGN: p99 ≤ 20 ms).
 */
export function reportLoopDelay(log: Log): Disposable {
  const delays = monitorEventLoopDelay({ resolution: resolutionMs });
  delays.enable();
  // The histogram holds the distances between the timer's turns; what is above its own interval is delay.
  const late = (nanoseconds: number): number =>
    Math.max(0, Math.round(nanoseconds / 1e5 - resolutionMs * 10) / 10);
  const report = (): void => {
    log.debug("event loop", {
      turns: delays.count,
      p50Ms: late(delays.percentile(50)),
      p99Ms: late(delays.percentile(99)),
      maxMs: late(delays.max),
      residentBytes: process.memoryUsage.rss(),
    });
    delays.reset();
  };
  process.on("SIGUSR2", report);
  return {
    [Symbol.dispose]: () => {
      process.off("SIGUSR2", report);
      delays.disable();
    },
  };
}
