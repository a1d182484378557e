import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { trimHeap } from "#sys/memory.ts";

/** How often the daemon looks whether it is idle. */
const intervalMs = 5_000;
/** CPU of the whole process within one interval below which nobody is kept waiting by a collection. */
const idleCpuMsMax = 100;
/** CPU since the last collection below which there can be little to collect: some fifty starts of a container. */
const workCpuMsMin = 250;

/**
 * Quiet intervals after a collection when it is done once more: idle worker threads have ended meanwhile, and V8 keeps
 * the pages of their heaps for the next one until a collection.
 */
const againAfter = 3;

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
  let again = 0;
  const timer = setInterval(() => {
    const now = cpuMs();
    const idle = now - seen < idleCpuMsMax;
    seen = now;
    if (!idle) return;
    if (now - collectedAt >= workCpuMsMin) again = againAfter;
    else if (again > 1) {
      again -= 1;
      return;
    } else if (again === 1) again = 0;
    else return;
    collect({ type: "major", flavor: "last-resort", execution: "sync" });
    trimHeap();
    seen = cpuMs();
    collectedAt = seen;
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
