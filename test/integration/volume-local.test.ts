import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { ByteString } from "#base/byte-string.ts";
import { systemClock } from "#base/clock.ts";
import type { ContainerId } from "#base/ids.ts";
import { silentLog } from "#base/log.ts";
import type { Database, Statement } from "#state/database.ts";
import { openDatabase } from "#state/sqlite-database.ts";
import { openRoot } from "#sys/beneath.ts";
import { closeFd } from "#sys/files.ts";
import { getXattrAt, setXattrAt } from "#sys/xattr.ts";
import { createVolumeStore } from "#volume/local.ts";
import type { VolumeCreate, VolumeStore } from "#volume/volume.ts";

const plain: Omit<VolumeCreate, "name"> = { driver: "", labels: null, options: null };

interface Place extends AsyncDisposable {
  readonly home: string;
  readonly root: string;
  open(): Promise<VolumeStore>;
  reopen(): Promise<VolumeStore>;
  commit(statement: Statement): Promise<void>;
}

function place(): Place {
  const home = mkdtempSync(join(tmpdir(), "skiff-volume-"));
  const root = join(home, "volumes");
  let stack = new AsyncDisposableStack();
  let database: Database;
  const open = async (): Promise<VolumeStore> => {
    database = stack.use(await openDatabase(join(home, "state.db"), { log: silentLog }));
    return stack.use(await createVolumeStore({ root, database, clock: systemClock, log: silentLog }));
  };
  return {
    home,
    root,
    open,
    commit: (statement) => database.commit([statement]),
    reopen: async () => {
      await stack.disposeAsync();
      stack = new AsyncDisposableStack();
      return open();
    },
    [Symbol.asyncDispose]: async () => {
      await stack.disposeAsync();
      execFileSync("rm", ["-rf", home]);
    },
  };
}

async function until(holds: () => boolean): Promise<void> {
  for (let i = 0; i < 4000; i += 1) {
    if (holds()) return;
    await sleep(5);
  }
  assert.fail("it did not happen within twenty seconds");
}

test("create, get again, list, remove; what is created is there after a restart", async () => {
  await using at = place();
  let store = await at.open();
  const volume = await store.create({ ...plain, name: "data", labels: { a: "b" } });
  assert.equal(volume.mountpoint, join(at.root, "data/_data"));
  assert.equal(lstatSync(volume.mountpoint).mode & 0o7777, 0o755);
  writeFileSync(join(volume.mountpoint, "file"), "kept");
  const same = await store.create({ ...plain, name: "data", labels: { other: "x" } });
  assert.deepEqual(same.labels, { a: "b" });
  const anonymous = await store.create({ ...plain, name: "" });
  assert.match(anonymous.name, /^[0-9a-f]{64}$/);
  assert.equal(anonymous.anonymous, true);
  store = await at.reopen();
  assert.deepEqual(store.get("data"), volume);
  assert.equal(readFileSync(join(volume.mountpoint, "file"), "utf8"), "kept");
  await store.remove("data", { force: false, usedBy: [] });
  assert.equal(store.find("data"), undefined);
  assert.equal(existsSync(join(at.root, "data")), false);
  store = await at.reopen();
  assert.deepEqual(
    store.list().map(({ name }) => name),
    [anonymous.name],
  );
  await until(() => readdirSync(join(at.root, ".trash")).length === 0);
});

for (const [request, message] of [
  [
    { name: "a/b" },
    'create a/b: "a/b" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path',
  ],
  [{ name: ".." }, /includes invalid characters/],
  [{ name: ".trash" }, /includes invalid characters/],
  [{ name: "a" }, "create a: volume name is too short, names should be at least two alphanumeric characters"],
  [{ name: "vv".repeat(120) }, /longer than 200/],
  [{ name: "vol", driver: "foo" }, 'create vol: error looking up volume plugin foo: plugin "foo" not found'],
  [{ name: "vol", options: { foo: "x" } }, 'create vol: invalid option: "foo"'],
  [{ name: "vol", options: { type: "nfs" } }, 'create vol: missing required option: "device"'],
  [{ name: "vol", options: { size: "1m" } }, "create vol: quota size requested but no quota support"],
] as const) {
  test(`refused: ${JSON.stringify(request).slice(0, 50)}`, async () => {
    await using at = place();
    const store = await at.open();
    await assert.rejects(store.create({ ...plain, ...request }), { message });
    assert.deepEqual(readdirSync(at.root), [".trash"]);
  });
}

