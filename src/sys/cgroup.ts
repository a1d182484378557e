import {
  type Dirent,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from "node:fs";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { EngineError, errnoOf } from "#base/errors.ts";

/**
 * Control groups as files (cgroups(7)). Version 1 has a tree a controller, version 2 one tree; on hybrid hosts the
 * controllers sit in version 1 and an almost empty version 2 tree is mounted beside them: that counts as version 1.
 */
export interface CgroupLayout {
  readonly version: "1" | "2";
  /** Version 1: mount point by controller (`memory`, `cpu`, `name=systemd`); `""` is the version 2 tree. */
  readonly mounts: ReadonlyMap<string, string>;
  /** Version 2's controllers that may be enabled below the root. */
  readonly controllers: ReadonlySet<string>;
}

const controllersV1 = new Set([
  "cpu",
  "cpuacct",
  "cpuset",
  "memory",
  "devices",
  "freezer",
  "blkio",
  "pids",
  "hugetlb",
  "net_cls",
  "net_prio",
  "perf_event",
  "rdma",
  "misc",
]);

/** From the text of /proc/mounts. `readFile` gives the v2 root's `cgroup.controllers`. */
export function parseCgroupLayout(mounts: string, readFile: (path: string) => string): CgroupLayout {
  const v1 = new Map<string, string>();
  let v2: string | undefined;
  for (const line of mounts.split("\n")) {
    const [, target, type, options = ""] = line.split(" ");
    if (target === undefined || !target.startsWith("/sys/fs/cgroup")) continue;
    if (type === "cgroup2") v2 ??= target;
    if (type !== "cgroup") continue;
    for (const option of options.split(",")) {
      if ((controllersV1.has(option) || option.startsWith("name=")) && !v1.has(option))
        v1.set(option, target);
    }
  }
  if (v1.size > 0) {
    const controllers = new Set(v1.keys());
    // Hybrid: runtimes put processes into the version 2 tree, too, though it controls nothing.
    if (v2 !== undefined) v1.set("", v2);
    return { version: "1", mounts: v1, controllers };
  }
  if (v2 === undefined) throw new EngineError("system", "no cgroup file system below /sys/fs/cgroup");
  const controllers = readFile(`${v2}/cgroup.controllers`).trim().split(/\s+/);
  return { version: "2", mounts: new Map([["", v2]]), controllers: new Set(controllers) };
}

export function readCgroupLayout(): CgroupLayout {
  return parseCgroupLayout(readFileSync("/proc/mounts", "utf8"), (path) => readFileSync(path, "utf8"));
}

/** The directory of a cgroup for a controller, or undefined where the host has no such controller. */
export function cgroupDirectory(layout: CgroupLayout, controller: string, path: string): string | undefined {
  const mount = layout.version === "2" ? layout.mounts.get("") : layout.mounts.get(controller);
  return mount === undefined ? undefined : `${mount}${path}`;
}

/** Any one directory of the group: all of a container's processes are in each of them. */
function anyDirectory(layout: CgroupLayout, path: string): string {
  for (const controller of ["freezer", "pids", "memory", "devices", "cpu"]) {
    const directory = cgroupDirectory(layout, controller, path);
    if (directory !== undefined && (layout.version === "2" || existsSync(directory))) return directory;
  }
  return `${[...layout.mounts.values()][0] ?? "/sys/fs/cgroup"}${path}`;
}

/**
 * Makes a parent group in every tree before any runtime runs: two runtimes that make it at the same time fail with
 * ENOENT now and then. On version 2 the controllers are enabled on the way down, as a child needs them there.
 */
export function makeCgroupParent(layout: CgroupLayout, path: string): void {
  for (const mount of new Set(layout.mounts.values())) {
    let directory = mount;
    for (const name of path.split("/").filter((part) => part !== "")) {
      if (layout.version === "2") enableControllers(directory);
      directory = `${directory}/${name}`;
      makeDirectory(directory, layout.version === "1");
    }
    if (layout.version === "2") enableControllers(directory);
  }
}

/** Whether a group is there in every tree. */
export function hasCgroup(layout: CgroupLayout, path: string): boolean {
  for (const mount of layout.mounts.values()) if (!existsSync(`${mount}${path}`)) return false;
  return true;
}

function makeDirectory(directory: string, v1: boolean): void {
  try {
    mkdirSync(directory);
  } catch (error) {
    if (errnoOf(error) === "EEXIST") return;
    throw error;
  }
  if (v1) inheritCpuset(directory);
}

/** A new version 1 cpuset group is empty and takes no process until it has processors and memory nodes. */
function inheritCpuset(directory: string): void {
  for (const file of ["cpuset.cpus", "cpuset.mems"]) {
    if (!existsSync(`${directory}/${file}`)) continue;
    const parent = readFileSync(`${directory}/../${file}`, "utf8").trim();
    if (parent !== "") writeFileSync(`${directory}/${file}`, parent);
  }
}

function enableControllers(directory: string): void {
  const available = readFileSync(`${directory}/cgroup.controllers`, "utf8").trim();
  for (const controller of available.split(/\s+/).filter((name) => name !== "")) {
    try {
      writeFileSync(`${directory}/cgroup.subtree_control`, `+${controller}`);
    } catch (error) {
      // EBUSY: processes sit in this very group (the root of a nested host); EINVAL: threaded or absent. It stays off.
      if (!["EBUSY", "EINVAL", "ENOENT", "EOPNOTSUPP"].includes(errnoOf(error) ?? "")) throw error;
    }
  }
}

/** Every process of a group and of the groups below it, in this pid namespace. */
export function readPids(layout: CgroupLayout, path: string): number[] {
  const pids: number[] = [];
  collectPids(anyDirectory(layout, path), pids, 0);
  return pids;
}

const nestingMax = 32;

// A container with a cgroup tree of its own (Docker in Docker) has its processes in groups below.
function collectPids(directory: string, pids: number[], depth: number): void {
  let entries: Dirent[];
  try {
    for (const line of readFileSync(`${directory}/cgroup.procs`, "latin1").split("\n")) {
      if (line !== "" && line !== "0") pids.push(Number(line));
    }
    entries = readdirSync(directory, { withFileTypes: true });
  } catch (error) {
    // Gone with its last process, or (EOPNOTSUPP) a threaded group whose processes its parent lists.
    if (["ENOENT", "ENODEV", "EOPNOTSUPP"].includes(errnoOf(error) ?? "")) return;
    throw error;
  }
  if (depth >= nestingMax) return;
  for (const entry of entries)
    if (entry.isDirectory()) collectPids(`${directory}/${entry.name}`, pids, depth + 1);
}

const freezePollMs = 2;
const freezeTimeoutMs = 10_000;

/** Freezes every task of the group; resolves when the kernel says that all are. A timeout thaws again and throws. */
export async function freezeCgroup(layout: CgroupLayout, path: string): Promise<void> {
  const deadline = performance.now() + freezeTimeoutMs;
  const frozen = layout.version === "2" ? freezeV2(layout, path) : freezeV1(layout, path);
  while (!frozen()) {
    if (performance.now() > deadline) {
      thawCgroup(layout, path);
      throw new EngineError("system", "unable to freeze: processes are in uninterruptible sleep");
    }
    await sleep(freezePollMs);
  }
}

function freezerDirectory(layout: CgroupLayout, path: string): string {
  const directory = cgroupDirectory(layout, "freezer", path);
  if (directory === undefined) throw new EngineError("system", "the host has no freezer cgroup");
  return directory;
}

const looksBetweenThaws = 25;

function freezeV1(layout: CgroupLayout, path: string): () => boolean {
  const file = `${freezerDirectory(layout, path)}/freezer.state`;
  let looks = 0;
  return () => {
    looks += 1;
    // A task that joined or forked during the freeze can hold it at FREEZING for good: let all run for a moment.
    if (looks % looksBetweenThaws === 0) {
      writeFileSync(file, "THAWED");
      return false;
    }
    writeFileSync(file, "FROZEN");
    return readFileSync(file, "latin1").trim() === "FROZEN";
  };
}

function freezeV2(layout: CgroupLayout, path: string): () => boolean {
  const directory = freezerDirectory(layout, path);
  writeFileSync(`${directory}/cgroup.freeze`, "1");
  return () => /^frozen 1$/m.test(readFileSync(`${directory}/cgroup.events`, "latin1"));
}

export function thawCgroup(layout: CgroupLayout, path: string): void {
  const directory = freezerDirectory(layout, path);
  if (layout.version === "2") writeFileSync(`${directory}/cgroup.freeze`, "0");
  else writeFileSync(`${directory}/freezer.state`, "THAWED");
}

export function isFrozen(layout: CgroupLayout, path: string): boolean {
  const directory = freezerDirectory(layout, path);
  try {
    if (layout.version === "2") return readFileSync(`${directory}/cgroup.freeze`, "latin1").trim() === "1";
    return readFileSync(`${directory}/freezer.state`, "latin1").trim() !== "THAWED";
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}

const killRounds = 100;
const killPollMs = 20;

/**
 * SIGKILL to everything in the group until it is empty or two seconds are over. Version 2 does it in the kernel;
 * version 1 freezes first, so that a fork bomb cannot outrun the list and no pid is used again before it is killed.
 */
export async function killCgroup(layout: CgroupLayout, path: string): Promise<void> {
  const directory = anyDirectory(layout, path);
  for (let round = 0; round < killRounds; round += 1) {
    if (layout.version === "2" && existsSync(`${directory}/cgroup.kill`)) {
      ignoringAbsence(() => writeFileSync(`${directory}/cgroup.kill`, "1"));
    } else {
      ignoringAbsence(() => writeFileSync(`${directory}/freezer.state`, "FROZEN"));
      for (const pid of readPids(layout, path)) killPid(pid);
    }
    ignoringAbsence(() => thawCgroup(layout, path));
    if (readPids(layout, path).length === 0) return;
    await sleep(killPollMs);
  }
}

function ignoringAbsence(action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!["ENOENT", "ENODEV"].includes(errnoOf(error) ?? "")) throw error;
  }
}

