import { performance } from "node:perf_hooks";
import { provideDockerCli } from "../peers/peer-cache.ts";
import { freePort } from "../peers/registry.ts";
import { installBundle } from "./bundle.ts";
import { onOwnDisk } from "./disk.ts";
import { verifyDurable } from "./durability.ts";
import { goals } from "./goals.ts";
import type { Figures } from "./measure.ts";
import { rows } from "./rows.ts";
import { type BenchSide, dockerdSide, podmanSide, skiffSide } from "./sides.ts";

/**
 * `npm run bench -- [rows…] [--rounds N] [--no-podman] [--full]`: Skiff against Debian's dockerd and podman, each in a network
 * namespace of its own, interleaved in one run, the same verified work on every side.
 */
const options = process.argv.slice(2);
const roundsAt = options.indexOf("--rounds");
const rounds = roundsAt < 0 ? undefined : Number(options[roundsAt + 1]);
const full = options.includes("--full");
const names = options.filter(
  (option, index) => !option.startsWith("--") && (roundsAt < 0 || index !== roundsAt + 1),
);
const chosen = names.length === 0 ? rows : rows.filter((row) => names.includes(row.name));
const unknown = names.filter((name) => !rows.some((row) => row.name === name));
if (unknown.length > 0) {
  console.error(`bench: no row ${unknown.join(", ")}; there are: ${rows.map((row) => row.name).join(" ")}`);
  process.exit(2);
}

function print(row: string, figures: ReadonlyMap<string, Figures>, unit: string): void {
  const width = Math.max(...[...figures.keys()].map((name) => name.length), 10);
  const ours = figures.get("skiff");
  for (const [name, figure] of figures) {
    const ratio =
      name === "skiff" || ours === undefined
        ? ""
        : `skiff is ${(ours.median / figure.median).toFixed(3)} of it`;
    const cells = [
      row.padEnd(22),
      name.padEnd(width),
      `median ${figure.median.toFixed(2)} ${unit}`.padEnd(20),
      `p95 ${figure.p95.toFixed(2)}`.padEnd(14),
      `min ${figure.min.toFixed(2)}`.padEnd(14),
      `cpu ${figure.cpuMs.toFixed(1)} ms`.padEnd(14),
      `n ${figure.count}`.padEnd(7),
      ratio,
    ];
    console.log(cells.join("  "));
  }
  printGoal(row, figures);
}

/** Goals met and missed, for the exit status. */
const judged = { met: 0, missed: [] as string[] };

function printGoal(row: string, figures: ReadonlyMap<string, Figures>): void {
  const goal = goals.get(row);
  if (goal === undefined) return;
  judge(row, figures, goal.max, goal.of);
  for (const [peer, max] of Object.entries(goal.alsoMax ?? {})) judge(row, figures, max, peer);
}

function judge(
  row: string,
  figures: ReadonlyMap<string, Figures>,
  max: number,
  peerName: string | undefined,
): void {
  const ours = figures.get("skiff");
  const peer = peerName === undefined ? undefined : figures.get(peerName);
  if (ours === undefined || (peerName !== undefined && peer === undefined)) return;
  const value = peer === undefined ? ours.median : ours.median / peer.median;
  const met = value <= max;
  const against = peerName === undefined ? "" : ` of ${peerName}`;
  if (met) judged.met += 1;
  else judged.missed.push(`${row}${against}`);
  console.log(
    `${"".padEnd(22)}  goal: at most ${max}${against}: ${value.toFixed(3)}, ${met ? "met" : "MISSED"}`,
  );
}

async function main(): Promise<void> {
  await using stack = new AsyncDisposableStack();
  provideDockerCli();
  for (const signal of ["SIGINT", "SIGTERM"] as const)
    process.once(signal, () => void stack.disposeAsync().finally(() => process.exit(1)));
  const port = await freePort();
  const bundle = installBundle();
  stack.defer(() => bundle.remove());
  const skiff = stack.use(await onOwnDisk(() => skiffSide(port, "skiff", [], bundle.skiffd)));
  const dockerd = stack.use(await onOwnDisk(() => dockerdSide(port)));
  const sides: BenchSide[] = [skiff, dockerd];
  if (!options.includes("--no-podman")) sides.push(stack.use(await onOwnDisk(() => podmanSide(port))));
  const coldName = "skiff cold pool";
  if (chosen.some((row) => row.sides?.(coldName) ?? true)) {
    const coldPool = ["--network-pool-size", "0"];
    sides.push(stack.use(await onOwnDisk(() => skiffSide(port, coldName, coldPool, bundle.skiffd))));
  }
  if (chosen.some((row) => row.name.startsWith("start-"))) {
    await using victim = await onOwnDisk(() => skiffSide(port, "skiff", [], bundle.skiffd));
    for (const side of [victim, dockerd]) await verifyDurable(side);
  }
  const started = performance.now();
  for (const row of chosen) {
    const use = sides.filter((side) => row.sides?.(side.name) ?? true);
    for (const [label, figures] of await row.run(use, rounds, full)) print(label, figures, row.unit);
  }
  console.log(
    `goals: ${judged.met} met, ${judged.missed.length} missed${judged.missed.map((row) => ` [${row}]`).join("")}`,
  );
  console.log(`took ${((performance.now() - started) / 1000).toFixed(0)} s`);
}

await main();
