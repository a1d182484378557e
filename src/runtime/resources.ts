import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { type CgroupLayout, readControl, writeControl } from "#sys/cgroup.ts";
import { parseCpuList } from "#sys/hostinfo.ts";
import type { OciDeviceRule, OciResources } from "#wire/oci-runtime.ts";
import type { Resources } from "./runtime.ts";

/** What this host's cgroups can limit; asked once when the daemon starts. */
export interface ResourceSupport {
  readonly memory: boolean;
  readonly swap: boolean;
  readonly swappiness: boolean;
  readonly memoryReservation: boolean;
  readonly oomKillDisable: boolean;
  readonly cpuShares: boolean;
  readonly cpuQuota: boolean;
  readonly cpuset: boolean;
  readonly availableCpus: string;
  readonly availableMems: string;
  readonly pids: boolean;
  readonly blkioWeight: boolean;
}

/** `parent`: a group below the root that exists, since a root group has no limits of its own. */
export function probeResourceSupport(layout: CgroupLayout, parent: string): ResourceSupport {
  const has = (controller: string, file: string): boolean =>
    readControl(layout, controller, parent, file) !== undefined;
  const v2 = layout.version === "2";
  const controller = (name: string): boolean => layout.controllers.has(name);
  const cpus = readControl(layout, "cpuset", "", v2 ? "cpuset.cpus.effective" : "cpuset.cpus");
  const mems = readControl(layout, "cpuset", "", v2 ? "cpuset.mems.effective" : "cpuset.mems");
  return {
    memory: controller("memory"),
    swap: v2 ? has("memory", "memory.swap.max") : has("memory", "memory.memsw.limit_in_bytes"),
    swappiness: !v2 && has("memory", "memory.swappiness"),
    memoryReservation: v2 ? controller("memory") : has("memory", "memory.soft_limit_in_bytes"),
    oomKillDisable: !v2 && has("memory", "memory.oom_control"),
    cpuShares: controller("cpu"),
    cpuQuota: v2 ? controller("cpu") : has("cpu", "cpu.cfs_quota_us"),
    cpuset: controller("cpuset"),
    availableCpus: cpus ?? "",
    availableMems: mems ?? "",
    pids: controller("pids"),
    blkioWeight: v2
      ? has("io", "io.weight") || has("io", "io.bfq.weight")
      : has("blkio", "blkio.weight") || has("blkio", "blkio.bfq.weight"),
  };
}

function invalid(message: string): EngineError {
  return new EngineError("invalid", message, { code: "resources" });
}

function given(value: number | undefined): value is number {
  return value !== undefined && value !== 0;
}

function checkMemory(asked: Resources): void {
  const memory = asked.memoryBytes ?? 0;
  const swap = asked.memorySwapBytes ?? 0;
  const reservation = asked.memoryReservationBytes ?? 0;
  if (memory !== 0 && memory < limits.containerMemoryBytesMin)
    throw invalid("Minimum memory limit allowed is 6MB");
  if (memory > 0 && swap > 0 && swap < memory) {
    throw invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
  }
  if (memory === 0 && swap > 0) {
    throw invalid("You should always set the Memory limit when using Memoryswap limit, see usage");
  }
  const swappiness = asked.memorySwappiness;
  if (swappiness !== undefined && (swappiness < -1 || swappiness > 100)) {
    throw invalid(`Invalid value: ${swappiness}, valid memory swappiness range is 0-100`);
  }
  if (reservation !== 0 && reservation < limits.containerMemoryBytesMin) {
    throw invalid("Minimum memory reservation allowed is 6MB");
  }
  if (memory > 0 && reservation > 0 && memory < reservation) {
    throw invalid("Minimum memory limit can not be less than memory reservation limit, see usage");
  }
}

function checkSet(kind: "cpus" | "mems", asked: string, available: string): void {
  const wanted = parseCpuList(asked);
  if (wanted === undefined) throw invalid(`Invalid value ${asked} for cpuset ${kind}`);
  const usable = new Set(parseCpuList(available) ?? []);
  if (!wanted.every((number) => usable.has(number))) {
    const what = kind === "cpus" ? "CPUs" : "memory nodes";
    throw invalid(`Requested ${what} are not available - requested ${asked}, available: ${available}`);
  }
}

function checkCpu(asked: Resources, support: ResourceSupport): void {
  const period = asked.cpuPeriodUs ?? 0;
  if (period !== 0 && (period < 1000 || period > 1_000_000)) {
    throw invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
  }
  const quota = asked.cpuQuotaUs ?? 0;
  if (quota > 0 && quota < 1000) throw invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
  if ((asked.cpuShares ?? 0) < 0) throw invalid(`shares: invalid value ${asked.cpuShares}`);
  if (support.cpuset && asked.cpusetCpus) checkSet("cpus", asked.cpusetCpus, support.availableCpus);
  if (support.cpuset && asked.cpusetMems) checkSet("mems", asked.cpusetMems, support.availableMems);
  const weight = asked.blkioWeight ?? 0;
  if (weight !== 0 && (weight < 10 || weight > 1000))
    throw invalid("Range of blkio weight is from 10 to 1000");
}

