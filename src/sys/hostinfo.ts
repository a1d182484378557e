import { existsSync, readdirSync, readFileSync } from "node:fs";
import { arch, release } from "node:os";

/** Facts about this process and this kernel that do not change while the daemon lives: read once at its start. */

export interface RlimitPair {
  readonly soft: number;
  readonly hard: number;
}

export interface HostInfo {
  /** Capabilities that this process has and may pass on: effective and in the bounding set. */
  readonly capabilities: bigint;
  /** `major * 1000 + minor` of the kernel release: comparable. */
  readonly kernelVersion: number;
  readonly architecture: string;
  readonly oomScoreAdj: number;
  /** By Docker's names (`nofile`); `Infinity` for unlimited. */
  readonly rlimits: ReadonlyMap<string, RlimitPair>;
  readonly seccomp: boolean;
  readonly apparmor: boolean;
  /** `/sys/devices/system/cpu/cpu<n>/thermal_throttle`, where there are any. */
  readonly thermalThrottlePaths: readonly string[];
  readonly cpuCount: number;
}

const rlimitNames: Readonly<Record<string, string>> = {
  "Max cpu time": "cpu",
  "Max file size": "fsize",
  "Max data size": "data",
  "Max stack size": "stack",
  "Max core file size": "core",
  "Max resident set": "rss",
  "Max processes": "nproc",
  "Max open files": "nofile",
  "Max locked memory": "memlock",
  "Max address space": "as",
  "Max file locks": "locks",
  "Max pending signals": "sigpending",
  "Max msgqueue size": "msgqueue",
  "Max nice priority": "nice",
  "Max realtime priority": "rtprio",
  "Max realtime timeout": "rttime",
};

/** The limits of `/proc/<pid>/limits`, by Docker's names. */
export function parseRlimits(text: string): Map<string, RlimitPair> {
  const limits = new Map<string, RlimitPair>();
  const number = (field: string): number => (field === "unlimited" ? Infinity : Number(field));
  for (const line of text.split("\n")) {
    const match = /^(Max [a-z ]+?)\s{2,}(\S+)\s+(\S+)/.exec(line);
    const name = match === null ? undefined : rlimitNames[match[1]!];
    if (match !== null && name !== undefined)
      limits.set(name, { soft: number(match[2]!), hard: number(match[3]!) });
  }
  return limits;
}

function hexField(status: string, field: string): bigint {
  const match = new RegExp(`^${field}:\\s*([0-9a-f]+)$`, "m").exec(status);
  return match === null ? 0n : BigInt(`0x${match[1]}`);
}

function readOr(path: string, otherwise: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return otherwise;
  }
}

function thermalThrottlePaths(): string[] {
  const base = "/sys/devices/system/cpu";
  try {
    return readdirSync(base)
      .filter((name) => /^cpu\d+$/.test(name))
      .map((name) => `${base}/${name}/thermal_throttle`)
      .filter((path) => existsSync(path));
  } catch {
    return [];
  }
}

/** `6.18.5-cloud` → 6018. */
export function kernelVersionNumber(text: string): number {
  const match = /^(\d+)\.(\d+)/.exec(text);
  return match === null ? 0 : Number(match[1]) * 1000 + Number(match[2]);
}

export function readHostInfo(): HostInfo {
  const status = readFileSync("/proc/self/status", "latin1");
  const cpus = new Set<number>();
  const list = /^Cpus_allowed_list:\s*(.*)$/m.exec(status)?.[1] ?? "0";
  for (const cpu of parseCpuList(readOr("/sys/devices/system/cpu/online", list).trim()) ?? [0]) cpus.add(cpu);
  return {
    capabilities: hexField(status, "CapEff") & hexField(status, "CapBnd"),
    kernelVersion: kernelVersionNumber(release()),
    architecture: arch(),
    oomScoreAdj: Number(readOr("/proc/self/oom_score_adj", "0").trim()),
    rlimits: parseRlimits(readOr("/proc/self/limits", "")),
    seccomp: /^Seccomp:/m.test(status),
    apparmor: readOr("/sys/module/apparmor/parameters/enabled", "N").startsWith("Y"),
    thermalThrottlePaths: thermalThrottlePaths(),
    cpuCount: cpus.size,
  };
}

/** The kernel's list format (`0-3,7`): the numbers, or undefined when it is not one. At most 8,192 of them. */
export function parseCpuList(text: string): number[] | undefined {
  const numbers: number[] = [];
  for (const part of text.split(",")) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part.trim());
    if (match === null) return undefined;
    const first = Number(match[1]);
    const last = match[2] === undefined ? first : Number(match[2]);
    if (last < first || numbers.length + last - first >= 8192) return undefined;
    for (let number = first; number <= last; number += 1) numbers.push(number);
  }
  return numbers;
}
