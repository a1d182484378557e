import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { readConfig } from "./config.ts";
import { checkDataRoot, checkWritable, requireRuntime } from "./preconditions.ts";

const directory = mkdtempSync(join(tmpdir(), "skiff-preconditions-"));
test.after(() => rmSync(directory, { recursive: true }));

const ext4 = { type: 0xef53, bsize: 4096, bavail: 10_000, ffree: 10, files: 20 };

for (const [name, type] of [
  ["overlay on overlay is not possible", 0x794c7630],
  ["NFS", 0x6969],
  // As Node gives it where the kernel's word is signed.
  ["CIFS", 0xff534d42 | 0],
  ["FUSE", 0x65735546],
] as const) {
  test(`a data root on such a file system is refused: ${name}`, () => {
    const path = join(directory, "not/made/yet");
    const seen: string[] = [];
    assert.throws(
      () =>
        checkDataRoot(path, (at) => {
          seen.push(at);
          return { ...ext4, type };
        }),
      ({ message }: Error) =>
        message.startsWith(`data root ${path} is on a file system that cannot hold layers: `) &&
        message.includes(name),
    );
    assert.deepEqual(seen, [directory], "the nearest directory that is there is looked at");
  });
}

test("others are taken; a full one only where a daemon has been", () => {
  checkDataRoot(join(directory, "new"), () => ext4);
  for (const full of [{ bavail: 0 }, { ffree: 0 }]) {
    const look = () => ({ ...ext4, ...full });
    assert.throws(() => checkDataRoot(join(directory, "new"), look), {
      message: `data root ${join(directory, "new")}: no space left on device`,
    });
    checkDataRoot(directory, look);
  }
  // btrfs counts no inodes.
  checkDataRoot(join(directory, "new"), () => ({ ...ext4, type: 0x9123683e, files: 0, ffree: 0 }));
});

test("what cannot be written is told", () => {
  checkWritable(join(directory, "a/b"), "exec root");
  const file = join(directory, "file");
  writeFileSync(file, "");
  assert.throws(() => checkWritable(join(file, "x"), "exec root"), {
    message: `exec root ${file}/x: ${file} is no directory`,
  });
});

test("runtimes that are named must be there", () => {
  requireRuntime(readConfig(["--add-runtime", "own=/bin/sh", "--default-runtime", "own"], {}));
  assert.throws(() => requireRuntime(readConfig(["--add-runtime", "own=/nonexistent/own"], {})), {
    message: "runtime own: /nonexistent/own not found",
  });
});
