import assert from "node:assert/strict";
import { test } from "node:test";
import { applyModeChanges, parseModeChanges } from "./mode-change.ts";

/** Text, mode before, of a directory, mode after: as chmod(1) does it. */
const cases: readonly (readonly [string, number, boolean, number])[] = [
  ["u=rwX,go=rX", 0o666, false, 0o644],
  ["u=rwX,go=rX", 0o700, false, 0o755],
  ["u=rwX,go=rX", 0o700, true, 0o755],
  ["a+x", 0o644, false, 0o755],
  ["+x", 0o644, false, 0o755],
  ["o-rwx", 0o755, false, 0o750],
  ["g=", 0o777, false, 0o707],
  ["u+s,g+s,+t", 0o755, false, 0o7755],
  ["u-s", 0o4755, false, 0o755],
  ["ug=rw", 0o111, false, 0o661],
  ["u=r+x-r", 0o777, false, 0o177],
  ["a-x,a+X", 0o755, false, 0o644],
  ["a-x,a+X", 0o755, true, 0o755],
];

test("symbolic modes are those of chmod(1)", () => {
  for (const [text, before, isDirectory, expected] of cases)
    assert.equal(
      applyModeChanges(before, isDirectory, parseModeChanges(text) ?? []).toString(8),
      expected.toString(8),
      text,
    );
});

test("what is no symbolic mode is none", () => {
  for (const text of ["", "u", "rwx", "u=q", "u+", "u=r,", ",u=r", "b=r", "0644", "u==r-", "u=r w"])
    assert.equal(parseModeChanges(text), undefined, text);
});