function killPid(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if (errnoOf(error) !== "ESRCH") throw error;
  }
}

/** Writes one control file; the kernel's refusal comes back as a `SyscallError`-like Node error with its errno. */
export function writeControl(
  layout: CgroupLayout,
  controller: string,
  path: string,
  file: string,
  value: string,
): void {
  const directory = cgroupDirectory(layout, controller, path);
  if (directory === undefined) throw new EngineError("system", `the host has no ${controller} cgroup`);
  writeFileSync(`${directory}/${file}`, value);
}

export function readControl(
  layout: CgroupLayout,
  controller: string,
  path: string,
  file: string,
): string | undefined {
  const directory = cgroupDirectory(layout, controller, path);
  if (directory === undefined) return undefined;
  try {
    return readFileSync(`${directory}/${file}`, "latin1").trim();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Removes parent groups from the innermost out, as far as they are empty. */
export function removeCgroupParent(layout: CgroupLayout, path: string): void {
  for (const mount of new Set(layout.mounts.values())) {
    for (let name = path; name !== "/" && name !== "" && name !== "."; name = dirname(name)) {
      try {
        rmdirSync(`${mount}${name}`);
      } catch (error) {
        if (["EBUSY", "ENOTEMPTY"].includes(errnoOf(error) ?? "")) break;
        if (errnoOf(error) !== "ENOENT") throw error;
      }
    }
  }
}