/** Throws `invalid` in Docker's words for values that can never work; warnings for those this host cannot honour. */
export function checkResources(asked: Resources, support: ResourceSupport): string[] {
  checkMemory(asked);
  checkCpu(asked, support);
  const warnings: string[] = [];
  const lacks = (wanted: boolean, supported: boolean, message: string): void => {
    if (wanted && !supported) warnings.push(message);
  };
  const capability = (what: string): string =>
    `Your kernel does not support ${what} capabilities or the cgroup is not mounted.`;
  lacks(given(asked.memoryBytes), support.memory, `${capability("memory limit")} Limitation discarded.`);
  lacks(
    given(asked.memoryBytes) && asked.memorySwapBytes !== -1,
    support.swap || !support.memory,
    `${capability("swap limit")} Memory limited without swap.`,
  );
  lacks(
    asked.memorySwappiness !== undefined && asked.memorySwappiness !== -1,
    support.swappiness,
    "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
  );
  lacks(
    given(asked.memoryReservationBytes),
    support.memoryReservation,
    `${capability("memory soft limit")} Limitation discarded.`,
  );
  lacks(
    asked.oomKillDisable === true,
    support.oomKillDisable,
    "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
  );
  if (asked.oomKillDisable === true && support.oomKillDisable && !given(asked.memoryBytes)) {
    warnings.push(
      "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.",
    );
  }
  lacks(
    given(asked.cpuShares),
    support.cpuShares,
    "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
  );
  lacks(
    given(asked.cpuQuotaUs) || given(asked.cpuPeriodUs),
    support.cpuQuota,
    "Your kernel does not support CPU CFS scheduler or the cgroup is not mounted. Quota discarded.",
  );
  lacks(
    Boolean(asked.cpusetCpus || asked.cpusetMems),
    support.cpuset,
    "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.",
  );
  lacks(
    given(asked.pidsMax),
    support.pids,
    "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
  );
  lacks(
    given(asked.blkioWeight),
    support.blkioWeight,
    "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
  );
  return warnings;
}

/** Docker gives as much swap as memory when only memory is limited. */
function swapTotal(asked: Resources): number | undefined {
  if (given(asked.memorySwapBytes)) return asked.memorySwapBytes;
  return given(asked.memoryBytes) && asked.memoryBytes > 0 ? asked.memoryBytes * 2 : undefined;
}

function present<K extends string, V>(key: K, value: V | undefined | false): { [P in K]?: V } {
  return value === undefined || value === false ? {} : ({ [key]: value } as { [P in K]?: V });
}

function section<K extends string, V extends object>(key: K, value: V): { [P in K]?: V } {
  return Object.keys(value).length === 0 ? {} : ({ [key]: value } as { [P in K]?: V });
}

function memorySection(asked: Resources, support: ResourceSupport): NonNullable<OciResources["memory"]> {
  if (!support.memory) return {};
  const swappiness = asked.memorySwappiness;
  return {
    ...present("limit", given(asked.memoryBytes) && asked.memoryBytes),
    ...present("reservation", given(asked.memoryReservationBytes) && asked.memoryReservationBytes),
    ...present("swap", support.swap ? swapTotal(asked) : undefined),
    ...present("swappiness", support.swappiness && swappiness !== -1 ? swappiness : undefined),
    ...present("disableOOMKiller", support.oomKillDisable && asked.oomKillDisable === true),
  };
}

function cpuSection(asked: Resources, support: ResourceSupport): NonNullable<OciResources["cpu"]> {
  return {
    ...present("shares", support.cpuShares && given(asked.cpuShares) && asked.cpuShares),
    ...present("quota", support.cpuQuota && given(asked.cpuQuotaUs) && asked.cpuQuotaUs),
    ...present("period", support.cpuQuota && given(asked.cpuPeriodUs) && asked.cpuPeriodUs),
    ...present("cpus", support.cpuset && asked.cpusetCpus ? asked.cpusetCpus : undefined),
    ...present("mems", support.cpuset && asked.cpusetMems ? asked.cpusetMems : undefined),
  };
}

/** The spec's `linux.resources`. What the host cannot do is left out: `checkResources` warned about it. */
export function ociResources(
  asked: Resources,
  support: ResourceSupport,
  devices: readonly OciDeviceRule[],
): OciResources {
  return {
    devices,
    ...section("memory", memorySection(asked, support)),
    ...section("cpu", cpuSection(asked, support)),
    ...present("pids", support.pids && given(asked.pidsMax) && { limit: asked.pidsMax }),
    ...present("blockIO", support.blkioWeight && given(asked.blkioWeight) && { weight: asked.blkioWeight }),
  };
}

export type ControlWrite = readonly [controller: string, file: string, value: string];

