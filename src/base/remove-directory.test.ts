import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { removeDirectory } from "./remove-directory.ts";

test("a directory goes with all in it; what its links point to stays", async () => {
  const root = mkdtempSync(join(tmpdir(), "skiff-remove-"));
  try {
    const path = join(root, "gone");
    mkdirSync(join(path, "a/b"), { recursive: true });
    mkdirSync(join(root, "kept"));
    writeFileSync(join(root, "kept/file"), "kept");
    writeFileSync(join(path, "a/b/file"), "x");
    symlinkSync(join(root, "kept"), join(path, "link"));
    symlinkSync("nowhere", join(path, "a/dangling"));
    await removeDirectory(path);
    assert.equal(existsSync(path), false);
    assert.equal(readFileSync(join(root, "kept/file"), "utf8"), "kept");
    await removeDirectory(path);
    const file = join(root, "file");
    writeFileSync(file, "x");
    await removeDirectory(file);
    assert.equal(existsSync(file), false);
  } finally {
    rmSync(root, { recursive: true });
  }
});

test("several that remove the same one all succeed", async () => {
  const root = mkdtempSync(join(tmpdir(), "skiff-remove-"));
  for (let index = 0; index < 50; index += 1) writeFileSync(join(root, String(index)), "x");
  await Promise.all([removeDirectory(root), removeDirectory(root), removeDirectory(root)]);
  assert.equal(existsSync(root), false);
});
