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

const outcome: Outcome = { passed: 0, failed: [], skipped: [] };

function step(name: string, command: string, args: readonly string[]): void {
  const result = spawnSync(command, args, { cwd: root, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  if (result.status === 0) outcome.passed += 1;
  else {
    outcome.failed.push(name);
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
  const leaks = await leakReport(before);
  if (leaks.length > 0) {
    outcome.failed.push("leak check");
    console.log(`✖ leak check\n${leaks.join("\n")}`);
  } else outcome.passed += 1;

  for (const { name, why } of outcome.skipped) {
    const allowed = allowedSkips.some((entry) => name.includes(entry.test));
    if (!allowed) outcome.failed.push(`skip that nobody reviewed: ${name}`);
    console.log(`  skipped: ${name}: ${why}${allowed ? "" : " (not in test/allowed-skips.ts)"}`);
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  console.log(
    `took ${seconds} s${outcome.failed.length > 0 ? `; failed:\n  ${outcome.failed.join("\n  ")}` : ""}`,
  );
  console.log(`${outcome.passed} passed, ${outcome.failed.length} failed, ${outcome.skipped.length} skipped`);
  return outcome.failed.length === 0 ? 0 : 1;
}

process.exit(await main());
