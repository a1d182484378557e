import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type CopyEnd,
  planCopy,
  rebased,
  renamed,
  splitArgument,
  splitEntry,
  withEnding,
} from "./copy-path.ts";

test("which argument names a container", () => {
  const cases: [string, string, string][] = [
    ["c:/x", "c", "/x"],
    ["c:x:y", "c", "x:y"],
    ["c:", "c", ""],
    ["/a:b", "", "/a:b"],
    ["./a:b", "", "./a:b"],
    [".a:b", "", ".a:b"],
    ["plain", "", "plain"],
    ["-", "", "-"],
  ];
  for (const [argument, container, path] of cases) {
    assert.deepEqual(splitArgument(argument), { container, path }, argument);
  }
});

test("directory and last name", () => {
  const cases: [string, string, string][] = [
    ["/a/b", "/a", "b"],
    ["/a/b/", "/a", "b"],
    ["/a/b/.", "/a/b", "."],
    ["/a", "/", "a"],
    ["/", "/", "/"],
    ["a", ".", "a"],
    [".", ".", "."],
  ];
  for (const [path, directory, name] of cases) assert.deepEqual(splitEntry(path), { directory, name }, path);
});

test("what a path ended in is kept", () => {
  assert.equal(withEnding("/a", "a/"), "/a/");
  assert.equal(withEnding("/a", "a/."), "/a/.");
  assert.equal(withEnding("/", "."), "/.");
  assert.equal(withEnding("/a", "a"), "/a");
  assert.deepEqual(rebased("/l", "/x/target"), { path: "/x/target", rebaseName: "l" });
  assert.deepEqual(rebased("/l/.", "/x/target"), { path: "/x/target/.", rebaseName: "" });
  assert.deepEqual(rebased("/l/", "/x/l"), { path: "/x/l/", rebaseName: "" });
});

const file = (path: string, exists = true): CopyEnd => ({ path, exists, isDirectory: false, rebaseName: "" });
const directory = (path: string): CopyEnd => ({ path, exists: true, isDirectory: true, rebaseName: "" });

test("what goes where", () => {
  assert.deepEqual(planCopy(file("/s/f"), directory("/d")), { directory: "/d", rename: undefined });
  assert.deepEqual(planCopy(file("/s/f"), file("/d/g")), {
    directory: "/d",
    rename: { from: "f", to: "g" },
  });
  assert.deepEqual(planCopy(directory("/s/t/."), file("/d/new", false)), {
    directory: "/d",
    rename: { from: ".", to: "new" },
  });
  assert.throws(() => planCopy(directory("/s"), file("/d/f")), { message: "cannot copy directory" });
  assert.throws(() => planCopy(file("/s"), file("/d/new/", false)), { message: "no such directory" });
  assert.equal(renamed("./x", { from: ".", to: "new" }), "new/x");
  assert.equal(renamed("/etc/x", { from: "/", to: "root" }), "root/etc/x");
  assert.equal(renamed("f/f", { from: "f", to: "g" }), "g/f");
});
