import assert from "node:assert/strict";
import { test } from "node:test";
import { createCgroupDriver, defaultCgroupDriver, slicePath } from "./cgroup-driver.ts";
import { unitProperties } from "./systemd-properties.ts";

const id = "a".repeat(64);

test("cgroupfs: a directory below the parent, as the runtime is told", () => {
  const driver = createCgroupDriver("cgroupfs", undefined);
  assert.deepEqual(driver.runtimeArguments, []);
  assert.equal(driver.parentPath, "/skiff");
  assert.deepEqual(driver.place(id, undefined), { path: `/skiff/${id}`, specPath: `/skiff/${id}` });
  assert.equal(driver.place(id, "own/parent").path, `/own/parent/${id}`);
  assert.equal(driver.place(id, "../..").path, `/${id}`);
  assert.equal(createCgroupDriver("cgroupfs", "x").place(id, undefined).path, `/x/${id}`);
});

test("systemd: a scope in a slice, as the runtimes name it", () => {
  const driver = createCgroupDriver("systemd", undefined);
  assert.deepEqual(driver.runtimeArguments, ["--systemd-cgroup"]);
  assert.equal(driver.parentPath, "/system.slice");
  assert.deepEqual(driver.place(id, undefined), {
    path: `/system.slice/skiff-${id}.scope`,
    specPath: `system.slice:skiff:${id}`,
  });
  assert.deepEqual(driver.place(id, "a-b.slice"), {
    path: `/a.slice/a-b.slice/skiff-${id}.scope`,
    specPath: `a-b.slice:skiff:${id}`,
  });
  assert.equal(
    createCgroupDriver("systemd", "mine.slice").place(id, undefined).specPath,
    `mine.slice:skiff:${id}`,
  );
});

test("a slice's dashes are its path (systemd.slice)", () => {
  assert.equal(slicePath("system.slice"), "/system.slice");
  assert.equal(slicePath("-.slice"), "/");
  assert.equal(slicePath("a-b-c.slice"), "/a.slice/a-b.slice/a-b-c.slice");
  for (const bad of [
    "",
    "/x",
    "x",
    ".slice",
    "a--b.slice",
    "-a.slice",
    "a-.slice",
    "a/b.slice",
    "a b.slice",
  ]) {
    assert.throws(() => slicePath(bad), {
      message: 'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"',
      kind: "invalid",
    });
  }
});

test("systemd's driver is the default where systemd runs a version 2 host and no path is asked for", () => {
  const booted = (): boolean => true;
  assert.equal(defaultCgroupDriver("2", undefined, booted), "systemd");
  assert.equal(defaultCgroupDriver("2", "mine.slice", booted), "systemd");
  assert.equal(defaultCgroupDriver("2", "/mine", booted), "cgroupfs");
  assert.equal(defaultCgroupDriver("1", undefined, booted), "cgroupfs");
  assert.equal(
    defaultCgroupDriver("2", undefined, () => false),
    "cgroupfs",
  );
});

test("limits in systemd's words", () => {
  assert.deepEqual(
    unitProperties([
      ["memory", "memory.swap.max", "max"],
      ["memory", "memory.max", "67108864"],
      ["cpu", "cpu.max", "50000 100000"],
      ["cpuset", "cpuset.cpus", "0-1"],
      ["pids", "pids.max", "max"],
      ["io", "io.weight", "default 500"],
      ["cpu", "cpu.weight", "39"],
    ]),
    [
      "MemorySwapMax=infinity",
      "MemoryMax=67108864",
      "CPUQuota=50.00%",
      "CPUQuotaPeriodSec=100000us",
      "AllowedCPUs=0-1",
      "TasksMax=infinity",
      "IOWeight=500",
      "CPUWeight=39",
    ],
  );
  assert.deepEqual(unitProperties([["cpu", "cpu.max", "max 100000"]]), ["CPUQuota="]);
});
