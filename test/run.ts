import { spawnSync } from "node:child_process";
import { existsSync, globSync } from "node:fs";
import { join } from "node:path";
import { run } from "node:test";
import { allowedSkips } from "./allowed-skips.ts";
import { leakReport, removeStaleCgroups, snapshotHost } from "./peers/leaks.ts";
import { provideDockerCli } from "./peers/peer-cache.ts";

/**
 * `npm test`: every test, and one closing line. `--prove` runs the loops at full size (SKIFF_PROVE=1);
 * `--only <text>` runs the files whose path holds the text.
 */
const root = join(import.meta.dirname, "..");
const prove = process.argv.includes("--prove");
const only = process.argv.includes("--only") ? process.argv[process.argv.indexOf("--only") + 1] : undefined;

if (process.getuid?.() !== 0) {
  console.error("skiff: npm test needs root (namespaces, mounts, cgroups); 'npm run ok' runs what does not");
  process.exit(1);
}
if (prove) process.env["SKIFF_PROVE"] = "1";

interface Outcome {
  passed: number;
  failed: string[];
  skipped: { name: string; why: string }[];
}

/** Of one file of tests, by its path; what is no file of tests stands under its own name. */
const outcomes = new Map<string, Outcome>();

function outcomeOf(file: string): Outcome {
  const known = outcomes.get(file);
  if (known !== undefined) return known;
  const fresh: Outcome = { passed: 0, failed: [], skipped: [] };
  outcomes.set(file, fresh);
  return fresh;
}

/** In CI at most so many files run a second time: more is no accident. */
const secondTries = 3;

