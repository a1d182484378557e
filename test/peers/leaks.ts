import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, readlinkSync, rmdirSync } from "node:fs";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/**
 * The leak check: what Skiff makes on a host (mounts, namespaces, links, cgroups, nft tables, native helpers, run
 * files), listed before and after. A suite passes only when nothing was added.
 */
export type HostState = ReadonlyMap<string, ReadonlySet<string>>;

function lines(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}

function run(command: string, args: readonly string[]): string {
  return execFileSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
}

function mounts(): string[] {
  return lines(readFileSync("/proc/self/mountinfo", "utf8")).map((line) => line.split(" ")[4] ?? "");
}

function links(): string[] {
  return readdirSync("/sys/class/net");
}

function nftTables(): string[] {
  try {
    return lines(run("nft", ["list", "tables"]));
  } catch {
    return [];
  }
}

const cgroupRoot = "/sys/fs/cgroup";

function foldersIn(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => join(folder, entry.name));
  } catch {
    return []; // Cgroups come and go.
  }
}

function cgroups(): string[] {
  const found: string[] = [];
  const walk = (folder: string, depth: number): void => {
    if (depth === 0) return;
    for (const path of foldersIn(folder)) {
      if (basename(path).includes("skiff")) found.push(path);
      walk(path, depth - 1);
    }
  };
  walk(cgroupRoot, 4);
  return found;
}

/** `<path>` in every hierarchy, and in the root where the host has the unified one alone. */
function cgroupFolders(path: string): string[] {
  return [cgroupRoot, ...foldersIn(cgroupRoot)]
    .map((hierarchy) => join(hierarchy, path))
    .filter((folder) => existsSync(folder));
}

/** Removes a cgroup and those below it where no process is in them. */
export function removeCgroups(path: string): void {
  const remove = (folder: string): void => {
    for (const child of foldersIn(folder)) remove(child);
    try {
      rmdirSync(folder);
    } catch {
      // A process is in it: what is left is the leak check's to tell.
    }
  };
  for (const folder of cgroupFolders(path)) remove(folder);
}

/**
 * Removes the cgroups of tests that were killed: those named after a folder in /tmp that is gone, or after a process that
 * is. Others may be at work beside us.
 */
export function removeStaleCgroups(): void {
  const homes = new Set(readdirSync("/tmp").map((name) => name.split("-").at(-1)));
  for (const path of cgroups()) {
    const name = basename(path);
    const peer = /^skiff-(?:peer|test-runtime)-(\d+)(?:-shims)?$/.exec(name)?.[1];
    const suffix = /^skiff-(?:test|lab)-(?:.*-)?([A-Za-z0-9]{6})$/.exec(name)?.[1];
    const stale =
      peer === undefined ? suffix !== undefined && !homes.has(suffix) : !existsSync(`/proc/${peer}`);
    if (stale) removeCgroups(`/${name}`);
  }
}

interface ProcessEntry {
  readonly pid: string;
  readonly command: string;
}

function processes(): ProcessEntry[] {
  const found: ProcessEntry[] = [];
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
      if (command !== "") found.push({ pid, command });
    } catch {
      // It ended meanwhile.
    }
  }
  return found;
}

function helpers(): string[] {
  return processes()
    .filter(({ command }) => /skiff-native|skiffd|daemon\/main\.ts|skiff-shim/.test(command))
    .map(({ pid, command }) => `${pid} ${command.slice(0, 120)}`);
}

function netNamespaces(): string[] {
  const found = new Set<string>();
  for (const { pid } of processes()) {
    try {
      found.add(readlinkSync(`/proc/${pid}/ns/net`));
    } catch {
      // It ended meanwhile.
    }
  }
  return [...found];
}

function temporaries(): string[] {
  return readdirSync("/tmp").filter((name) => name.startsWith("skiff-"));
}

