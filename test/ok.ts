import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";
import { join } from "node:path";

/** `npm run ok`: the contributor's loop, without root: format, lint, types, dead code, tidy and unit tests. */
const root = join(import.meta.dirname, "..");
const bin = (name: string): string => join(root, "node_modules/.bin", name);
const unit = [
  ...globSync("test/house/*.test.ts", { cwd: root }),
  ...globSync("src/**/*.test.ts", { cwd: root }),
  ...globSync("packaging/*.test.ts", { cwd: root }),
].sort();
const steps: readonly (readonly [string, string, readonly string[]])[] = [
  ["biome", bin("biome"), ["check", "."]],
  ["tsc", bin("tsc"), ["--noEmit"]],
  // Not by its own first line: the Node on PATH may be older than what knip needs.
  ["knip", process.execPath, [join(root, "node_modules/knip/bin/knip.js"), "--no-progress"]],
  ["unit tests", process.execPath, ["--test", "--test-reporter=dot", ...unit]],
];
for (const [name, command, args] of steps) {
  const started = performance.now();
  const result = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (result.status !== 0) {
    console.error(`not ok: ${name}`);
    process.exit(1);
  }
  console.log(`ok: ${name} (${((performance.now() - started) / 1000).toFixed(1)} s)`);
}
