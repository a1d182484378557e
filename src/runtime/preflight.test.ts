import assert from "node:assert/strict";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { openRoot } from "#sys/beneath.ts";
import { closeFd } from "#sys/files.ts";
import type { OciMount } from "#wire/oci-runtime.ts";
import { type Preflight, preflight } from "./preflight.ts";
import { defaultMounts } from "./security-profile.ts";

let base: string;
let root: string;
let host: string;
let fd: number;

/** What must never change: everything beside the root that hostile links point at. */
function canary(): string {
  const lines: string[] = [];
  const walk = (path: string): void => {
    for (const name of readdirSync(path).sort()) {
      const full = join(path, name);
      const { mode, uid, ino, size } = lstatSync(full);
      lines.push(`${full} ${mode} ${uid} ${ino} ${size}`);
      if (lstatSync(full).isDirectory()) walk(full);
      else if (lstatSync(full).isFile()) lines.push(readFileSync(full, "utf8"));
    }
  };
  walk(host);
  return lines.join("\n");
}

let before: string;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), "skiff-preflight-"));
  root = join(base, "root");
  host = join(base, "host");
  for (const path of [root, host, join(host, "dir"), join(base, "volume")]) mkdirSync(path);
  writeFileSync(join(host, "file"), "precious");
  writeFileSync(join(base, "hosts"), "127.0.0.1 localhost\n");
  fd = openRoot(root);
  before = canary();
});
afterEach(() => {
  assert.equal(canary(), before, "the host was touched");
  closeFd(fd);
  rmSync(base, { recursive: true });
});

function bind(source: string, destination: string): OciMount {
  return { destination, type: "bind", source, options: ["rbind"] };
}

function check(mounts: OciMount[] = [], workingDir = "/"): Preflight {
  return preflight(fd, [...defaultMounts(false, 1), ...mounts], workingDir);
}

test("an empty image gets the directories, targets and markers that mounting needs", () => {
  const volume = join(base, "volume");
  const result = check([bind(join(base, "hosts"), "/etc/hosts"), bind(volume, "/srv/data")], "/work/here");
  for (const name of ["dev", "proc", "sys", "etc", "srv/data", "work/here"]) {
    assert.ok(statSync(join(root, name)).isDirectory(), name);
  }
  assert.ok(statSync(join(root, "etc/hosts")).isFile());
  assert.ok(statSync(join(root, ".dockerenv")).isFile());
  assert.equal(readlinkSync(join(root, "etc/mtab")), "/proc/mounts");
  assert.equal(result.workingDir, "/work/here");
  // A second start finds them all.
  assert.deepEqual(
    check([bind(join(base, "hosts"), "/etc/hosts"), bind(volume, "/srv/data")], "/work/here"),
    result,
  );
});

test("images whose top directories are links or files are refused, and nothing is written through them", () => {
  for (const name of ["dev", "proc", "sys", "etc"]) {
    for (const target of [join(host, "dir"), "../host/dir", "/", "somewhere"]) {
      symlinkSync(target, join(root, name));
      assert.throws(() => check(), new RegExp(`/${name} of the image is a symbolic link`));
      rmSync(join(root, name));
    }
    writeFileSync(join(root, name), "");
    assert.throws(() => check(), new RegExp(`/${name} of the image is not a directory`));
    rmSync(join(root, name));
  }
  symlinkSync(join(host, "dir"), join(root, "run"));
  check();
  assert.throws(() => check([bind(join(base, "volume"), "/run/x")]), /\/run of the image is a symbolic link/);
});

