import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

/** Runs `script` against a fresh database under strace and counts the flushes between its two marks. */
function flushesOf(script: string): number {
  const directory = mkdtempSync(join(tmpdir(), "skiff-flush-"));
  try {
    const source = `
      import { writeSync } from "node:fs";
      import { openDatabase } from "#state/sqlite-database.ts";
      import { silentLog } from "#base/log.ts";
      const database = await openDatabase(${JSON.stringify(join(directory, "state.db"))}, { log: silentLog });
      const put = (key, durable) =>
        database.commit([{ sql: "INSERT INTO meta VALUES (?, 'v')", params: [key] }], { durable });
      await put("warm", true);
      writeSync(1, "mark-begin");
      ${script}
      writeSync(1, "mark-end");
      await database[Symbol.asyncDispose]();`;
    const trace = join(directory, "trace");
    const run = spawnSync(
      "strace",
      [
        "-f",
        "-o",
        trace,
        "-e",
        "trace=fsync,fdatasync,sync_file_range,syncfs,write",
        process.execPath,
        "--input-type=module-typescript",
        "-e",
        source,
      ],
      { encoding: "utf8", cwd: join(import.meta.dirname, "../..") },
    );
    assert.equal(run.status, 0, run.stderr);
    const lines = spawnSync("cat", [trace], { encoding: "utf8", maxBuffer: 1 << 28 }).stdout;
    const between = lines.slice(lines.indexOf("mark-begin"), lines.indexOf("mark-end"));
    assert.ok(between.length > 0, "both marks are in the trace");
    return between.split("\n").filter((line) => /\b(fsync|fdatasync|syncfs|sync_file_range)\(/.test(line))
      .length;
  } finally {
    rmSync(directory, { recursive: true });
  }
}

test("a durable commit costs exactly one flush", () => {
  assert.equal(flushesOf(`for (let i = 0; i < 10; i += 1) await put("k" + i, true);`), 10);
});

test("a commit that is not durable costs none", () => {
  assert.equal(flushesOf(`for (let i = 0; i < 10; i += 1) await put("k" + i, false);`), 0);
});

test("commits that wait together share a flush", () => {
  const flushes = flushesOf(`await Promise.all(Array.from({ length: 100 }, (_, i) => put("k" + i, true)));`);
  assert.ok(flushes >= 1 && flushes <= 20, `100 commits at once took ${flushes} flushes`);
});

test("a durable commit makes the earlier ones that were not durable so with the same flush", () => {
  assert.equal(flushesOf(`await put("a", false); await put("b", false); await put("c", true);`), 1);
});