function step(name: string, command: string, args: readonly string[]): void {
  const result = spawnSync(command, args, { cwd: root, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  if (result.status === 0) outcomeOf(name).passed += 1;
  else {
    outcomeOf(name).failed.push(name);
    console.log(`✖ ${name}\n${result.stdout}${result.stderr}`);
  }
}

async function runFiles(name: string, files: readonly string[], concurrency: number): Promise<void> {
  if (files.length === 0) return;
  const started = performance.now();
  const stream = run({
    files: files.map((file) => join(root, file)),
    concurrency,
    timeout: prove ? 3_600_000 : 300_000,
  });
  for await (const event of stream) {
    if (event.type === "test:pass" || event.type === "test:fail") record(event);
    else if (event.type === "test:stderr" && process.env["SKIFF_TEST_VERBOSE"] !== undefined) {
      process.stderr.write(event.data.message);
    }
  }
  console.log(`${name}: ${files.length} files, ${((performance.now() - started) / 1000).toFixed(0)} s`);
}

interface TestEvent {
  readonly type: "test:pass" | "test:fail";
  readonly data: {
    readonly name: string;
    readonly file?: string;
    readonly skip?: string | boolean;
    readonly todo?: string | boolean;
    readonly details: { readonly type?: string; readonly duration_ms: number; readonly error?: Error };
  };
}

function record(event: TestEvent): void {
  const { data } = event;
  const file = data.file === undefined ? "" : data.file.replace(`${root}/`, "");
  const label = `${file}: ${data.name}`;
  const outcome = outcomeOf(file);
  if (event.type === "test:fail") {
    if (data.details.type === "suite" && /subtests? failed/.test(String(data.details.error))) return;
    outcome.failed.push(label);
    const error = data.details.error;
    console.log(`✖ ${label} (${Math.round(data.details.duration_ms)} ms)\n${describe(error)}`);
    return;
  }
  if (data.skip !== undefined && data.skip !== false) {
    outcome.skipped.push({ name: label, why: typeof data.skip === "string" ? data.skip : "no reason given" });
    return;
  }
  if (data.details.type === "suite") return;
  outcome.passed += 1;
  if (data.details.duration_ms > 10_000)
    console.log(`  slow: ${label} ${(data.details.duration_ms / 1000).toFixed(1)} s`);
}

function describe(error: Error | undefined): string {
  const cause = error?.cause instanceof Error ? error.cause : error;
  return (cause?.stack ?? String(cause)).split("\n").slice(0, 25).join("\n");
}

function filesIn(pattern: string): string[] {
  const files = globSync(pattern, { cwd: root }).sort();
  return only === undefined ? files : files.filter((file) => file.includes(only));
}

/**
 * In CI a machine's other tenants can break a bound on time. A file that failed runs once more, alone; what passes only
 * then is named in the closing lines, since it is a fault all the same: of the test or of what it tests. Nobody's own
 * run and no `prove` does this. Returns the files that passed the second time.
 */
async function runFailedAgain(): Promise<string[]> {
  const failed = [...outcomes].filter(([, { failed }]) => failed.length > 0).map(([file]) => file);
  const again = failed.filter((file) => file.endsWith(".test.ts"));
  if (process.env["CI"] === undefined || prove || again.length < failed.length) return [];
  if (again.length === 0 || again.length > secondTries) return [];
  for (const file of again) outcomes.delete(file);
  await runFiles("once more, alone", again, 1);
  return again.filter((file) => outcomeOf(file).failed.length === 0);
}

async function main(): Promise<number> {
  const started = performance.now();
  removeStaleCgroups();
  provideDockerCli();
  const before = await snapshotHost();
  if (only === undefined) {
    step("format and lint (biome)", join(root, "node_modules/.bin/biome"), ["check", "."]);
    step("types (tsc)", join(root, "node_modules/.bin/tsc"), ["--noEmit"]);
    // Not by its own first line: the Node on PATH may be older than what knip needs.
    step("dead code (knip)", process.execPath, [
      join(root, "node_modules/knip/bin/knip.js"),
      "--no-progress",
    ]);
    if (existsSync(join(root, "native/test")))
      step("native tests under ASan and UBSan", "make", ["-s", "-C", "native", "test"]);
  }
  await runFiles(
    "unit",
    [...filesIn("test/house/*.test.ts"), ...filesIn("src/**/*.test.ts"), ...filesIn("packaging/*.test.ts")],
    2,
  );
  await runFiles("integration", filesIn("test/integration/*.test.ts"), 2);
  await runFiles("clients", filesIn("test/clients/*.test.ts"), 2);
  await runFiles("conformance", filesIn("test/conformance/*.test.ts"), 1);
  await runFiles("faults", filesIn("test/faults/*.test.ts"), 1);
  const unstable = await runFailedAgain();
  const leaks = await leakReport(before);
  if (leaks.length > 0) {
    outcomeOf("leak check").failed.push("leak check");
    console.log(`✖ leak check\n${leaks.join("\n")}`);
  } else outcomeOf("leak check").passed += 1;
  return closing((performance.now() - started) / 1000, unstable);
}

function closing(seconds: number, unstable: readonly string[]): number {
  const all = [...outcomes.values()];
  const skipped = all.flatMap((outcome) => outcome.skipped);
  const failed = all.flatMap((outcome) => outcome.failed);
  for (const { name, why } of skipped) {
    const allowed = allowedSkips.some((entry) => name.includes(entry.test));
    if (!allowed) failed.push(`skip that nobody reviewed: ${name}`);
    console.log(`  skipped: ${name}: ${why}${allowed ? "" : " (not in test/allowed-skips.ts)"}`);
  }
  for (const file of unstable) console.log(`  unstable: ${file} failed above and passed alone`);
  console.log(
    `took ${seconds.toFixed(0)} s${failed.length > 0 ? `; failed:\n  ${failed.join("\n  ")}` : ""}`,
  );
  const passed = all.reduce((sum, outcome) => sum + outcome.passed, 0);
  console.log(`${passed} passed, ${failed.length} failed, ${skipped.length} skipped`);
  return failed.length === 0 ? 0 : 1;
}

process.exit(await main());
