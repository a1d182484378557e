import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { ControlWrite } from "./resources.ts";

const timeoutMs = 10_000;

/**
 * Properties of a unit (systemd.resource-control(5)) that say the same as these writes to version 2 control files. systemd
 * writes what it knows of a scope anew when it is reloaded: what is only in the files would be lost then.
 */
export function unitProperties(writes: readonly ControlWrite[]): string[] {
  return writes.flatMap(([, file, value]) => {
    const amount = value === "max" ? "infinity" : value;
    switch (file) {
      case "memory.max":
        return `MemoryMax=${amount}`;
      case "memory.swap.max":
        return `MemorySwapMax=${amount}`;
      case "memory.low":
        return `MemoryLow=${amount}`;
      case "pids.max":
        return `TasksMax=${amount}`;
      case "cpu.weight":
        return `CPUWeight=${value}`;
      case "cpu.max":
        return cpuQuota(value);
      case "cpuset.cpus":
        return `AllowedCPUs=${value}`;
      case "cpuset.mems":
        return `AllowedMemoryNodes=${value}`;
      case "io.weight":
        return `IOWeight=${value.replace("default ", "")}`;
      default:
        return [];
    }
  });
}

/** `quota period` in microseconds; systemd counts in hundredths of a percent. */
function cpuQuota(value: string): string[] {
  const [quota = "max", period = "100000"] = value.split(" ");
  if (quota === "max") return ["CPUQuota="];
  const percent = ((Number(quota) / Number(period)) * 100).toFixed(2);
  return [`CPUQuota=${percent}%`, `CPUQuotaPeriodSec=${period}us`];
}

/**
 * Tells systemd, until the unit ends: drop-ins of a transient unit go with it. The one thing of a request that spawns,
 * for an update of a running container under the systemd driver.
 */
export async function setUnitProperties(unit: string, properties: readonly string[]): Promise<void> {
  if (properties.length === 0) return;
  await promisify(execFile)("systemctl", ["set-property", "--runtime", "--", unit, ...properties], {
    timeout: timeoutMs,
    env: { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
  });
}
