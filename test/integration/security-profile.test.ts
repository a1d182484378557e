import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { defaultCapabilities } from "#runtime/capabilities.ts";
import type { Sandbox, SandboxRequest } from "#runtime/runtime.ts";
import { defaultMaskedPaths, defaultReadonlyPaths } from "#runtime/security-profile.ts";
import { exec, RuntimeRig, stop } from "./runtime-rig.ts";

/** The default profile as a container meets it: each item is tried from inside, by the first process and by an exec. */
let rig: RuntimeRig;
before(async () => {
  rig = await RuntimeRig.start();
});
after(() => rig[Symbol.asyncDispose]());

type Runner = (args: readonly string[], changes?: Partial<SandboxRequest>) => Promise<string>;

/** Results of `probe <names>` by name. */
async function probe(
  run: Runner,
  names: readonly string[],
  changes?: Partial<SandboxRequest>,
): Promise<Map<string, string>> {
  const output = await run(["probe", ...names], changes);
  return new Map(
    output
      .trim()
      .split("\n")
      .map((line) => [line.slice(0, line.indexOf(" ")), line.slice(line.indexOf(" ") + 1)]),
  );
}

function status(text: string): Map<string, string> {
  return new Map(
    text
      .trim()
      .split("\n")
      .map((line) => line.split(/:\s*/, 2) as [string, string]),
  );
}

const deniedCalls = [
  "unshare",
  "setns",
  "mount",
  "umount",
  "fsopen",
  "open_tree",
  "move_mount",
  "mount_setattr",
  "pivot_root",
  "bpf",
  "keyctl",
  "add_key",
  "request_key",
  "userfaultfd",
  "perf_event_open",
  "open_by_handle_at",
  "kexec_load",
  "io_uring_setup",
  "init_module",
  "reboot",
  "swapon",
  "quotactl",
  "acct",
  "iopl",
  "syslog",
  "settimeofday",
  "sethostname",
  "personality",
];
const namespaceClones = ["20000", "2000000", "4000000", "8000000", "10000000", "20000000", "40000000"];
const grantedAttempts = [
  "cap-chown",
  "cap-dac_override",
  "cap-fowner",
  "cap-fsetid",
  "cap-mknod",
  "cap-net_raw",
  "cap-setuid",
  "cap-setgid",
  "cap-setpcap",
  "cap-sys_chroot",
  "cap-kill",
  "cap-setfcap",
  "cap-net_bind_service",
];
const withheldAttempts = [
  "cap-sys_time",
  "cap-sys_resource",
  "cap-net_admin",
  "cap-dac_read_search",
  "cap-sys_module",
  "cap-linux_immutable",
];
/** Host devices that exist here or not: the device group refuses before the driver is asked. */
const deniedDevices = [
  "char-1-1",
  "char-1-2",
  "char-1-4",
  "char-1-11",
  "char-4-64",
  "char-10-229",
  "char-10-200",
  "block-7-0",
  "block-8-0",
  "block-254-0",
  "block-253-0",
];
const allowedDevices = ["char-1-3", "char-1-5", "char-1-7", "char-1-8", "char-1-9", "char-5-0", "char-5-2"];

async function checkCalls(run: Runner): Promise<void> {
  const sockets = ["socket-38", "socket-40", "socket-high-38", "socket-high-40"];
  const results = await probe(run, [
    ...deniedCalls,
    ...namespaceClones.map((flags) => `clone-${flags}`),
    ...sockets,
    "clone",
    "clone3",
    "unknown-syscall",
    "ptrace",
    "socket-1",
    "socket-2",
  ]);
  for (const name of [...deniedCalls, ...namespaceClones.map((flags) => `clone-${flags}`), ...sockets]) {
    assert.equal(results.get(name), "EPERM", name);
  }
  assert.deepEqual(
    ["clone3", "unknown-syscall"].map((name) => results.get(name)),
    ["ENOSYS", "ENOSYS"],
  );
  assert.deepEqual(
    ["clone", "ptrace", "socket-1", "socket-2"].map((name) => results.get(name)),
    ["ok", "ok", "ok", "ok"],
  );
}

