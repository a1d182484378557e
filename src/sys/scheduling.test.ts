import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { Worker } from "node:worker_threads";

/** Niceness and slice of a thread that was told so under a kernel of that release. */
async function threadUnder(release: string): Promise<{ nice: number; sliceNs: number | undefined }> {
  const module = new URL("./scheduling.ts", import.meta.url).href;
  const source = `
    import { readFileSync, readlinkSync, existsSync } from "node:fs";
    import { getPriority } from "node:os";
    import { parentPort } from "node:worker_threads";
    import { workInLongSlices } from ${JSON.stringify(module)};
    workInLongSlices(${JSON.stringify(release)});
    const thread = Number(readlinkSync("/proc/thread-self").split("/").at(-1));
    const text = existsSync("/proc/thread-self/sched") ? readFileSync("/proc/thread-self/sched", "utf8") : "";
    const slice = /^se\\.slice\\s*:\\s*(\\d+)/m.exec(text)?.[1];
    parentPort.postMessage({ nice: getPriority(thread), sliceNs: slice === undefined ? undefined : Number(slice) });
  `;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`));
  return await new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
}

test("a thread gets long slices, or is nice where the kernel has none; others stay as they are", async () => {
  const own = readFileSync("/proc/self/stat", "utf8").split(") ")[1]?.split(" ")[16];
  assert.equal((await threadUnder("6.1.0-31-amd64")).nice, 5);
  const kernel = readFileSync("/proc/sys/kernel/osrelease", "utf8");
  const [major = 0, minor = 0] = kernel.split(".").map(Number);
  if (major > 6 || (major === 6 && minor >= 12)) {
    const thread = await threadUnder(kernel);
    assert.equal(thread.nice, 2);
    if (existsSync("/proc/self/sched")) assert.equal(thread.sliceNs, 20_000_000);
  }
  assert.equal(readFileSync("/proc/self/stat", "utf8").split(") ")[1]?.split(" ")[16], own);
});
