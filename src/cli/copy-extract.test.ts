import assert from "node:assert/strict";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import type { TarEntry } from "#archive/tar-format.ts";
import { bytesOfText } from "#base/byte-string.ts";
import { HostExtractor } from "./copy-extract.ts";

describe("a container's archive on this machine", () => {
  let home: string;
  let root: string;

  beforeEach(() => {
    home = mkdtempSync(join(tmpdir(), "skiff-extract-"));
    root = join(home, "root");
    mkdirSync(root);
    mkdirSync(join(home, "outside"));
    writeFileSync(join(home, "outside/kept"), "kept");
  });
  afterEach(() => rmSync(home, { recursive: true }));

  function unpack(
    ...entries: (Pick<TarEntry, "type"> & { path: string; link?: string; text?: string })[]
  ): void {
    using extractor = new HostExtractor({ directory: root, rename: undefined });
    for (const { path, type, link = "", text = "" } of entries) {
      extractor.entry({
        path: bytesOfText(path),
        type,
        mode: type === "directory" ? 0o500 : 0o640,
        uid: 12345,
        gid: 12345,
        sizeBytes: text.length,
        mtimeNs: 1_000_000_000_000_000_000n,
        linkPath: bytesOfText(link),
        deviceMajor: 0,
        deviceMinor: 0,
      });
      extractor.data(Buffer.from(text), 0);
      extractor.end();
    }
    extractor.complete();
  }

  test("files get mode and time, and no owner", () => {
    unpack(
      { path: "d", type: "directory" },
      { path: "d/f", type: "file", text: "hi" },
      { path: "d/h", type: "link", link: "d/f" },
    );
    const stat = lstatSync(join(root, "d/f"));
    assert.deepEqual([stat.mode & 0o7777, stat.mtimeMs, stat.uid], [0o640, 1e12, process.getuid?.()]);
    assert.equal(lstatSync(join(root, "d")).mtimeMs, 1e12);
    assert.equal(lstatSync(join(root, "d/h")).ino, stat.ino);
  });

  test("nothing is written through a link of the archive's making, or one that was there", () => {
    const outside = join(home, "outside");
    assert.throws(
      () => unpack({ path: "l", type: "symlink", link: outside }, { path: "l/x", type: "file", text: "bad" }),
      /not a directory/,
    );
    symlinkSync(outside, join(root, "there"));
    assert.throws(() => unpack({ path: "there/x", type: "file", text: "bad" }), /not a directory/);
    assert.throws(() => unpack({ path: "there", type: "directory" }), /cannot overwrite non-directory/);
    assert.throws(
      () =>
        unpack({ path: "m", type: "symlink", link: outside }, { path: "h", type: "link", link: "m/kept" }),
      /not a directory/,
    );
    assert.throws(() => unpack({ path: "n", type: "symlink", link: "../outside" }), /invalid symlink/);
    assert.throws(() => unpack({ path: "../outside/x", type: "file", text: "bad" }), /is outside of/);
    symlinkSync(join(outside, "kept"), join(root, "file"));
    unpack({ path: "file", type: "file", text: "new" });
    assert.equal(lstatSync(join(root, "file")).isFile(), true);
    assert.deepEqual(readdirSync(outside), ["kept"]);
    assert.equal(readFileSync(join(outside, "kept"), "utf8"), "kept");
  });

  test("a file that is not whole does not stay", () => {
    {
      using extractor = new HostExtractor({ directory: root, rename: undefined });
      extractor.entry({
        path: bytesOfText("half"),
        type: "file",
        mode: 0o644,
        uid: 0,
        gid: 0,
        sizeBytes: 10,
        mtimeNs: 0n,
        linkPath: bytesOfText(""),
        deviceMajor: 0,
        deviceMinor: 0,
      });
      extractor.data(Buffer.from("abc"), 0);
    }
    assert.equal(existsSync(join(root, "half")), false);
  });
});
