/** Use case: top. The columns of `ps` from /proc, without running `ps`. */
import { readFile } from "node:fs/promises";
import { EngineError, errnoOf } from "#base/errors.ts";
import type { Container } from "./container.ts";
import { type ContainerContext, containerEvent } from "./container-context.ts";
import { parsePsArgs } from "./top-args.ts";
import { type ProcessFacts, psColumns } from "./top-columns.ts";

export interface ProcessTable {
  readonly Titles: string[];
  readonly Processes: string[][];
}

/** Processes of a running container in the columns that `psArgs` asks for (`-ef` where it is empty). */
export async function topOfContainer(
  ctx: ContainerContext,
  container: Container,
  psArgs: string,
): Promise<ProcessTable> {
  const columns = parsePsArgs(psArgs === "" ? "-ef" : psArgs);
  if (container.sandbox === undefined || !container.isUp) {
    throw new EngineError("conflict", `container ${container.id} is not running`, { code: "not-running" });
  }
  if (container.state.status === "restarting") {
    throw new EngineError(
      "conflict",
      `container ${container.id} is restarting, wait until the container is running`,
      {
        code: "restarting",
      },
    );
  }
  const processes = await container.sandbox.processes();
  const host = await readHost();
  const facts = await Promise.all(processes.map(({ pid }) => readProcess(pid, host)));
  const rows = facts
    .filter((fact) => fact !== undefined)
    .sort((a, b) => a.pid - b.pid)
    .map((fact) => columns.map((column) => psColumns.get(column)!.value(fact)));
  containerEvent(ctx, container, "top");
  return { Titles: columns.map((column) => psColumns.get(column)!.title), Processes: rows };
}

interface Host {
  readonly bootS: number;
  readonly users: ReadonlyMap<number, string>;
  readonly memoryKb: number;
  readonly nowS: number;
}

async function readHost(): Promise<Host> {
  const [stat, passwd, meminfo] = await Promise.all([
    readFile("/proc/stat", "utf8"),
    readFile("/etc/passwd", "utf8").catch(() => ""),
    readFile("/proc/meminfo", "utf8"),
  ]);
  const users = new Map<number, string>();
  for (const line of passwd.split("\n")) {
    const [name, , uid] = line.split(":");
    if (name && uid && !users.has(Number(uid))) users.set(Number(uid), name);
  }
  return {
    bootS: Number(/^btime (\d+)$/m.exec(stat)?.[1] ?? 0),
    users,
    memoryKb: Number(/^MemTotal:\s+(\d+)/m.exec(meminfo)?.[1] ?? 1),
    nowS: Date.now() / 1000,
  };
}

/** Clock ticks of /proc: USER_HZ, 100 on every architecture that Linux runs containers on. */
const ticksPerSecond = 100;
const pageKb = 4;
const commandBytesMax = 4096;

/** What /proc says of one process, or undefined when it has gone meanwhile. */
async function readProcess(pid: number, host: Host): Promise<ProcessFacts | undefined> {
  try {
    const [stat, status, cmdline] = await Promise.all([
      readFile(`/proc/${pid}/stat`, "utf8"),
      readFile(`/proc/${pid}/status`, "utf8"),
      readFile(`/proc/${pid}/cmdline`),
    ]);
    const open = stat.indexOf("(");
    const close = stat.lastIndexOf(")");
    // Fields after the name, from the third on (proc_pid_stat(5)).
    const fields = stat.slice(close + 2).split(" ");
    const field = (number: number): number => Number(fields[number - 3] ?? 0);
    const [, ruid = "0", euid = "0"] = /^Uid:\s+(\d+)\s+(\d+)/m.exec(status) ?? [];
    const name = stat.slice(open + 1, close);
    const words = cmdline
      .subarray(0, commandBytesMax)
      .toString("utf8")
      .replace(/\0+$/, "")
      .replaceAll("\0", " ");
    const startedS = host.bootS + field(22) / ticksPerSecond;
    return {
      pid,
      parent: field(4),
      group: field(5),
      session: field(6),
      state: fields[0] ?? "?",
      ttyNumber: field(7),
      cpuS: (field(14) + field(15)) / ticksPerSecond,
      priority: field(18),
      nice: field(19),
      threads: field(20),
      startedS,
      ageS: Math.max(host.nowS - startedS, 0.01),
      virtualKb: Math.floor(field(23) / 1024),
      residentKb: field(24) * pageKb,
      memoryKb: host.memoryKb,
      user: host.users.get(Number(euid)) ?? euid,
      uid: Number(euid),
      realUser: host.users.get(Number(ruid)) ?? ruid,
      name,
      command: words === "" ? `[${name}]` : words,
    };
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOENT" || errno === "ESRCH") return undefined;
    throw error;
  }
}
