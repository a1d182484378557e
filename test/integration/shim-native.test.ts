import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { statSync } from "node:fs";
import { join } from "node:path";
import { it } from "node:test";
import { nativeBinary } from "./shim-rig.ts";

it("the C tests pass under the address and undefined-behaviour sanitizers", { timeout: 120_000 }, () => {
  const native = join(import.meta.dirname, "../../native");
  const made = spawnSync("make", ["-s", "-C", native, "test"], { encoding: "utf8" });
  assert.equal(made.status, 0, made.stdout + made.stderr);
  for (const name of ["frame", "json-log", "stream"])
    assert.match(made.stdout, new RegExp(`^${name}: ok$`, "m"));
});

it("the native program stays small and static", () => {
  assert.ok(statSync(nativeBinary).size < 200 * 1024);
  const headers = spawnSync("readelf", ["-l", nativeBinary], { encoding: "utf8" }).stdout;
  assert.doesNotMatch(headers, /INTERP/);
});