async function checkIdentity(run: Runner): Promise<void> {
  const fields = status(await run(["cat", "/proc/self/status"]));
  const mask = "00000000a80425fb";
  assert.deepEqual(
    ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb", "Seccomp", "Seccomp_filters", "NoNewPrivs"].map(
      (name) => fields.get(name),
    ),
    [mask, mask, mask, "0000000000000000", "0000000000000000", "2", "1", "0"],
  );
}

async function checkCapabilities(run: Runner): Promise<void> {
  const results = await probe(run, [...grantedAttempts, ...withheldAttempts]);
  for (const name of grantedAttempts) assert.equal(results.get(name), "ok", name);
  for (const name of withheldAttempts) assert.equal(results.get(name), "EPERM", name);
}

async function checkPaths(run: Runner): Promise<void> {
  const masked = defaultMaskedPaths.filter((path) => existsSync(path));
  assert.ok(masked.length >= 4, "this host has hardly any path to mask");
  const script = masked
    .map((path) => `if [ -d ${path} ]; then ls -A ${path} | wc -l; else wc -c < ${path}; fi`)
    .join("; ");
  const counts = (await run(["sh", "-c", script])).trim().split("\n").map(Number);
  assert.deepEqual(
    counts,
    masked.map(() => 0),
    masked.join(" "),
  );
  const readonlyHere = defaultReadonlyPaths.filter((path) => existsSync(path));
  const targets = [
    ...(readonlyHere.includes("/proc/sysrq-trigger") ? ["write:/proc/sysrq-trigger"] : []),
    "write:/proc/sys/kernel/domainname",
    "write:/proc/sys/kernel/core_pattern",
    "create:/sys/x",
    "write:/sys/kernel/mm/transparent_hugepage/enabled",
    "create:/sys/fs/cgroup/pids/x",
    "write:/sys/fs/cgroup/pids/cgroup.procs",
  ];
  const results = await probe(run, targets);
  for (const target of targets) {
    if (results.get(target) !== "ENOENT") assert.equal(results.get(target), "EROFS", target);
  }
  assert.equal(results.get("write:/proc/sys/kernel/core_pattern"), "EROFS");
  const mounts = await run(["cat", "/proc/mounts"]);
  for (const path of readonlyHere) {
    if (!defaultMaskedPaths.includes(path)) assert.match(mounts, new RegExp(` ${path} proc ro,`), path);
  }
}

async function checkDevices(run: Runner, runtimeName: string): Promise<void> {
  const results = await probe(run, [...deniedDevices, ...allowedDevices, "mknod-10-229", "mknod-8-0"]);
  for (const name of deniedDevices) {
    // runc before 1.2 adds /dev/net/tun behind the spec's own rules, under Docker too.
    if (name === "char-10-200" && runtimeName === "runc") continue;
    assert.equal(results.get(name), "EPERM", name);
  }
  for (const name of allowedDevices) assert.equal(results.get(name), "ok", name);
  assert.deepEqual([results.get("mknod-10-229"), results.get("mknod-8-0")], ["ok", "ok"]);
}

