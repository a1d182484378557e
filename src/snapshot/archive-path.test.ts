import assert from "node:assert/strict";
import { posix } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { bytesOfText } from "#base/byte-string.ts";
import { baseOf, cleanPath, parentOf, whiteoutOf } from "./archive-path.ts";

const clean = (path: string): string => cleanPath(bytesOfText(path));

test("paths are cleaned as Docker cleans them", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["a/b", "a/b"],
    ["./a/b/", "a/b"],
    ["/a", "a"],
    ["//a//b//", "a/b"],
    ["a/../b", "b"],
    ["a/./b/..", "a"],
    ["/../../a", "a"],
    ["", ""],
    [".", ""],
    ["./", ""],
    ["/", ""],
    ["a/..", ""],
    ["...", "..."],
    ["..a/b..", "..a/b.."],
  ];
  for (const [path, expected] of cases) assert.equal(clean(path), expected, path);
  for (const path of ["..", "../a", "a/../../b", "./../x", "a/../.."]) {
    assert.throws(() => clean(path), { code: "archive-breakout" }, path);
  }
});

test("cleaning agrees with path.normalize, and never leaves the root", () => {
  const path = fc
    .array(fc.constantFrom("..", ".", "", "a", "b", "...", "a."))
    .map((names) => names.join("/"));
  fc.assert(
    fc.property(path, (text) => {
      const expected = posix.normalize(text.startsWith("/") ? text : `./${text}`).replace(/^\/|\/$/g, "");
      if (expected === ".." || expected.startsWith("../")) assert.throws(() => clean(text));
      else assert.equal(clean(text), expected === "." ? "" : expected);
    }),
    { numRuns: 5000 },
  );
});

test("whiteouts are told by the last name", () => {
  const kind = (path: string): string => {
    const whiteout = whiteoutOf(bytesOfText(path));
    return whiteout.kind === "whiteout" ? `hides ${whiteout.hides}` : whiteout.kind;
  };
  const cases: readonly (readonly [string, string])[] = [
    ["a/.wh.b", "hides a/b"],
    [".wh.b", "hides b"],
    [".wh..b", "hides .b"],
    ["a/.wh..wh..opq", "opaque"],
    [".wh..wh.plnk/1.2", "ignored"],
    ["a/.wh..wh.aufs", "ignored"],
    ["a/b.wh.c", "none"],
    ["a/.wh.b/c", "none"],
    ["a/wh.b", "none"],
  ];
  for (const [path, expected] of cases) assert.equal(kind(path), expected, path);
  for (const path of [".wh.", "a/.wh..", "a/.wh..."]) {
    assert.throws(() => kind(path), { code: "archive-breakout" }, path);
  }
});

test("parents and bases", () => {
  assert.deepEqual([parentOf(bytesOfText("a/b/c")), baseOf(bytesOfText("a/b/c"))], ["a/b", "c"]);
  assert.deepEqual([parentOf(bytesOfText("a")), baseOf(bytesOfText("a"))], ["", "a"]);
});
