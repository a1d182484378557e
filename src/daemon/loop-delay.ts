import { monitorEventLoopDelay } from "node:perf_hooks";
import type { Log } from "#base/log.ts";

const resolutionMs = 5;
/** One line this often. */
const windowMs = 2_000;

/**
 * With `--debug`: a line every two seconds that says how late the event loop was (a timer of 5 ms measures it) and how
 * much memory is resident. Whoever asks why a daemon is slow finds here whether its loop was free (DESIGN: p99 ≤ 20 ms).
 */
export function logLoopDelay(log: Log): Disposable {
  const delays = monitorEventLoopDelay({ resolution: resolutionMs });
  delays.enable();
  // The histogram holds the distances between the timer's turns; what is above its own interval is delay.
  const late = (nanoseconds: number): number =>
    Math.max(0, Math.round(nanoseconds / 1e5 - resolutionMs * 10) / 10);
  const timer = setInterval(() => {
    log.debug("event loop", {
      turns: delays.count,
      p50Ms: late(delays.percentile(50)),
      p99Ms: late(delays.percentile(99)),
      maxMs: late(delays.max),
      residentBytes: process.memoryUsage.rss(),
    });
    delays.reset();
  }, windowMs);
  timer.unref();
  return {
    [Symbol.dispose]: () => {
      clearInterval(timer);
      delays.disable();
    },
  };
}