async function checkMounts(run: Runner): Promise<void> {
  const mounts = new Map(
    (await run(["cat", "/proc/mounts"]))
      .trim()
      .split("\n")
      .map((line) => {
        const [, target = "", type = "", options = ""] = line.split(" ");
        return [target, `${type} ${options}`] as const;
      }),
  );
  const expected: [string, RegExp][] = [
    ["/proc", /^proc rw,nosuid,nodev,noexec/],
    ["/dev", /^tmpfs rw,nosuid,.*size=65536k,mode=755/],
    ["/dev/pts", /^devpts rw,nosuid,noexec,.*gid=5,mode=620,ptmxmode=666/],
    ["/sys", /^sysfs ro,nosuid,nodev,noexec/],
    ["/dev/mqueue", /^mqueue rw,nosuid,nodev,noexec/],
    ["/dev/shm", /^tmpfs rw,nosuid,nodev,noexec,.*size=65536k/],
    ["/sys/fs/cgroup/memory", /^cgroup ro,nosuid,nodev,noexec/],
  ];
  for (const [path, pattern] of expected) assert.match(mounts.get(path) ?? "absent", pattern, path);
  assert.equal((await run(["stat", "-c", "%a", "/dev/shm", "/dev/null"])).trim(), "1777\n666");
  const names = (await run(["ls", "/dev"])).trim().split("\n");
  const known = new Set([
    "core",
    "fd",
    "full",
    "mqueue",
    "null",
    "ptmx",
    "pts",
    "random",
    "shm",
    "stderr",
    "stdin",
    "stdout",
    "tty",
    "urandom",
    "zero",
    "console",
  ]);
  assert.deepEqual(
    names.filter((name) => !known.has(name)),
    [],
    "no device of the host's",
  );
}

