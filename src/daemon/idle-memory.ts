import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { trimHeap } from "#sys/memory.ts";

/** How often the daemon looks whether it is idle. */
const intervalMs = 5_000;
/** CPU of the whole process within one interval below which nobody is kept waiting by a collection. */
const idleCpuMsMax = 100;
/** CPU since the last collection below which there can be little to collect: some fifty starts of a container. */
const workCpuMsMin = 250;

/** Quiet intervals after a collection in which the C heap is trimmed again: idle worker threads end meanwhile. */
const laterTrims = 4;

type Collect = (options: { type: "major"; flavor: "last-resort"; execution: "sync" }) => void;

/**
 * Gives memory back once a burst of work is over. V8 keeps its young generation as large as the burst made it and leaves
 * garbage until the next allocation; an idle daemon would hold tens of megabytes for hours. A collection blocks the event
 * loop for 20 to 50 ms, which is why it waits for a quiet interval and for something to be worth it.
 */
export function returnIdleMemory(): Disposable {
  const collect = collector();
  let seen = cpuMs();
  let collectedAt = 0;
  let trims = 0;
  const timer = setInterval(() => {
    const now = cpuMs();
    const idle = now - seen < idleCpuMsMax;
    seen = now;
    if (!idle) return;
    if (now - collectedAt < workCpuMsMin) {
      if (trims > 0) {
        trimHeap();
        trims -= 1;
      }
      return;
    }
    collect({ type: "major", flavor: "last-resort", execution: "sync" });
    trimHeap();
    seen = cpuMs();
    collectedAt = seen;
    trims = laterTrims;
  }, intervalMs);
  timer.unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

function collector(): Collect {
  // What was compiled stays: the first request after a pause would compile it again.
  setFlagsFromString("--no-flush-bytecode");
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as Collect;
  setFlagsFromString("--no-expose-gc");
  return collect;
}
