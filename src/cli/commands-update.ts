import { containerPart } from "#sdk/path-part.ts";
import { atLeast, type Command, ExitError } from "./command.ts";
import type { CliContext } from "./context.ts";
import { errorText } from "./error-text.ts";
import { bytes, bytesOrUnlimited, decimal, integer, string, uint16 } from "./flag-types.ts";
import { type Flags, flag } from "./flags.ts";
import { restartPolicy } from "./security-option.ts";

/** API names by flag. */
const fields: Readonly<Record<string, string>> = {
  "blkio-weight": "BlkioWeight",
  "cpu-period": "CpuPeriod",
  "cpu-quota": "CpuQuota",
  "cpu-rt-period": "CpuRealtimePeriod",
  "cpu-rt-runtime": "CpuRealtimeRuntime",
  "cpu-shares": "CpuShares",
  cpus: "NanoCpus",
  "kernel-memory": "KernelMemory",
  memory: "Memory",
  "memory-reservation": "MemoryReservation",
  "memory-swap": "MemorySwap",
  "pids-limit": "PidsLimit",
};

export const update: Command = {
  usage: "[OPTIONS] CONTAINER [CONTAINER...]",
  flags: [
    flag("blkio-weight", uint16, "Weight of block IO, 10 to 1000, or 0 for none", { shown: "0" }),
    flag("cpu-period", integer, "Period of the CPU scheduler in microseconds"),
    flag("cpu-quota", integer, "Microseconds of CPU in a period"),
    flag("cpu-rt-period", integer, "Period of the real-time scheduler in microseconds"),
    flag("cpu-rt-runtime", integer, "Real-time microseconds in a period"),
    flag("c,cpu-shares", integer, "Weight in CPU contention"),
    flag("cpus", decimal, "Number of CPUs"),
    flag("cpuset-cpus", string, "CPUs to run on (0-3, 0,1)"),
    flag("cpuset-mems", string, "Memory nodes to use (0-3, 0,1)"),
    flag("kernel-memory", bytes, "", { hidden: true }),
    flag("m,memory", bytes, "Limit of memory"),
    flag("memory-reservation", bytes, "Memory to fall back to under pressure"),
    flag("memory-swap", bytesOrUnlimited, "Limit of memory and swap together; -1 for no limit"),
    flag("pids-limit", integer, "Limit of processes (-1 for none)"),
    flag("restart", string, "What to do when the container exits"),
  ],
  args: atLeast(1),
  run: runUpdate,
};

async function runUpdate(context: CliContext, flags: Flags, names: readonly string[]): Promise<number> {
  const body: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(fields))
    if (flags.changed(name)) body[field] = flags.number(name);
  if (flags.changed("cpuset-cpus")) body["CpusetCpus"] = flags.text("cpuset-cpus");
  if (flags.changed("cpuset-mems")) body["CpusetMems"] = flags.text("cpuset-mems");
  if (flags.changed("restart")) body["RestartPolicy"] = restartPolicy(flags.text("restart"));
  if (Object.keys(body).length === 0)
    throw new ExitError(1, "you must provide one or more flags when using this command");
  const warnings: string[] = [];
  const failures: string[] = [];
  for (const name of names) {
    try {
      const result = await context.client.json<{ Warnings: string[] | null }>(
        "POST",
        `/containers/${containerPart(name)}/update`,
        { json: body },
      );
      context.print(name);
      warnings.push(...(result.Warnings ?? []));
    } catch (error) {
      failures.push(errorText(error));
    }
  }
  if (warnings.length > 0) context.print(warnings.join("\n"));
  if (failures.length > 0) throw new ExitError(1, failures.join("\n"));
  return 0;
}
