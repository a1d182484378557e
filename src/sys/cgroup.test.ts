import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import {
  type CgroupLayout,
  cgroupDirectory,
  freezeCgroup,
  hasCgroup,
  isFrozen,
  killCgroup,
  makeCgroupParent,
  parseCgroupLayout,
  readPids,
  removeCgroupParent,
  thawCgroup,
} from "./cgroup.ts";

const root = mkdtempSync(join(tmpdir(), "skiff-cgroup-"));
after(() => rmSync(root, { recursive: true }));

/** A version 2 tree as a kernel with controllers shows it; plain files, so that what is written can be read back. */
function recordedTree(files: Readonly<Record<string, string>>): CgroupLayout {
  const mount = mkdtempSync(join(root, "v2-"));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(join(mount, path, ".."), { recursive: true });
    writeFileSync(join(mount, path), text);
  }
  return { version: "2", mounts: new Map([["", mount]]), controllers: new Set(["cpu", "memory", "pids"]) };
}

function content(layout: CgroupLayout, path: string): string {
  return readFileSync(join(layout.mounts.get("")!, path), "utf8");
}

test("layouts are told apart: version 1, hybrid, version 2", () => {
  const v1 =
    "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\ncgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n";
  const never = (): string => assert.fail("reads nothing");
  const first = parseCgroupLayout(v1, never);
  assert.deepEqual([first.version, [...first.controllers]], ["1", ["cpu", "cpuacct", "name=systemd"]]);
  assert.equal(cgroupDirectory(first, "cpuacct", "/a"), "/sys/fs/cgroup/cpu,cpuacct/a");
  assert.equal(cgroupDirectory(first, "memory", "/a"), undefined);
  const hybrid = parseCgroupLayout(`${v1}cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n`, never);
  assert.deepEqual(
    [hybrid.version, hybrid.mounts.get(""), hybrid.controllers.has("")],
    ["1", "/sys/fs/cgroup/unified", false],
  );
  const pure = parseCgroupLayout(
    "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n",
    () => "cpuset cpu io memory pids\n",
  );
  assert.deepEqual([pure.version, pure.controllers.has("io")], ["2", true]);
  assert.equal(cgroupDirectory(pure, "memory", "/skiff/x"), "/sys/fs/cgroup/skiff/x");
  assert.throws(() => parseCgroupLayout("proc /proc proc rw 0 0\n", never), /no cgroup file system/);
});

test("version 2: a parent is made with its controllers enabled on the way, and removed when empty", () => {
  const layout = recordedTree({
    "cgroup.controllers": "cpu memory pids\n",
    "cgroup.subtree_control": "",
    "a/cgroup.controllers": "cpu memory\n",
    "a/b/cgroup.controllers": "cpu\n",
  });
  makeCgroupParent(layout, "/a/b");
  assert.ok(hasCgroup(layout, "/a/b") && !hasCgroup(layout, "/a/c"));
  assert.equal(content(layout, "cgroup.subtree_control"), "+pids");
  assert.equal(content(layout, "a/cgroup.subtree_control"), "+memory");
  const empty = recordedTree({});
  mkdirSync(join(empty.mounts.get("")!, "x/y/z"), { recursive: true });
  mkdirSync(join(empty.mounts.get("")!, "x/other"));
  removeCgroupParent(empty, "/x/y/z");
  assert.deepEqual([hasCgroup(empty, "/x/y"), hasCgroup(empty, "/x")], [false, true]);
});

test("version 2: freezing waits for the kernel's word and thaws on request", async () => {
  const layout = recordedTree({ "c/cgroup.freeze": "0\n", "c/cgroup.events": "populated 1\nfrozen 0\n" });
  const freezing = freezeCgroup(layout, "/c");
  assert.equal(isFrozen(layout, "/c"), true);
  let done = false;
  void freezing.then(() => {
    done = true;
  });
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(done, false);
  writeFileSync(join(layout.mounts.get("")!, "c/cgroup.events"), "populated 1\nfrozen 1\n");
  await freezing;
  thawCgroup(layout, "/c");
  assert.equal(content(layout, "c/cgroup.freeze"), "0");
  assert.equal(isFrozen(layout, "/gone"), false);
});

test("version 2: processes of nested groups are found, and killing is the kernel's own", async () => {
  const layout = recordedTree({
    "c/cgroup.procs": "10\n11\n",
    "c/inner/cgroup.procs": "12\n0\n",
    "c/inner/deep/cgroup.procs": "13\n",
    "k/cgroup.procs": "",
    "k/cgroup.kill": "",
    "k/cgroup.freeze": "1",
  });
  assert.deepEqual(readPids(layout, "/c"), [10, 11, 12, 13]);
  assert.deepEqual(readPids(layout, "/absent"), []);
  await killCgroup(layout, "/k");
  assert.deepEqual([content(layout, "k/cgroup.kill"), content(layout, "k/cgroup.freeze")], ["1", "0"]);
});
