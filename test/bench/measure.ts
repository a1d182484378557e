import { readFileSync } from "node:fs";

/** Milliseconds of one sample. */
export type Sample = number;

export interface Figures {
  readonly median: number;
  readonly p95: number;
  readonly min: number;
  readonly cpuMs: number;
  readonly count: number;
}

export function median(samples: readonly number[]): number {
  return percentile(samples, 50);
}

export function percentile(samples: readonly number[], percent: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor((sorted.length * percent) / 100))] ?? Number.NaN;
}

/** Busy CPU milliseconds of the whole machine since boot: daemons, shims, runtimes and kernel threads all count. */
export function machineCpuMs(): number {
  const fields = readFileSync("/proc/stat", "utf8").split("\n")[0]!.trim().split(/\s+/).slice(1).map(Number);
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = fields;
  return (user + nice + system + irq + softirq) * 10;
}

/** Samples of several sides taken in turn (A B C A B C …), so that a drift of the machine meets all alike. */
export async function interleave<Side extends { readonly name: string }>(
  sides: readonly Side[],
  rounds: number,
  once: (side: Side, round: number) => Promise<Sample | Sample[]>,
): Promise<Map<string, Figures>> {
  const samples = new Map<string, number[]>();
  const cpu = new Map<string, number>();
  for (let round = -1; round < rounds; round += 1) {
    for (const side of sides) {
      const before = machineCpuMs();
      const result = await once(side, round);
      const spent = machineCpuMs() - before;
      // The first round warms page cache, pools and code of all sides.
      if (round < 0) continue;
      const list = Array.isArray(result) ? result : [result];
      samples.set(side.name, [...(samples.get(side.name) ?? []), ...list]);
      cpu.set(side.name, (cpu.get(side.name) ?? 0) + spent);
    }
  }
  return new Map(
    [...samples].map(([name, list]) => [
      name,
      {
        median: median(list),
        p95: percentile(list, 95),
        min: Math.min(...list),
        cpuMs: (cpu.get(name) ?? 0) / list.length,
        count: list.length,
      },
    ]),
  );
}

/** Proportional set size of processes in KiB, and what of it is private. */
export function memoryKib(pids: readonly number[]): { pss: number; private: number } {
  let pss = 0;
  let own = 0;
  for (const pid of pids) {
    try {
      const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
      const field = (name: string): number =>
        Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1] ?? 0);
      pss += field("Pss");
      own += field("Private_Dirty") + field("Private_Clean");
    } catch {
      // It ended meanwhile.
    }
  }
  return { pss, private: own };
}

/**
 * Memory of processes in KiB as if nothing else ran the same programs: what is their own, and of each file's pages the
 * most that one of them has mapped.
 */
export function aloneKib(pids: readonly number[]): number {
  let anonymous = 0;
  const files = new Map<string, number>();
  for (const pid of pids) {
    const own = new Map<string, number>();
    let file = "";
    for (const line of smapsLines(pid)) {
      const head = /^[0-9a-f]+-[0-9a-f]+ \S+ \S+ (\S+ \d+)/.exec(line);
      if (head !== null) file = head[1]!;
      const [, name = "", text = ""] = /^(Rss|Anonymous):\s+(\d+)/.exec(line) ?? [];
      if (name === "Rss") own.set(file, (own.get(file) ?? 0) + Number(text));
      if (name === "Anonymous") {
        anonymous += Number(text);
        own.set(file, (own.get(file) ?? 0) - Number(text));
      }
    }
    for (const [name, kib] of own) files.set(name, Math.max(files.get(name) ?? 0, kib));
  }
  return anonymous + [...files.values()].reduce((sum, kib) => sum + kib, 0);
}

function smapsLines(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/smaps`, "utf8").split("\n");
  } catch {
    return [];
  }
}

/** What the kernel holds and cannot give back, in KiB: unreclaimable slab, stacks, page tables, per-CPU memory. */
export function kernelKib(): number {
  const text = readFileSync("/proc/meminfo", "utf8");
  const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1] ?? 0);
  return ["SUnreclaim", "KernelStack", "PageTables", "Percpu"].reduce((sum, name) => sum + field(name), 0);
}
