import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { test } from "node:test";
import { kernelVersionNumber, parseCpuList, parseRlimits, readHostInfo } from "./hostinfo.ts";

test("limits are read by Docker's names", () => {
  const limits = parseRlimits(
    "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 20000                files     \nMax core file size        0                    unlimited            bytes     \nMax realtime timeout      unlimited            unlimited            us        \n",
  );
  assert.deepEqual(
    [...limits],
    [
      ["nofile", { soft: 1024, hard: 20000 }],
      ["core", { soft: 0, hard: Infinity }],
      ["rttime", { soft: Infinity, hard: Infinity }],
    ],
  );
  assert.equal(parseRlimits(readFileSync("/proc/self/limits", "utf8")).size, 16);
});

test("processor lists and kernel versions", () => {
  assert.deepEqual(parseCpuList("0-2,7"), [0, 1, 2, 7]);
  for (const bad of ["", "a", "3-1", "0-99999", "1,,2", "-1"])
    assert.equal(parseCpuList(bad), undefined, bad);
  assert.deepEqual(
    [kernelVersionNumber("6.18.5-x"), kernelVersionNumber("4.8.0"), kernelVersionNumber("?")],
    [6018, 4008, 0],
  );
});

test("this host is described", () => {
  const host = readHostInfo();
  assert.ok(host.cpuCount >= availableParallelism() && host.kernelVersion > 4000);
  const bounding = /^CapBnd:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
  assert.equal(host.capabilities & ~BigInt(`0x${bounding}`), 0n);
});
