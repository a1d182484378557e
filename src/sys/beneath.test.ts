import assert from "node:assert/strict";
import { constants, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { mkdirAllBeneath, openBeneath, openRoot, readlinkBeneath, statBeneath } from "./beneath.ts";
import { closeFd, makeDevice, splitDevice } from "./files.ts";

function withTree(run: (rootFd: number, root: string, outside: string) => void): void {
  const outside = mkdtempSync(join(tmpdir(), "skiff-beneath-"));
  const root = join(outside, "root");
  mkdirSync(join(root, "etc"), { recursive: true });
  writeFileSync(join(root, "etc/passwd"), "inside");
  writeFileSync(join(outside, "passwd"), "outside");
  const rootFd = openRoot(root);
  try {
    run(rootFd, root, outside);
  } finally {
    closeFd(rootFd);
    rmSync(outside, { recursive: true });
  }
}

test("absolute links, dot-dot and chains stay inside the root", () => {
  withTree((rootFd, root, outside) => {
    symlinkSync("/etc/passwd", join(root, "absolute"));
    symlinkSync("../../../../etc/passwd", join(root, "etc/up"));
    symlinkSync(join(outside, "passwd"), join(root, "escape"));
    for (const path of ["etc/passwd", "/etc/passwd", "../../etc/passwd", "absolute", "etc/up"]) {
      const fd = openBeneath(rootFd, path, constants.O_RDONLY);
      assert.equal(readFileSync(fd, "utf8"), "inside", path);
      closeFd(fd);
    }
    assert.throws(() => openBeneath(rootFd, "escape", constants.O_RDONLY), { code: "ENOENT" });
  });
});

test("magic links are refused", () => {
  const rootFd = openRoot("/");
  assert.throws(() => openBeneath(rootFd, `/proc/self/fd/${rootFd}`, constants.O_RDONLY), { code: "ELOOP" });
  closeFd(rootFd);
});

test("stat, readlink and mkdir -p", () => {
  withTree((rootFd, root) => {
    symlinkSync("/made", join(root, "link"));
    assert.equal(statBeneath(rootFd, "nothing/here"), undefined);
    assert.equal(statBeneath(rootFd, "etc/passwd/x"), undefined);
    assert.equal(statBeneath(rootFd, "etc/passwd")?.size, 6n);
    assert.ok(statBeneath(rootFd, "link", { noFollow: true })?.isSymbolicLink());
    assert.equal(readlinkBeneath(rootFd, "link"), "/made");
    assert.throws(() => readlinkBeneath(rootFd, "etc/passwd"), { code: "EINVAL" });
    assert.throws(() => mkdirAllBeneath(rootFd, "link/sub", 0o755, 0, 0), { code: "ENOTDIR" });
    mkdirAllBeneath(rootFd, "made/a/é", 0o2750, 12, 34);
    mkdirAllBeneath(rootFd, "/link/b/../c", 0o700, 0, 0);
    const made = statBeneath(rootFd, "link/a/é");
    assert.deepEqual([made?.mode, made?.uid, made?.gid], [0o42750n, 12n, 34n]);
    assert.ok(statBeneath(rootFd, "made/c")?.isDirectory());
    assert.throws(() => mkdirAllBeneath(rootFd, "etc/passwd/x", 0o755, 0, 0), { code: "ENOTDIR" });
  });
});

test("names with NUL or beyond PATH_MAX are refused", () => {
  withTree((rootFd) => {
    assert.throws(() => openBeneath(rootFd, "etc\0/x", constants.O_RDONLY), { code: "EINVAL" });
    assert.throws(() => openBeneath(rootFd, "x/".repeat(4000), constants.O_RDONLY), { code: "ENAMETOOLONG" });
  });
});

test("device numbers round trip", () => {
  for (const [major, minor] of [
    [1, 3],
    [136, 255],
    [259, 1048575],
    [4095, 4096],
  ] as const) {
    assert.deepEqual(splitDevice(makeDevice(major, minor)), { major, minor });
  }
  assert.equal(makeDevice(1, 3), 0x103n);
});