export async function snapshotHost(): Promise<HostState> {
  return new Map<string, ReadonlySet<string>>([
    ["mount", new Set(mounts())],
    ["link", new Set(links())],
    ["nft table", new Set(nftTables())],
    ["cgroup", new Set(cgroups())],
    ["process", new Set(helpers())],
    ["network namespace", new Set(netNamespaces())],
    ["temporary folder", new Set(temporaries())],
  ]);
}

/** What is there now and was not before; waits up to `settleMs`, since namespaces and cgroups go a little after their last process. */
export async function leakReport(before: HostState, settleMs = 15_000): Promise<string[]> {
  const deadline = performance.now() + settleMs;
  for (;;) {
    const now = await snapshotHost();
    const leaks: string[] = [];
    for (const [kind, entries] of now) {
      const known = before.get(kind) ?? new Set<string>();
      for (const entry of entries) if (!known.has(entry)) leaks.push(`${kind} left over: ${entry}`);
    }
    if (leaks.length === 0 || performance.now() > deadline) return leaks;
    await sleep(100);
  }
}

/** A daemon of a test, by what the names of its kernel objects derive from. */
export interface DaemonIdentity {
  /** Holds its roots, its sockets, everything of it. */
  readonly home: string;
  readonly dataRoot: string;
  readonly cgroupParent: string;
  /** Processes that it started: pid and start time, see `childrenOf`. */
  readonly children: readonly string[];
}

/** `<pid> <start time>`, which no later process can have; undefined when there is none. */
function processKey(pid: number | string): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    // proc(5): field 3 is the state, field 22 the start time.
    return fields[0] === "Z" ? undefined : `${pid} ${fields[19]}`;
  } catch {
    return undefined;
  }
}

/** The helpers that a process has started, for `DaemonIdentity`. */
export function childrenOf(pid: number): string[] {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ");
    return children.flatMap((child) => processKey(child) ?? []);
  } catch {
    return [];
  }
}

/** Shims, launchers and runtimes: whoever names the home or holds something in it. */
function processesOf({ home, children }: DaemonIdentity): string[] {
  const isOwn = (pid: string, command: string): boolean => {
    if (children.includes(processKey(pid) ?? "")) return true;
    if (!/skiff|crun|runc/.test(command)) return false;
    if (command.includes(`${home}/`)) return true;
    try {
      const held = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
      return held.some((path) => path.startsWith(`${home}/`));
    } catch {
      return false; // It ended meanwhile.
    }
  };
  return processes()
    .filter(({ pid, command }) => Number(pid) !== process.pid && isOwn(pid, command))
    .map(({ pid, command }) => `${pid} ${command.slice(0, 120)}`);
}

/**
 * What one daemon has in the kernel: for after its stop, when all of it must be gone. Says nothing about the daemons of
 * other tests that run at the same time.
 */
export function objectsOf(identity: DaemonIdentity): string[] {
  const hash = createHash("sha256").update(`skiff network ${identity.dataRoot}`).digest("hex");
  const name = `skiff-${hash.slice(0, 8)}`;
  const link = new RegExp(`^(${name}|sk${hash.slice(0, 5)}[0-9a-f]{8})$`);
  return [
    ...mounts()
      .filter((path) => path.startsWith(`${identity.home}/`))
      .map((path) => `mount ${path}`),
    ...links()
      .filter((entry) => link.test(entry))
      .map((entry) => `link ${entry}`),
    ...nftTables()
      .filter((entry) => entry.endsWith(` ${name}`))
      .map((entry) => `nft ${entry}`),
    ...cgroupFolders(identity.cgroupParent).map((path) => `cgroup ${path}`),
    ...processesOf(identity).map((entry) => `process ${entry}`),
  ];
}

/** `objectsOf` when it is empty or has not become so within `settleMs`. */
export async function objectsLeft(identity: DaemonIdentity, settleMs = 15_000): Promise<string[]> {
  const deadline = performance.now() + settleMs;
  for (;;) {
    const found = objectsOf(identity);
    if (found.length === 0 || performance.now() > deadline) return found;
    await sleep(50);
  }
}
