import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { TarWriter } from "#archive/tar-write.ts";
import { bytesOfText } from "#base/byte-string.ts";
import { mayBeOwnTar } from "./archive-style.ts";

function ownTar(path: string, xattrs: ReadonlyMap<string, Buffer>): Buffer {
  const chunks: Uint8Array[] = [];
  const writer = new TarWriter((chunk) => chunks.push(Buffer.from(chunk)));
  writer.entry({
    path: bytesOfText(path),
    type: "file",
    mode: 0o4755,
    uid: 3_000_000,
    gid: 4,
    sizeBytes: 3,
    mtimeNs: 1_700_000_000_123_456_789n,
    linkPath: bytesOfText(""),
    deviceMajor: 0,
    deviceMinor: 0,
    xattrs,
  });
  writer.data(Buffer.from("abc"));
  writer.finish();
  return Buffer.concat(chunks);
}

test("a tar of our own writer is told from those of others by its first entry", async () => {
  const directory = mkdtempSync(join(tmpdir(), "skiff-style-"));
  try {
    const file = join(directory, "a.tar");
    const names = ["f", `${"long/".repeat(60)}f`, "umlaut-ü"];
    for (const name of names) {
      for (const xattrs of [new Map(), new Map([["user.a", Buffer.from([0, 255])]])]) {
        writeFileSync(file, ownTar(name, xattrs));
        assert.equal(await mayBeOwnTar(file), true, name);
      }
    }
    const folder = join(directory, "of");
    mkdirSync(folder);
    writeFileSync(join(folder, "f"), "abc");
    for (const format of ["gnu", "pax", "v7"]) {
      execFileSync("tar", ["--format", format, "-cf", file, "-C", directory, "of"]);
      assert.equal(await mayBeOwnTar(file), false, format);
    }
    for (const bytes of ["", "no tar at all ".repeat(100)]) {
      writeFileSync(file, bytes);
      assert.equal(await mayBeOwnTar(file), true);
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
});
