import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { commitRow, exportRow, saveLoadRow } from "./archive-rows.ts";
import { buildCopy, buildNoop, buildSteps } from "./build-rows.ts";
import { Client, image, prepare } from "./client.ts";
import { type Figures, interleave } from "./measure.ts";
import { memoryRow } from "./memory-row.ts";
import { pullBig, pullFive, pullMany } from "./pull-row.ts";
import { pushRow } from "./push-row.ts";
import { registryRow } from "./registry-row.ts";
import type { BenchSide } from "./sides.ts";

export interface Row {
  readonly name: string;
  readonly unit: string;
  /** Sides that take part; all when absent. */
  readonly sides?: (name: string) => boolean;
  run(
    sides: readonly BenchSide[],
    rounds: number | undefined,
    /** Sizes of SPEED.md, where the quick form has smaller ones. */
    full: boolean,
  ): Promise<Map<string, ReadonlyMap<string, Figures>>>;
}

/** The work is the same: an address on the bridge, the right output, and an exit code that arrives. */
function verifyNetwork(side: BenchSide): void {
  const shown = side.cli(
    "run",
    "--rm",
    image(side),
    "sh",
    "-c",
    "ip -4 addr show eth0 | grep -c inet; exit 3",
  );
  assert.equal(shown.status, 3, `${side.name}: ${shown.stderr}`);
  assert.equal(shown.stdout.trim(), "1", side.name);
}

async function oneStart(client: Client, side: BenchSide, network: string): Promise<number> {
  const from = performance.now();
  const id = await client.create({ Image: image(side), Cmd: ["true"], HostConfig: { NetworkMode: network } });
  await client.expect(204, "POST", `/containers/${id}/start`);
  const waited = JSON.parse(await client.expect(200, "POST", `/containers/${id}/wait`)) as {
    StatusCode: number;
  };
  assert.equal(waited.StatusCode, 0);
  await client.expect(204, "DELETE", `/containers/${id}`);
  return performance.now() - from;
}

async function startRow(
  sides: readonly BenchSide[],
  rounds: number,
  network: string,
  pauseMs: number,
): Promise<Map<string, Figures>> {
  prepare(sides);
  if (network === "bridge") for (const side of sides) verifyNetwork(side);
  const clients = new Map(sides.map((side) => [side.name, new Client(side.socket)]));
  const perRound = 5;
  const figures = await interleave(sides, rounds, async (side) => {
    const samples: number[] = [];
    for (let index = 0; index < perRound; index += 1) {
      if (pauseMs > 0) await sleep(pauseMs);
      samples.push(await oneStart(clients.get(side.name)!, side, network));
    }
    return samples;
  });
  for (const client of clients.values()) client.close();
  return figures;
}

async function execOnce(client: Client, id: string): Promise<number> {
  const from = performance.now();
  const created = await client.expect(201, "POST", `/containers/${id}/exec`, {
    Cmd: ["true"],
    AttachStdout: true,
    AttachStderr: true,
  });
  const execId = (JSON.parse(created) as { Id: string }).Id;
  await client.expect(200, "POST", `/exec/${execId}/start`, { Detach: false, Tty: false });
  const took = performance.now() - from;
  const shown = JSON.parse(await client.expect(200, "GET", `/exec/${execId}/json`)) as { ExitCode: number };
  assert.equal(shown.ExitCode, 0);
  return took;
}

async function withSleeper<T>(
  sides: readonly BenchSide[],
  body: (ids: Map<string, string>, clients: Map<string, Client>) => Promise<T>,
): Promise<T> {
  prepare(sides);
  const clients = new Map(sides.map((side) => [side.name, new Client(side.socket)]));
  const ids = new Map<string, string>();
  for (const side of sides) {
    const client = clients.get(side.name)!;
    const id = await client.create({
      Image: image(side),
      Cmd: ["sleep", "3600"],
      HostConfig: { NetworkMode: "none" },
    });
    await client.expect(204, "POST", `/containers/${id}/start`);
    ids.set(side.name, id);
  }
  try {
    return await body(ids, clients);
  } finally {
    for (const side of sides) {
      await clients.get(side.name)!.call("DELETE", `/containers/${ids.get(side.name)}?force=1`);
      clients.get(side.name)!.close();
    }
  }
}

const daemons = (name: string): boolean => name !== "podman";
const withoutCold = (name: string): boolean => !name.includes("cold");

/** Starts `count` containers that end on SIGTERM and times stopping and removing them all. */
async function stopAndRemove(side: BenchSide, client: Client, count: number): Promise<number> {
  const ids: string[] = [];
  for (let index = 0; index < count; index += 1) {
    const id = await client.create({
      Image: image(side),
      Cmd: ["sh", "-c", "trap 'exit 0' TERM; sleep 600 & wait"],
      HostConfig: { NetworkMode: "bridge" },
    });
    await client.expect(204, "POST", `/containers/${id}/start`);
    ids.push(id);
  }
  await sleep(300);
  const from = performance.now();
  for (const id of ids) {
    await client.expect(204, "POST", `/containers/${id}/stop?t=10`);
    await client.expect(204, "DELETE", `/containers/${id}`);
  }
  return performance.now() - from;
}

