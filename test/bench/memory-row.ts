import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Client, image, prepare } from "./client.ts";
import { aloneKib, type Figures, kernelKib, median, memoryKib } from "./measure.ts";
import type { BenchSide } from "./sides.ts";

/** After a burst an engine gets this long to come to rest. */
const restMs = 25_000;
const containers = 50;
const startsBefore = 100;
/** The kernel's counters belong to the whole machine: the middle of three rounds leaves out what others did. */
const containerRounds = 3;

const one = (value: number): Figures => ({ median: value, p95: value, min: value, cpuMs: 0, count: 1 });

interface Cost {
  readonly engine: number;
  readonly all: number;
}

/**
 * Memory in MB. `idle`: PSS of the engine's own processes at rest after a pull, an exec and a hundred starts. `as if
 * alone`: the same with every page of a program or library counted whole, since the machine may run a second instance
 * that shares them. `a container`: PSS of what is started for each (shims, the workload itself) and what the kernel
 * allocates and cannot give back (slab, stacks, page tables, per-CPU), over fifty bridged `sleep`s; `engine part`: PSS
 * of the processes that are not the workload.
 */
export async function memoryRow(
  sides: readonly BenchSide[],
): Promise<Map<string, ReadonlyMap<string, Figures>>> {
  prepare(sides);
  const clients = new Map(sides.map((side) => [side, new Client(side.socket)]));
  for (const [side, client] of clients) await exercise(side, client);
  await sleep(restMs);
  const idle = new Map(sides.map((side) => [side.name, one(memoryKib(side.enginePids()).pss / 1024)]));
  const alone = new Map(sides.map((side) => [side.name, one(aloneKib(side.enginePids()) / 1024)]));
  const all = new Map<string, Figures>();
  const engine = new Map<string, Figures>();
  for (const [side, client] of clients) {
    const costs: Cost[] = [];
    for (let round = 0; round < containerRounds; round += 1) costs.push(await costOfContainer(side, client));
    all.set(side.name, one(median(costs.map((cost) => cost.all))));
    engine.set(side.name, one(median(costs.map((cost) => cost.engine))));
    client.close();
  }
  return new Map([
    ["memory idle", idle],
    ["memory idle as if alone", alone],
    ["memory a container", all],
    ["memory engine part", engine],
  ]);
}

/** A pull was done by `prepare`; an exec and a hundred starts. */
async function exercise(side: BenchSide, client: Client): Promise<void> {
  const sleeper = await client.create({ Image: image(side), Cmd: ["sleep", "600"] });
  await client.expect(204, "POST", `/containers/${sleeper}/start`);
  const created = await client.expect(201, "POST", `/containers/${sleeper}/exec`, {
    Cmd: ["true"],
    AttachStdout: true,
  });
  await client.expect(200, "POST", `/exec/${(JSON.parse(created) as { Id: string }).Id}/start`, {});
  await client.expect(204, "DELETE", `/containers/${sleeper}?force=1`);
  for (let index = 0; index < startsBefore; index += 1) {
    const id = await client.create({ Image: image(side), Cmd: ["true"] });
    await client.expect(204, "POST", `/containers/${id}/start`);
    await client.expect(200, "POST", `/containers/${id}/wait`);
    await client.expect(204, "DELETE", `/containers/${id}`);
  }
}

async function costOfContainer(side: BenchSide, client: Client): Promise<Cost> {
  const known = new Set(allPids());
  const before = kernelKib();
  const ids: string[] = [];
  for (let index = 0; index < containers; index += 1) {
    const id = await client.create({ Image: image(side), Cmd: ["sleep", "3600"] });
    await client.expect(204, "POST", `/containers/${id}/start`);
    ids.push(id);
  }
  await sleep(3000);
  const kernel = kernelKib() - before;
  const own = new Set(side.enginePids());
  const made = allPids().filter((pid) => !known.has(pid) && !own.has(pid));
  const workload = made.filter(isWorkload);
  const shims = made.filter((pid) => !isWorkload(pid) && belongs(pid, side));
  const shimsKib = memoryKib(shims).pss;
  const allKib = shimsKib + memoryKib(workload).pss + kernel;
  for (const id of ids) await client.expect(204, "DELETE", `/containers/${id}?force=1`);
  await sleep(3000);
  return { engine: shimsKib / 1024 / containers, all: allKib / 1024 / containers };
}

function allPids(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}

function isWorkload(pid: number): boolean {
  return commandLine(pid).split("\0", 2).join(" ") === "sleep 3600";
}

/** Not a kernel thread, and nothing that another program of the machine started meanwhile. */
function belongs(pid: number, side: BenchSide): boolean {
  return side.containerProcess.test(commandLine(pid));
}
