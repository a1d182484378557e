import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { type ByteString, bytesOfText } from "#base/byte-string.ts";
import { openRoot } from "#sys/beneath.ts";
import { closeFd, mkdirAt, openNameAt } from "#sys/files.ts";
import { removeLiveTree } from "./live-remove.ts";
import { removeTreeAt } from "./remove-tree.ts";

let folder: string;
let root: number;
const name = (text: string): ByteString => bytesOfText(text);

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "skiff-live-"));
  root = openRoot(folder);
});
afterEach(() => {
  closeFd(root);
  rmSync(folder, { recursive: true, force: true });
});

/** Directories within each other, beyond what a path can name. */
function nest(top: string, depth: number, inner: string): void {
  mkdirSync(join(folder, top));
  let fd = openNameAt(root, name(top), 0);
  for (let level = 1; level < depth; level += 1) {
    mkdirAt(fd, name(inner), 0o755);
    const next = openNameAt(fd, name(inner), 0);
    closeFd(fd);
    fd = next;
  }
  closeFd(fd);
}

test("any depth, with few descriptors", () => {
  nest("deep", 1200, "long-name");
  writeFileSync(join(folder, "deep/long-name/file"), "x");
  const open = (): number => readdirSync("/proc/self/fd").length;
  const before = open();
  let most = 0;
  let calls = 0;
  removeLiveTree(root, name("deep"), () => {
    calls += 1;
    if (calls % 100 === 0) most = Math.max(most, open());
  });
  assert.deepEqual(readdirSync(folder), []);
  assert.ok(calls > 2390 && most - before <= 70, `${most - before} descriptors`);
  assert.equal(open(), before);
});

test("files, links and what is missing", () => {
  mkdirSync(join(folder, "kept"));
  writeFileSync(join(folder, "kept/file"), "x");
  mkdirSync(join(folder, "tree/a/b"), { recursive: true });
  symlinkSync(join(folder, "kept"), join(folder, "tree/a/link"));
  symlinkSync("../../kept", join(folder, "tree/other"));
  for (const gone of ["tree", "missing"]) removeLiveTree(root, name(gone));
  symlinkSync("kept", join(folder, "link"));
  removeLiveTree(root, name("link"));
  assert.deepEqual(readdirSync(folder), ["kept"]);
  assert.ok(existsSync(join(folder, "kept/file")));
});

test("a way down that is moved or replaced by a link leads nowhere else", () => {
  mkdirSync(join(folder, "kept/x/x/x/x/x"), { recursive: true });
  for (const at of [100, 170, 195]) {
    nest("deep", 150, "x");
    let calls = 0;
    removeLiveTree(root, name("deep"), () => {
      calls += 1;
      if (calls !== at) return;
      renameSync(join(folder, "deep/x/x"), join(folder, "moved"));
      symlinkSync(join(folder, "kept"), join(folder, "deep/x/x"));
    });
    assert.ok(calls > at);
    assert.ok(!existsSync(join(folder, "deep")) && existsSync(join(folder, "kept/x/x/x/x/x")));
    if (existsSync(join(folder, "moved"))) removeTreeAt(root, name("moved"));
  }
});

test("names that come again and again are not raced for ever; a pause may end it", () => {
  mkdirSync(join(folder, "busy/inner"), { recursive: true });
  const again = (): void => writeFileSync(join(folder, "busy/new"), "x");
  assert.throws(() => removeLiveTree(root, name("busy"), again), { errno: "ENOTEMPTY" });
  const stop = new Error("enough");
  assert.throws(
    () =>
      removeLiveTree(root, name("busy"), () => {
        throw stop;
      }),
    stop,
  );
});