/** Flushes (fsync, fdatasync, sync_file_range, syncfs, msync) of all the engine's processes for a container's whole life, by strace. */
async function flushesRow(sides: readonly BenchSide[]): Promise<Map<string, ReadonlyMap<string, Figures>>> {
  prepare(sides);
  const result = new Map<string, Figures>();
  const count = 20;
  for (const side of sides) {
    const client = new Client(side.socket);
    await oneStart(client, side, "bridge");
    const folder = mkdtempSync(join(tmpdir(), "skiff-strace-"));
    const output = join(folder, "trace");
    const args = [
      "-f",
      "-qq",
      "-o",
      output,
      "-e",
      "trace=fsync,fdatasync,sync_file_range,syncfs,sync,msync",
      "-e",
      "signal=none",
    ];
    for (const pid of side.enginePids()) args.push("-p", String(pid));
    const strace: ChildProcess = spawn("strace", args, { stdio: ["ignore", "ignore", "inherit"] });
    await sleep(1500);
    for (let index = 0; index < count; index += 1) await oneStart(client, side, "bridge");
    await sleep(500);
    const ended = new Promise((resolve) => strace.once("exit", resolve));
    strace.kill("SIGTERM");
    await ended;
    const flushes = readFileSync(output, "utf8")
      .split("\n")
      .filter((line) => /\b(fsync|fdatasync|sync_file_range|syncfs|sync|msync)\(/.test(line)).length;
    rmSync(folder, { recursive: true });
    const each = flushes / count;
    result.set(side.name, { median: each, p95: each, min: each, cpuMs: 0, count });
    client.close();
  }
  return new Map([["flushes a container", result]]);
}

function timed(action: () => void): number {
  const from = performance.now();
  action();
  return performance.now() - from;
}

/** Images in and out, and builds: seconds each, side by side. */
const imageRows: readonly Row[] = (
  [
    ["pull-big", pullBig],
    ["pull-many", pullMany],
    ["push", pushRow],
    ["build-noop", buildNoop],
    ["build-steps", buildSteps],
    ["build-copy", buildCopy],
    ["save-load", saveLoadRow],
    ["commit", commitRow],
    ["export", exportRow],
  ] as const
).map(([name, run]) => ({
  name,
  unit: "s",
  sides: withoutCold,
  run: (sides, rounds = 3, full) => run(sides, rounds, full),
}));

export const rows: readonly Row[] = [
  {
    name: "run-cli",
    unit: "ms",
    run: async (sides, rounds = 20) => {
      prepare(sides);
      for (const side of sides) verifyNetwork(side);
      const figures = await interleave(sides, rounds, async (side) =>
        timed(() => assert.equal(side.cli("run", "--rm", image(side), "true").status, 0)),
      );
      return new Map([["run-cli", figures]]);
    },
  },
  {
    name: "start-api",
    unit: "ms",
    run: async (sides, rounds = 10) =>
      new Map([
        ["start-api", await startRow(sides, rounds, "bridge", 0)],
        ["start-api paced", await startRow(sides, rounds, "bridge", 40)],
      ]),
  },
  {
    name: "start-none",
    unit: "ms",
    sides: withoutCold,
    run: async (sides, rounds = 10) =>
      new Map([
        ["start-none", await startRow(sides, rounds, "none", 0)],
        ["start-none paced", await startRow(sides, rounds, "none", 40)],
      ]),
  },
  {
    name: "exec",
    unit: "ms",
    sides: withoutCold,
    run: (sides, rounds = 20) =>
      withSleeper(sides, async (ids, clients) => {
        const api = await interleave(sides, rounds, async (side) => {
          const samples: number[] = [];
          for (let index = 0; index < 5; index += 1)
            samples.push(await execOnce(clients.get(side.name)!, ids.get(side.name)!));
          return samples;
        });
        const cli = await interleave(sides, rounds, async (side) =>
          timed(() => assert.equal(side.cli("exec", ids.get(side.name)!, "true").status, 0)),
        );
        return new Map([
          ["exec api", api],
          ["exec cli", cli],
        ]);
      }),
  },
  {
    name: "pull-5",
    unit: "s",
    sides: withoutCold,
    run: (sides, rounds = 3) => pullFive(sides, rounds),
  },
  ...imageRows,
  {
    name: "registry",
    unit: "ms",
    sides: (name) => daemons(name) && withoutCold(name),
    run: (sides, rounds = 5) => registryRow(sides, rounds),
  },
  {
    name: "stop-rm",
    unit: "ms",
    sides: withoutCold,
    run: async (sides, wanted = 2) => {
      // Fifty containers on each side are a minute of work.
      const rounds = Math.min(wanted, 2);
      prepare(sides);
      const clients = new Map(sides.map((side) => [side.name, new Client(side.socket)]));
      const figures = await interleave(sides, rounds, (side) =>
        stopAndRemove(side, clients.get(side.name)!, 50),
      );
      for (const client of clients.values()) client.close();
      return new Map([["stop-rm (50)", figures]]);
    },
  },
  {
    name: "memory",
    unit: "MB",
    sides: (name) => daemons(name) && withoutCold(name),
    run: (sides) => memoryRow(sides),
  },
  {
    name: "flushes",
    unit: "",
    sides: (name) => daemons(name) && withoutCold(name),
    run: (sides) => flushesRow(sides),
  },
];
