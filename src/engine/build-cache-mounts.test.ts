import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "#base/clock.ts";
import { CacheMounts } from "./build-cache-mounts.ts";

const request = { id: "one", sharing: "locked", mode: 0o755, uid: 0, gid: 0 } as const;
const never = new AbortController().signal;

test("a build that ends while it waits for a locked mount gives its turn on", async () => {
  const folder = mkdtempSync(join(tmpdir(), "skiff-mounts-"));
  try {
    const mounts = new CacheMounts(join(folder, "mounts"), systemClock, () => Promise.resolve());
    const take = (signal: AbortSignal): ReturnType<CacheMounts["take"]> =>
      mounts.take(request, () => Promise.reject(new Error("not asked for")), signal);
    const first = await take(never);
    const gone = new AbortController();
    const second = take(gone.signal);
    const third = take(never);
    let hasThird = false;
    void third.then(() => {
      hasThird = true;
    });
    gone.abort();
    await assert.rejects(second, { kind: "cancelled" });
    await assert.rejects(take(AbortSignal.abort()), { kind: "cancelled" });
    assert.deepEqual([hasThird, (await mounts.list()).map(({ inUse }) => inUse)], [false, [true]]);
    await first[Symbol.asyncDispose]();
    const { path } = await third;
    assert.equal(path, first.path);
    await (await third)[Symbol.asyncDispose]();
    assert.deepEqual(
      (await mounts.list()).map(({ inUse }) => inUse),
      [false],
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});
