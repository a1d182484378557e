import assert from "node:assert/strict";
import type { FileHandle } from "node:fs/promises";
import test from "node:test";
import { SyscallError } from "#base/errors.ts";
import { HeadStart } from "./head-start.ts";

const enough = 40 * 1024 * 1024;

test("what the disk refused while a body came is told at its end, although no later flush meets it", async () => {
  let flushes = 0;
  const file = {
    datasync: async () => {
      flushes += 1;
      throw new SyscallError("fdatasync", "EIO");
    },
  } as unknown as FileHandle;
  const ahead = new HeadStart(file, (flush) => flush());
  ahead.written(1);
  await ahead.settled();
  ahead.written(enough);
  await assert.rejects(ahead.settled(), { errno: "EIO" });
  ahead.written(enough);
  await assert.rejects(ahead.settled(), { errno: "EIO" });
  assert.equal(flushes, 1);
});

test("one flush of a body at a time, and none where there are enough", async () => {
  const running = Promise.withResolvers<void>();
  let flushes = 0;
  const file = {
    datasync: async () => {
      flushes += 1;
      await running.promise;
    },
  } as unknown as FileHandle;
  const ahead = new HeadStart(file, (flush) => flush());
  ahead.written(enough);
  ahead.written(enough);
  assert.equal(flushes, 1);
  running.resolve();
  await ahead.settled();
  ahead.written(1);
  assert.equal(flushes, 2);
  const refused = new HeadStart(file, () => undefined);
  refused.written(enough);
  await refused.settled();
  assert.equal(flushes, 2);
});
