import { readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { errnoOf } from "#base/errors.ts";

/**
 * What a shim that was killed leaves behind: the container's processes and cgroups, the runtime's state, its files in
 * the run directory. Its mounts went with it, or go with the last process. The shim itself does this in native/cgroup.c.
 */
export interface ShimRemains {
  readonly shimPid: number;
  readonly cgroupPath: string;
  readonly runtimeRoot: string;
}

interface Hierarchy {
  readonly mountPoint: string;
  readonly unified: boolean;
  readonly freezer: boolean;
}

/** What the report of a lost container waits for; a slow init of the host may take longer to reap. */
const killTimeoutMs = 1500;
const lateKillTimeoutMs = 30_000;

const shimFiles = [
  "shim.sock",
  "console.sock",
  "container.pid",
  "runtime.log",
  "runtime.err",
  "shim.info",
] as const;

/** Reads `<runDir>/shim.info`, which every shim writes before anything else; undefined when there was none. */
export async function readRemains(runDir: string): Promise<ShimRemains | undefined> {
  let text: string;
  try {
    text = await readFile(join(runDir, "shim.info"), "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return undefined;
    throw error;
  }
  const value = (name: string): string | undefined => new RegExp(`^${name} (.+)$`, "m").exec(text)?.[1];
  const cgroupPath = value("cgroupPath");
  const runtimeRoot = value("runtimeRoot");
  if (!text.startsWith("skiff-shim 1\n") || cgroupPath === undefined || runtimeRoot === undefined)
    return undefined;
  return { shimPid: Number(value("shimPid") ?? 0), cgroupPath, runtimeRoot };
}

/** proc(5), mountinfo: the cgroup mounts of the host, v1 and v2. */
export function cgroupHierarchies(mountinfo: string): Hierarchy[] {
  const found = new Map<string, Hierarchy>();
  for (const line of mountinfo.split("\n")) {
    const [before, after] = line.split(" - ");
    const type = after?.split(" ")[0];
    if (before === undefined || after === undefined || (type !== "cgroup" && type !== "cgroup2")) continue;
    const mountPoint = before.split(" ")[4] ?? "";
    const options = (after.split(" ")[2] ?? "").split(",");
    found.set(mountPoint, { mountPoint, unified: type === "cgroup2", freezer: options.includes("freezer") });
  }
  return [...found.values()];
}

/** The folder itself and everything below it, children first. */
function folders(folder: string, depth = 32): string[] {
  let entries: string[];
  try {
    entries = readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch {
    return [];
  }
  const below = depth === 0 ? [] : entries.flatMap((name) => folders(join(folder, name), depth - 1));
  return [...below, folder];
}

/** A file of a cgroup that may vanish meanwhile or that this kernel does not have. */
function writeIfThere(path: string, text: string): void {
  try {
    writeFileSync(path, text, { flag: "r+" });
  } catch {
    // No such file, or its cgroup has just gone.
  }
}

function killMembers(folder: string): number {
  let text: string;
  try {
    text = readFileSync(join(folder, "cgroup.procs"), "utf8");
  } catch {
    return 0;
  }
  let count = 0;
  for (const line of text.split("\n")) {
    const pid = Number(line);
    if (!Number.isInteger(pid) || pid <= 1) continue;
    try {
      process.kill(pid, "SIGKILL");
      count += 1;
    } catch {
      // It has just ended.
    }
  }
  return count;
}

function removeFolders(all: readonly string[]): boolean {
  let gone = true;
  for (const folder of all) {
    try {
      rmdirSync(folder);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") gone = false;
    }
  }
  return gone;
}

/**
 * SIGKILL to every process of a cgroup, and the cgroup removed, in every hierarchy. Frozen while it is killed, so that a
 * fork bomb does not outrun the loop. Returns false when something is still there after `timeoutMs`.
 */
export async function killCgroup(cgroupPath: string, timeoutMs = killTimeoutMs): Promise<boolean> {
  const hierarchies = cgroupHierarchies(readFileSync("/proc/self/mountinfo", "utf8"));
  const deadline = performance.now() + timeoutMs;
  for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 2, 50)) {
    let gone = true;
    for (const { mountPoint, unified, freezer } of hierarchies) {
      const top = join(mountPoint, cgroupPath);
      const all = folders(top);
      if (all.length === 0) continue;
      if (unified) writeIfThere(join(top, "cgroup.kill"), "1");
      if (freezer) writeIfThere(join(top, "freezer.state"), "FROZEN");
      for (const folder of all) killMembers(folder);
      if (freezer) writeIfThere(join(top, "freezer.state"), "THAWED");
      if (!removeFolders(all)) gone = false;
    }
    if (gone) return true;
    if (performance.now() > deadline) return false;
    await sleep(pauseMs, undefined, { ref: false });
  }
}

/**
 * Kills and removes all that a killed shim left. `id` is the container's, the runtime's name for it. Every process has
 * SIGKILL when this returns; cgroups that are not empty by then are removed later, and `survived` is called when they
 * cannot be.
 */
export async function clearRemains(
  id: string,
  runDir: string,
  remains: ShimRemains,
  survived: () => void,
): Promise<void> {
  if (!(await killCgroup(remains.cgroupPath))) {
    void killCgroup(remains.cgroupPath, lateKillTimeoutMs).then((gone) => {
      if (!gone) survived();
    });
  }
  rmSync(join(remains.runtimeRoot, id), { recursive: true, force: true });
  for (const name of shimFiles) rmSync(join(runDir, name), { force: true });
  try {
    rmdirSync(join(runDir, "rootfs"));
  } catch {
    // Not made yet, or the caller has removed the run directory.
  }
}