test("mount targets resolve beneath the root, and the runtime gets them without links", () => {
  mkdirSync(join(root, "real"));
  symlinkSync("/real", join(root, "abs"));
  symlinkSync("real", join(root, "rel"));
  symlinkSync("../../../../../..", join(root, "up"));
  symlinkSync(join(host, "dir"), join(root, "out"));
  const volume = join(base, "volume");
  const cases: [string, string][] = [
    ["/abs/x", "/real/x"],
    ["/rel/y/z", "/real/y/z"],
    ["/up/real/w", "/real/w"],
    ["/up/..//abs/../deep", "/deep"],
    ["/out", `${host}/dir`],
    ["/out/below", `${host}/dir/below`],
  ];
  for (const [target, expected] of cases) {
    const { mounts } = check([bind(volume, target)]);
    assert.equal(mounts.at(-1)?.destination, expected, target);
    assert.ok(statSync(join(root, expected)).isDirectory(), expected);
  }
});

test("a dangling link as target is made where it points, inside the root", () => {
  mkdirSync(join(root, "etc"));
  symlinkSync("../run/systemd/resolve/stub-resolv.conf", join(root, "etc/resolv.conf"));
  const { mounts } = check([bind(join(base, "hosts"), "/etc/resolv.conf")]);
  assert.equal(mounts.at(-1)?.destination, "/run/systemd/resolve/stub-resolv.conf");
  assert.ok(statSync(join(root, "run/systemd/resolve/stub-resolv.conf")).isFile());
});

test("bad targets are refused with their reason", () => {
  const volume = join(base, "volume");
  symlinkSync("loop", join(root, "loop"));
  symlinkSync("/proc/self", join(root, "self"));
  writeFileSync(join(root, "afile"), "");
  const cases: [OciMount, RegExp][] = [
    [bind(volume, "/"), /destination can't be '\/'/],
    [bind(volume, "/loop/x"), /too many levels of symbolic links/],
    [bind(volume, "/afile"), /Are you trying to mount a directory onto a file/],
    [bind(join(base, "hosts"), "/etc"), /Are you trying to mount a directory onto a file/],
    [bind(volume, "/proc/foo"), /inside \/proc/],
    [bind(volume, "/self/fd"), /inside \/proc/],
    [bind(join(base, "absent"), "/x"), /bind source path does not exist/],
    [bind(volume, `/${"x/".repeat(10)}${"../".repeat(40)}afile/y`), /mkdir|not a directory|vice-versa/i],
  ];
  for (const [mount, expected] of cases) assert.throws(() => check([mount]), expected, mount.destination);
});

test("a working directory in a volume is followed there, and never into a descriptor of the runtime", () => {
  const volume = join(base, "volume");
  symlinkSync("/proc/self/fd/7", join(volume, "fd"));
  symlinkSync("/proc/1/cwd", join(volume, "pid"));
  symlinkSync("/dev/fd/9", join(volume, "devfd"));
  symlinkSync(join(host, "dir"), join(volume, "host"));
  symlinkSync("/proc/self/fd", join(root, "link"));
  const mount = bind(volume, "/v");
  for (const bad of [
    "/proc/self/fd/7",
    "/proc/thread-self/cwd",
    "/proc/1/root",
    "/dev/fd/7",
    "/v/fd",
    "/v/pid",
    "/v/devfd",
    "/link/8",
    "/proc/./self/fd/3",
  ]) {
    assert.throws(() => check([mount], bad), /is inside \/(?:proc|dev)/, bad);
  }
  assert.equal(check([mount], "/v/new/dir").workingDir, "/v/new/dir");
  assert.ok(statSync(join(volume, "new/dir")).isDirectory());
  assert.equal(existsSync(join(root, "v/new")), false);
  // An absolute link in the volume means the container's own tree.
  assert.equal(check([mount], "/v/host").workingDir, `${host}/dir`);
  assert.ok(statSync(join(root, host, "dir")).isDirectory());
  for (const good of ["/proc", "/proc/sys", "/dev/shm", ""])
    assert.equal(check([mount], good).workingDir, good || "/");
});

test("a working directory that is a file is refused in Docker's words", () => {
  mkdirSync(join(root, "etc"));
  writeFileSync(join(root, "etc/passwd"), "");
  assert.throws(() => check([], "/etc/passwd"), { message: "Cannot mkdir: /etc/passwd is not a directory" });
});