test("a volume in use, and one that is not there, in Docker's words", async () => {
  await using at = place();
  const store = await at.open();
  await store.create({ ...plain, name: "used" });
  await assert.rejects(store.remove("used", { force: true, usedBy: ["c1", "c2"] }), {
    kind: "conflict",
    message: "remove used: volume is in use - [c1, c2]",
  });
  await assert.rejects(store.remove("none", { force: false, usedBy: [] }), {
    kind: "notFound",
    message: "get none: no such volume",
  });
  await store.remove("none", { force: true, usedBy: [] });
});

test("driver options say how a volume is mounted", async () => {
  await using at = place();
  const store = await at.open();
  await store.create({ ...plain, name: "mem", options: { type: "tmpfs", device: "tmpfs", o: "size=1m" } });
  await store.create({ ...plain, name: "dir" });
  assert.deepEqual(store.mountSource("mem"), {
    kind: "mount",
    type: "tmpfs",
    device: "tmpfs",
    options: "size=1m",
  });
  assert.deepEqual(store.mountSource("dir"), { kind: "directory", path: join(at.root, "dir/_data") });
});

test("a removal that a crash cut short is undone: the row decides", async () => {
  await using at = place();
  let store = await at.open();
  const { mountpoint } = await store.create({ ...plain, name: "half" });
  writeFileSync(join(mountpoint, "file"), "precious");
  renameSync(join(at.root, "half"), join(at.root, ".trash/half@0123456789abcdef"));
  store = await at.reopen();
  assert.equal(readFileSync(join(store.get("half").mountpoint, "file"), "utf8"), "precious");
});

test("a creation that a crash cut short has its directory; unknown directories are left alone", async () => {
  await using at = place();
  let store = await at.open();
  await store.create({ ...plain, name: "row" });
  rmSync(join(at.root, "row"), { recursive: true });
  mkdirSync(join(at.root, "stranger/_data"), { recursive: true });
  store = await at.reopen();
  assert.ok(existsSync(store.get("row").mountpoint));
  assert.ok(existsSync(join(at.root, "stranger/_data")));
});

const sub = "sub" as ByteString;

function withDirectory(path: string, work: (fd: number) => void): void {
  const fd = openRoot(path);
  try {
    work(fd);
  } finally {
    closeFd(fd);
  }
}

function imageTree(home: string): string {
  const rootfs = join(home, "rootfs");
  const source = join(rootfs, "srv/data");
  mkdirSync(join(source, "sub/deep"), { recursive: true });
  writeFileSync(join(source, "file"), "content");
  chownSync(join(source, "file"), 1234, 4321);
  chmodSync(join(source, "file"), 0o4711);
  utimesSync(join(source, "file"), 1_000_000, 1_000_000);
  linkSync(join(source, "file"), join(source, "sub/hard"));
  symlinkSync("/etc/passwd", join(source, "absolute"));
  symlinkSync("../file", join(source, "sub/relative"));
  execFileSync("mkfifo", [join(source, "fifo")]);
  execFileSync("mknod", [join(source, "null"), "c", "1", "3"]);
  withDirectory(source, (fd) => setXattrAt(fd, sub, "user.note", Buffer.from("here")));
  chmodSync(join(source, "sub/deep"), 0o1777);
  chownSync(source, 99, 98);
  chmodSync(source, 0o2750);
  return rootfs;
}

