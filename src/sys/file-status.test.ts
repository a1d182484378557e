import assert from "node:assert/strict";
import {
  constants,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { bytesOfText } from "#base/byte-string.ts";
import { openRoot } from "./beneath.ts";
import { statAt } from "./file-status.ts";
import { closeFd, readlinkAt, setTimesAt, splitDevice } from "./files.ts";
import { directoryEntryTypes, readDirectory } from "./statfs.ts";
import { getXattrAt, listXattrAt, setXattrAt } from "./xattr.ts";

function withDirectory(run: (fd: number, path: string) => void): void {
  const path = mkdtempSync(join(tmpdir(), "skiff-sys-"));
  const fd = openRoot(path);
  try {
    run(fd, path);
  } finally {
    closeFd(fd);
    rmSync(path, { recursive: true });
  }
}

test("statx's layout: every field agrees with Node's lstat", () => {
  withDirectory((fd, path) => {
    writeFileSync(join(path, "file"), "12345", { mode: 0o640 });
    utimesSync(join(path, "file"), 1, 1_234_567.25);
    symlinkSync("target", join(path, "link"));
    mkdirSync(join(path, "dir"), { mode: 0o711 });
    const devFd = openRoot("/dev");
    const cases: [number, string, string][] = [
      [fd, "file", join(path, "file")],
      [fd, "link", join(path, "link")],
      [fd, "dir", join(path, "dir")],
      [fd, "", path],
      [devFd, "null", "/dev/null"],
    ];
    for (const [dirFd, name, full] of cases) {
      const ours = statAt(dirFd, bytesOfText(name));
      const node = lstatSync(full, { bigint: true });
      const device = splitDevice(node.rdev);
      const holder = splitDevice(node.dev);
      assert.deepEqual(
        ours,
        {
          type: Number(node.mode) & constants.S_IFMT,
          mode: Number(node.mode) & 0o7777,
          uid: Number(node.uid),
          gid: Number(node.gid),
          sizeBytes: Number(node.size),
          mtimeNs: node.mtimeNs,
          linkCount: Number(node.nlink),
          identity: `${holder.major}:${holder.minor}:${node.ino}`,
          deviceMajor: device.major,
          deviceMinor: device.minor,
        },
        full,
      );
    }
    closeFd(devFd);
    assert.equal(statAt(fd, bytesOfText("missing")), undefined);
    assert.throws(() => statAt(fd, bytesOfText("file/x")), { code: "ENOTDIR" });
  });
});

test("getdents64's layout: a large directory reads as Node reads it, names as bytes", () => {
  withDirectory((fd, path) => {
    for (let index = 0; index < 1500; index += 1) writeFileSync(join(path, `${"n".repeat(60)}${index}`), "");
    writeFileSync(Buffer.from(`${path}/\xff\xfe`, "latin1"), "");
    symlinkSync("x", join(path, "é"));
    const listing = openSync(path, "r");
    const entries = readDirectory(listing);
    closeFd(listing);
    const expected = readdirSync(path, { encoding: "latin1" as BufferEncoding });
    assert.deepEqual(entries.map((entry) => entry.name).sort(), expected.sort());
    const link = entries.find((entry) => entry.name === bytesOfText("é"));
    assert.equal(link?.type, directoryEntryTypes.symlink);
    assert.equal(readlinkAt(fd, bytesOfText("é")), "x");
  });
});

test("attributes of names: set, list, get, never through a link", () => {
  withDirectory((fd, path) => {
    writeFileSync(join(path, "file"), "");
    symlinkSync("file", join(path, "link"));
    const file = bytesOfText("file");
    setXattrAt(fd, file, "user.binary", Buffer.from([0, 255, 1]));
    assert.deepEqual(listXattrAt(fd, file), ["user.binary"]);
    assert.deepEqual(getXattrAt(fd, file, "user.binary"), Buffer.from([0, 255, 1]));
    assert.equal(getXattrAt(fd, file, "user.none"), undefined);
    assert.deepEqual(listXattrAt(fd, bytesOfText("link")), []);
    assert.throws(() => setXattrAt(fd, bytesOfText("link"), "user.x", Buffer.from("1")), { code: "EPERM" });
    assert.throws(() => getXattrAt(fd, bytesOfText("none"), "user.x"), { code: "ENOENT" });
  });
});

test("times before 1970 and after 2106 are set to the nanosecond", () => {
  withDirectory((fd, path) => {
    writeFileSync(join(path, "file"), "");
    for (const ns of [-1n, -1_500_000_001n, 0n, 1n, 8_000_000_000_123_456_789n]) {
      setTimesAt(fd, bytesOfText("file"), ns, ns);
      assert.equal(statAt(fd, bytesOfText("file"))?.mtimeNs, ns);
    }
  });
});
