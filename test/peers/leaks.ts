import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
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

function cgroups(): string[] {
  const found: string[] = [];
  const walk = (folder: string, depth: number): void => {
    if (depth === 0) return;
    let entries: string[];
    try {
      entries = readdirSync(folder, { withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .map((entry) => entry.name);
    } catch {
      return;
    }
    for (const entry of entries) {
      const path = join(folder, entry);
      if (entry.includes("skiff")) found.push(path);
      walk(path, depth - 1);
    }
  };
  walk("/sys/fs/cgroup", 4);
  return found;
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
export async function leakReport(before: HostState, settleMs = 5000): Promise<string[]> {
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