function writesV1(asked: Resources, support: ResourceSupport, currentMemory: number): ControlWrite[] {
  const writes: ControlWrite[] = [];
  const { limit, reservation, swap, swappiness, disableOOMKiller } = memorySection(asked, support);
  const setLimit: ControlWrite[] =
    limit === undefined ? [] : [["memory", "memory.limit_in_bytes", String(limit)]];
  const setSwap: ControlWrite[] =
    swap === undefined ? [] : [["memory", "memory.memsw.limit_in_bytes", String(swap)]];
  // Swap (the sum) must never be below memory, not for a moment: raise it first, lower it last.
  const raising = swap === -1 || (swap !== undefined && swap > currentMemory);
  writes.push(...(raising ? [...setSwap, ...setLimit] : [...setLimit, ...setSwap]));
  if (reservation !== undefined) writes.push(["memory", "memory.soft_limit_in_bytes", String(reservation)]);
  if (swappiness !== undefined) writes.push(["memory", "memory.swappiness", String(swappiness)]);
  if (disableOOMKiller !== undefined) writes.push(["memory", "memory.oom_control", "1"]);
  const { shares, quota, period, cpus, mems } = cpuSection(asked, support);
  if (shares !== undefined) writes.push(["cpu", "cpu.shares", String(shares)]);
  if (period !== undefined) writes.push(["cpu", "cpu.cfs_period_us", String(period)]);
  if (quota !== undefined) writes.push(["cpu", "cpu.cfs_quota_us", String(quota)]);
  if (cpus !== undefined) writes.push(["cpuset", "cpuset.cpus", cpus]);
  if (mems !== undefined) writes.push(["cpuset", "cpuset.mems", mems]);
  if (support.pids && given(asked.pidsMax)) writes.push(["pids", "pids.max", pidsText(asked.pidsMax)]);
  if (support.blkioWeight && given(asked.blkioWeight))
    writes.push(["blkio", "blkio.weight", String(asked.blkioWeight)]);
  return writes;
}

function pidsText(max: number): string {
  return max < 0 ? "max" : String(max);
}

/** The runtimes' conversions: shares 2…262,144 onto weight 1…10,000; blkio weight 10…1,000 likewise. */
export function cpuWeight(shares: number): number {
  return 1 + Math.floor(((Math.max(2, Math.min(262_144, shares)) - 2) * 9999) / 262_142);
}

function writesV2(asked: Resources, support: ResourceSupport): ControlWrite[] {
  const writes: ControlWrite[] = [];
  const { limit, reservation, swap } = memorySection(asked, support);
  if (swap !== undefined) {
    const value = swap === -1 ? "max" : String(Math.max(0, swap - (limit ?? 0)));
    writes.push(["memory", "memory.swap.max", value]);
  }
  if (limit !== undefined) writes.push(["memory", "memory.max", limit < 0 ? "max" : String(limit)]);
  if (reservation !== undefined) writes.push(["memory", "memory.low", String(reservation)]);
  const { shares, quota, period, cpus, mems } = cpuSection(asked, support);
  if (shares !== undefined) writes.push(["cpu", "cpu.weight", String(cpuWeight(shares))]);
  if (quota !== undefined || period !== undefined) {
    const quotaText = quota === undefined || quota < 0 ? "max" : String(quota);
    writes.push(["cpu", "cpu.max", `${quotaText} ${period ?? 100_000}`]);
  }
  if (cpus !== undefined) writes.push(["cpuset", "cpuset.cpus", cpus]);
  if (mems !== undefined) writes.push(["cpuset", "cpuset.mems", mems]);
  if (support.pids && given(asked.pidsMax)) writes.push(["pids", "pids.max", pidsText(asked.pidsMax)]);
  if (support.blkioWeight && given(asked.blkioWeight)) {
    const weight = 1 + Math.floor(((asked.blkioWeight - 10) * 9999) / 990);
    writes.push(["io", "io.weight", `default ${weight}`]);
  }
  return writes;
}

/** Control files to write for a running container, in order. `currentMemoryBytes`: its limit now (version 1). */
export function updateWrites(
  asked: Resources,
  support: ResourceSupport,
  version: "1" | "2",
  currentMemoryBytes: number,
): readonly ControlWrite[] {
  return version === "1" ? writesV1(asked, support, currentMemoryBytes) : writesV2(asked, support);
}

/**
 * Changes a running container's limits and returns what was written. Throws `invalid` for bad values, the kernel's error
 * where it refuses.
 */
export function applyResources(
  layout: CgroupLayout,
  cgroupPath: string,
  asked: Resources,
  support: ResourceSupport,
): readonly ControlWrite[] {
  checkResources(asked, support);
  const current = Number(readControl(layout, "memory", cgroupPath, "memory.limit_in_bytes") ?? "0");
  const writes = updateWrites(asked, support, layout.version, current);
  for (const [controller, file, value] of writes) writeControl(layout, controller, cgroupPath, file, value);
  return writes;
}
