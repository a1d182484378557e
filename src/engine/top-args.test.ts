import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePsArgs } from "./top-args.ts";
import { psColumns } from "./top-columns.ts";

const spellings: [string, string][] = [
  ["-ef", "UID PID PPID C STIME TTY TIME CMD"],
  ["aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"],
  ["-o pid,comm", "PID COMMAND"],
  ["-eo pid,args", "PID COMMAND"],
  ["-opid,ppid", "PID PPID"],
  ["axo user,pid,cmd", "USER PID CMD"],
];

for (const [text, titles] of spellings) {
  test(`ps ${text}`, () => {
    const columns = parsePsArgs(text).map((name) => psColumns.get(name)!.title);
    assert.equal(columns.join(" "), titles);
  });
}

test("what is not supported is refused, and a list needs the pid", () => {
  for (const bad of ["--sort=x", "-L", "-o nope", "-o", "-ef; rm"]) {
    assert.throws(() => parsePsArgs(bad), { kind: "invalid" }, bad);
  }
  assert.throws(() => parsePsArgs("-o comm"), { message: "Couldn't find PID field in ps output" });
});
