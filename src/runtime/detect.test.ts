import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { silentLog } from "#base/log.ts";
import { detectRuntimes } from "./detect.ts";

const root = mkdtempSync(join(tmpdir(), "skiff-detect-"));
after(() => rmSync(root, { recursive: true }));

function program(name: string, version: string, more = ""): string {
  const path = join(root, name);
  writeFileSync(path, `#!/bin/sh\n# ${more}\necho '${version}'\n`);
  chmodSync(path, 0o755);
  return path;
}

test("configured runtimes take the place of found ones; the default comes first", async () => {
  const configured = [
    { name: "crun", path: program("a", "crun version 1.20", "run.oci.seccomp_bpf_data") },
    { name: "other", path: program("b", "youki version 0.3.0"), args: ["--x"] },
    { name: "old", path: program("c", "crun version 0.1") },
  ];
  const found = await detectRuntimes(configured, "other", silentLog);
  assert.deepEqual(
    [found[0]?.name, found[0]?.kind, found[0]?.version, found[0]?.args],
    ["other", "runc", "0.3.0", ["--x"]],
  );
  const byName = new Map(found.map((runtime) => [runtime.name, runtime]));
  assert.deepEqual([byName.get("crun")?.version, byName.get("crun")?.takesCompiledSeccomp], ["1.20", true]);
  // A crun that does not know the annotation would run without any filter.
  assert.equal(byName.get("old")?.takesCompiledSeccomp, false);
});

test("a default that is not there, and a configured runtime that does not work, are errors", async () => {
  const works = [{ name: "x", path: program("d", "runc version 1") }];
  await assert.rejects(detectRuntimes(works, "nope", silentLog), {
    message: "specified default runtime 'nope' does not exist",
  });
  await assert.rejects(detectRuntimes([{ name: "y", path: "/nope/runc" }], undefined, silentLog));
  await assert.rejects(
    detectRuntimes([{ name: "y", path: "no-such-runtime" }], undefined, silentLog),
    /runtime y: no-such-runtime not found/,
  );
});