for (const runtimeName of ["crun", "runc"]) {
  describe(`default profile by ${runtimeName}, first process`, () => {
    const run: Runner = async (args, changes) => {
      const { stdout, stderr } = await rig.run(args, { runtimeName, ...changes });
      assert.equal(stderr, "");
      return stdout;
    };
    test("capabilities and filter are on, nothing is inheritable or ambient", () => checkIdentity(run));
    test("system calls that leave the container fail, families of sockets too", () => checkCalls(run));
    test("each capability works or is missing", () => checkCapabilities(run));
    test("masked paths read empty, read-only paths refuse writes", () => checkPaths(run));
    test("devices: the harmless ones alone", () => checkDevices(run, runtimeName));
    test("file systems are mounted with Docker's options", () => checkMounts(run));
    test("descriptors 0 to 2 and no others", async () =>
      assert.equal(await run(["probe", "fds"]), "fds 0 1 2\n"));
    test("each default capability can be dropped, and is then gone", async () => {
      for (const name of defaultCapabilities) {
        const fields = status(await run(["cat", "/proc/self/status"], { capDrop: [name.slice(4)] }));
        assert.notEqual(fields.get("CapBnd"), "00000000a80425fb", name);
      }
      const attempts = grantedAttempts.filter((name) => name !== "cap-net_bind_service");
      const results = await probe(run, attempts, { capDrop: ["ALL"] });
      for (const name of attempts) assert.notEqual(results.get(name), "ok", name);
      assert.equal((await probe(run, ["cap-kill"], { capDrop: ["KILL"] })).get("cap-kill"), "EPERM");
    });
    test("a user has no capability in effect, and no-new-privileges holds", async () => {
      const fields = status(
        await run(["cat", "/proc/self/status"], { user: "app", securityOpt: ["no-new-privileges"] }),
      );
      assert.deepEqual(
        ["CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Uid", "Groups"].map((name) => fields.get(name)?.trim()),
        [
          "0000000000000000",
          "0000000000000000",
          "00000000a80425fb",
          "1",
          "1000\t1000\t1000\t1000",
          "10 29 1000",
        ],
      );
    });
    test("a capability opens the calls that belong to it", async () => {
      const results = await probe(run, ["mount", "unshare", "clone3", "clone-20000", "keyctl"], {
        capAdd: ["SYS_ADMIN"],
      });
      assert.deepEqual([...results.values()], ["ok", "ok", "ok", "ok", "EPERM"]);
    });
    test("seccomp=unconfined and a profile of one's own", async () => {
      const open = status(await run(["cat", "/proc/self/status"], { securityOpt: ["seccomp=unconfined"] }));
      assert.equal(open.get("Seccomp"), "0");
      const profile = JSON.stringify({
        defaultAction: "SCMP_ACT_ALLOW",
        syscalls: [{ names: ["sethostname"], action: "SCMP_ACT_ERRNO", errnoRet: 38 }],
      });
      const results = await probe(run, ["sethostname", "keyctl"], { securityOpt: [`seccomp=${profile}`] });
      assert.equal(results.get("sethostname"), "ENOSYS");
      assert.notEqual(results.get("keyctl"), "EPERM");
    });
    test("privileged grants what the daemon has, and opens paths and devices", async () => {
      const fields = status(await run(["cat", "/proc/self/status"], { privileged: true }));
      const own = /^CapBnd:\s*(.*)$/m.exec(
        spawnSync("cat", ["/proc/self/status"], { encoding: "utf8" }).stdout,
      )?.[1];
      assert.deepEqual([fields.get("CapEff"), fields.get("Seccomp")], [own, "0"]);
      const results = await probe(run, ["mount", "char-1-11", "create:/sys/fs/cgroup/pids/../x"], {
        privileged: true,
      });
      assert.deepEqual([results.get("mount"), results.get("char-1-11")], ["ok", "ok"]);
      const mounts = await run(["cat", "/proc/mounts"], { privileged: true });
      assert.match(mounts, / \/sys sysfs rw,/);
      assert.doesNotMatch(mounts, / \/proc\/sys /);
    });
  });

  describe(`default profile by ${runtimeName}, exec`, () => {
    let sandbox: Sandbox;
    before(async () => {
      ({ sandbox } = await rig.sleeper({ runtimeName }));
    });
    after(() => stop(sandbox));
    const run: Runner = async (args) => {
      const { stdout, stderr } = await exec(sandbox, args);
      assert.equal(stderr, "");
      return stdout;
    };
    test("capabilities and filter are on, nothing is inheritable or ambient", () => checkIdentity(run));
    test("system calls that leave the container fail, families of sockets too", () => checkCalls(run));
    test("each capability works or is missing", () => checkCapabilities(run));
    test("masked paths read empty, read-only paths refuse writes", () => checkPaths(run));
    test("devices: the harmless ones alone", () => checkDevices(run, runtimeName));
    test("descriptors 0 to 2 and no others", async () =>
      assert.equal(await run(["probe", "fds"]), "fds 0 1 2\n"));
    test("a user has no capability in effect; root in a user's container has the bounding set", async () => {
      const asUser = status(
        (await exec(sandbox, ["cat", "/proc/self/status"], { user: "app:audio" })).stdout,
      );
      assert.deepEqual(
        ["CapEff", "CapBnd", "Uid", "Gid", "Groups"].map((name) => asUser.get(name)?.trim()),
        ["0000000000000000", "00000000a80425fb", "1000\t1000\t1000\t1000", "29\t29\t29\t29", "29"],
      );
      const other = await rig.sleeper({ runtimeName, user: "app" });
      const asRoot = status(
        (await exec(other.sandbox, ["cat", "/proc/self/status"], { user: "root" })).stdout,
      );
      assert.equal(asRoot.get("CapEff"), "00000000a80425fb");
      const asDefault = status((await exec(other.sandbox, ["cat", "/proc/self/status"])).stdout);
      assert.equal(asDefault.get("Uid"), "1000\t1000\t1000\t1000");
      await stop(other.sandbox);
    });
    test("a privileged exec has the daemon's capabilities under the container's filter", async () => {
      const fields = status((await exec(sandbox, ["cat", "/proc/self/status"], { privileged: true })).stdout);
      assert.equal(fields.get("Seccomp"), "2");
      assert.notEqual(fields.get("CapEff"), "00000000a80425fb");
    });
    test("a working directory that is a descriptor leads nowhere outside", async () => {
      for (let number = 3; number < 24; number += 1) {
        const attempt = exec(sandbox, ["sh", "-c", "cat ../../../../../../../../etc/debian_version"], {
          workingDir: `/proc/self/fd/${number}`,
        });
        const outcome = await attempt.catch((error: Error) => error);
        if (outcome instanceof Error) continue;
        assert.notEqual(outcome.exitCode, 0, `descriptor ${number}: ${outcome.stdout}`);
      }
    });
  });
}