test("copy-up keeps owner, mode, times, links, devices and attributes, once", async () => {
  await using at = place();
  const store = await at.open();
  const rootfs = imageTree(at.home);
  const socket = createServer().listen(join(rootfs, "srv/data/socket"));
  const { mountpoint } = await store.create({ ...plain, name: "vol" });
  await store.copyUp("vol", rootfs, "/srv/data");
  socket.close();
  const top = lstatSync(mountpoint);
  assert.deepEqual([top.uid, top.gid, top.mode & 0o7777], [99, 98, 0o2750]);
  assert.deepEqual(readdirSync(mountpoint).sort(), ["absolute", "fifo", "file", "null", "sub"]);
  const file = lstatSync(join(mountpoint, "file"));
  assert.deepEqual(
    [file.uid, file.gid, file.mode & 0o7777, file.mtimeMs],
    [1234, 4321, 0o4711, 1_000_000_000],
  );
  assert.equal(lstatSync(join(mountpoint, "sub/hard")).ino, file.ino);
  assert.equal(readFileSync(join(mountpoint, "sub/relative"), "utf8"), "content");
  assert.ok(lstatSync(join(mountpoint, "absolute")).isSymbolicLink());
  assert.ok(lstatSync(join(mountpoint, "fifo")).isFIFO());
  const device = lstatSync(join(mountpoint, "null"));
  assert.ok(device.isCharacterDevice());
  assert.equal(device.rdev, 0x103);
  assert.equal(lstatSync(join(mountpoint, "sub/deep")).mode & 0o7777, 0o1777);
  withDirectory(mountpoint, (fd) => assert.equal(String(getXattrAt(fd, sub, "user.note")), "here"));
  assert.equal(existsSync(join(at.root, "vol/filling")), false);

  rmSync(join(mountpoint, "file"));
  await store.copyUp("vol", rootfs, "/srv/data");
  assert.equal(existsSync(join(mountpoint, "file")), false, "a volume that is not empty is left alone");
});

test("copy-up resolves the image's links inside the image", async () => {
  await using at = place();
  const store = await at.open();
  const rootfs = join(at.home, "rootfs");
  const canary = join(at.home, "canary");
  mkdirSync(join(rootfs, "real"), { recursive: true });
  mkdirSync(canary);
  writeFileSync(join(canary, "secret"), "of the host");
  writeFileSync(join(rootfs, "real/inside"), "");
  symlinkSync(canary, join(rootfs, "escape"));
  symlinkSync("../../../../../real", join(rootfs, "dots"));
  symlinkSync("/proc/self/root", join(rootfs, "magic"));
  for (const [path, expected] of [
    ["/escape", []],
    ["/dots", ["inside"]],
    [`/magic${canary}`, []],
    ["/nothing/there", []],
    ["/real/inside", []],
  ] as const) {
    const { name, mountpoint } = await store.create({ ...plain, name: "" });
    await store.copyUp(name, rootfs, path);
    assert.deepEqual(readdirSync(mountpoint), expected, path);
  }
});

test("a fill that a crash cut short starts from nothing again", async () => {
  await using at = place();
  let store = await at.open();
  const { mountpoint } = await store.create({ ...plain, name: "vol" });
  writeFileSync(join(at.root, "vol/filling"), "");
  writeFileSync(join(mountpoint, "half"), "");
  store = await at.reopen();
  assert.deepEqual(readdirSync(mountpoint), []);
  const rootfs = imageTree(at.home);
  await store.copyUp("vol", rootfs, "srv/data");
  assert.ok(existsSync(join(mountpoint, "file")));
});

test("usage counts an inode once; a tree deeper than PATH_MAX can be removed", async () => {
  await using at = place();
  const store = await at.open();
  const { mountpoint } = await store.create({ ...plain, name: "vol" });
  writeFileSync(join(mountpoint, "a"), Buffer.alloc(1000));
  linkSync(join(mountpoint, "a"), join(mountpoint, "b"));
  assert.equal(await store.usageBytes("vol"), 1000);
  execFileSync("sh", [
    "-c",
    `cd "$1" && n=${"d".repeat(200)} && for i in $(seq 40); do mkdir $n && cd -P $n || exit 1; done`,
    "sh",
    mountpoint,
  ]);
  await store.remove("vol", { force: false, usedBy: [] });
  await until(() => readdirSync(join(at.root, ".trash")).length === 0);
});

test("whom a volume belonged to when the daemon died decides whether it goes", async () => {
  await using at = place();
  const [one, other] = ["1".repeat(64), "2".repeat(64)] as const;
  const store = await at.open();
  await store.create({ ...plain, name: "half-made", owner: one as ContainerId });
  await store.create({ ...plain, name: "kept", owner: other as ContainerId });
  await store.create({ ...plain, name: "made", owner: one as ContainerId });
  await store.create({ ...plain, name: "nobodys" });
  await at.commit(store.belongsTo("made", undefined));
  const again = await at.reopen();
  assert.deepEqual(
    again.ownerless((owner) => owner === other),
    ["half-made"],
  );
  // A row that is written anew keeps everything else.
  const before = again.get("kept");
  await at.commit(again.belongsTo("kept", one as ContainerId));
  const last = await at.reopen();
  assert.deepEqual(last.get("kept"), before);
  assert.deepEqual(last.ownerless(() => false).sort(), ["half-made", "kept"]);
});
