import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { seccompArchitectures, syscallNumber } from "#sys/seccomp.ts";
import { type Capability, defaultCapabilities } from "./capabilities.ts";
import { compileFilter, createSeccompCompiler } from "./seccomp.ts";
import { defaultSeccompRules } from "./seccomp-default.ts";
import { parseSeccompProfile, resolveSeccomp } from "./seccomp-profile.ts";

const directory = mkdtempSync(join(tmpdir(), "skiff-seccomp-"));
after(() => rmSync(directory, { recursive: true }));
const host = { architecture: "x64", kernelVersion: 6018 };
const ALLOW = "allow";
type Architecture = keyof typeof seccompArchitectures;

/** The kernel's classic BPF machine over `struct seccomp_data`, for the instructions that filters use. */
function run(filter: Buffer, architecture: Architecture, nr: number, args: bigint[]): string {
  const data = Buffer.alloc(64);
  data.writeUInt32LE(nr >>> 0, 0);
  data.writeUInt32LE(
    architecture === "SCMP_ARCH_X32"
      ? seccompArchitectures.SCMP_ARCH_X86_64
      : seccompArchitectures[architecture],
    4,
  );
  args.forEach((arg, index) => void data.writeBigUInt64LE(arg, 16 + index * 8));
  let accumulator = 0;
  for (let at = 0; ; at += 1) {
    const code = filter.readUInt16LE(at * 8);
    const k = filter.readUInt32LE(at * 8 + 4);
    const jump = (taken: boolean): void => {
      at += filter.readUInt8(at * 8 + (taken ? 2 : 3));
    };
    if (code === 0x20) accumulator = data.readUInt32LE(k);
    else if (code === 0x54) accumulator = (accumulator & k) >>> 0;
    else if (code === 0x05) at += k;
    else if (code === 0x15) jump(accumulator === k);
    else if (code === 0x25) jump(accumulator > k);
    else if (code === 0x35) jump(accumulator >= k);
    else if (code === 0x06) {
      if (k === 0x7fff0000) return ALLOW;
      return k >>> 16 === 5 ? `errno ${k & 0xffff}` : `action ${k.toString(16)}`;
    } else assert.fail(`unknown instruction ${code.toString(16)}`);
  }
}

function caller(filter: Buffer, architecture: Architecture = "SCMP_ARCH_X86_64") {
  return (name: string, ...args: (bigint | number)[]): string => {
    // libseccomp gives socketcall's pseudo number for the 32-bit socket.
    const nr =
      architecture === "SCMP_ARCH_X86" && name === "socket" ? 359 : syscallNumber(architecture, name);
    assert.ok(nr !== undefined, `${name} on ${architecture}`);
    return run(
      filter,
      architecture,
      nr,
      args.map((arg) => BigInt.asUintN(64, BigInt(arg))),
    );
  };
}

let standard: Buffer;
before(async () => {
  standard = await compileFilter(resolveSeccomp(defaultSeccompRules, defaultCapabilities, host), directory);
});

test("the default filter allows the everyday calls and refuses the dangerous ones", () => {
  const call = caller(standard);
  for (const name of [
    "read",
    "write",
    "openat",
    "execve",
    "clone",
    "futex",
    "chroot",
    "ptrace",
    "process_vm_readv",
    "statx",
    "prctl",
    "mknod",
    "close_range",
  ]) {
    assert.equal(call(name), ALLOW, name);
  }
  for (const name of [
    "mount",
    "umount2",
    "unshare",
    "setns",
    "bpf",
    "keyctl",
    "add_key",
    "request_key",
    "userfaultfd",
    "perf_event_open",
    "open_by_handle_at",
    "kexec_load",
    "kexec_file_load",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "reboot",
    "init_module",
    "finit_module",
    "pivot_root",
    "move_mount",
    "fsopen",
    "fsmount",
    "open_tree",
    "mount_setattr",
    "iopl",
    "settimeofday",
    "acct",
    "swapon",
    "syslog",
    "quotactl",
    "kcmp",
    "process_madvise",
    "vhangup",
    "mbind",
  ]) {
    assert.equal(call(name), "errno 1", name);
  }
  assert.equal(call("clone3"), "errno 38");
});

test("clone makes no namespaces, whatever other flags or high bits come along", () => {
  const call = caller(standard);
  for (const flag of [0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000]) {
    assert.equal(call("clone", flag), "errno 1", flag.toString(16));
    assert.equal(call("clone", BigInt(flag) | 0x1_0000_0011n), "errno 1");
  }
  assert.equal(call("clone", 0x3d0f00), ALLOW);
});

test("no way to an AF_ALG or AF_VSOCK socket, not by high bits of the argument either", () => {
  for (const architecture of ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"] as const) {
    const call = caller(standard, architecture);
    for (let family = 0; family < 46; family += 1) {
      const expected = family === 38 || family === 40 ? "errno 1" : ALLOW;
      assert.equal(call("socket", family), expected, `${architecture} ${family}`);
      assert.equal(
        call("socket", BigInt(family) | (1n << 32n)),
        expected,
        `${architecture} ${family} with high bits`,
      );
      assert.equal(call("socket", BigInt(family) | (0xffff_ffffn << 32n)), expected);
    }
  }
  const call32 = caller(standard, "SCMP_ARCH_X86");
  assert.equal(call32("socketcall", 1), "errno 1");
  assert.equal(call32("socketcall", 3), ALLOW);
});

test("personality only for five values", () => {
  const call = caller(standard);
  for (const value of [0, 8, 0x20000, 0x20008, 0xffffffff]) assert.equal(call("personality", value), ALLOW);
  for (const value of [1, 0x0040000, 0x0400000, 0x100000000])
    assert.equal(call("personality", value), "errno 1");
});

test("calls newer than the profile answer ENOSYS, so that C libraries fall back", () => {
  for (const architecture of ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"] as const) {
    assert.equal(run(standard, architecture, 600, []), "errno 38");
    assert.equal(run(standard, architecture, 9999, []), "errno 38");
  }
  assert.equal(run(standard, "SCMP_ARCH_X86_64", 0x40000000 | 500, []), "errno 1");
  assert.equal(run(standard, "SCMP_ARCH_X86_64", 0xffffffff, []), "errno 1");
  assert.match(run(standard, "SCMP_ARCH_AARCH64", 63, []), /^action 0/);
});

test("capabilities open their calls and no others", async () => {
  const cases: [Capability, string[]][] = [
    ["CAP_SYS_ADMIN", ["mount", "unshare", "setns", "clone3", "bpf", "perf_event_open", "fsopen"]],
    ["CAP_SYS_PTRACE", ["kcmp", "pidfd_getfd", "process_madvise"]],
    ["CAP_SYS_MODULE", ["init_module", "finit_module", "delete_module"]],
    ["CAP_DAC_READ_SEARCH", ["open_by_handle_at"]],
    ["CAP_SYS_BOOT", ["reboot"]],
    ["CAP_SYS_TIME", ["settimeofday", "clock_settime"]],
    ["CAP_SYS_NICE", ["mbind", "set_mempolicy"]],
    ["CAP_SYSLOG", ["syslog"]],
    ["CAP_BPF", ["bpf"]],
    ["CAP_PERFMON", ["perf_event_open"]],
    ["CAP_SYS_RAWIO", ["iopl", "ioperm"]],
    ["CAP_SYS_PACCT", ["acct"]],
    ["CAP_SYS_TTY_CONFIG", ["vhangup"]],
  ];
  const plain = caller(standard);
  for (const [capability, names] of cases) {
    const resolved = resolveSeccomp(defaultSeccompRules, [...defaultCapabilities, capability], host);
    const call = caller(await compileFilter(resolved, directory));
    for (const name of names) {
      assert.equal(call(name), ALLOW, `${name} with ${capability}`);
      assert.notEqual(plain(name), ALLOW, name);
    }
    assert.equal(call("keyctl"), "errno 1");
    if (capability === "CAP_SYS_ADMIN") assert.equal(call("clone", 0x7e020000), ALLOW);
  }
  const noChroot = resolveSeccomp(defaultSeccompRules, [], host);
  assert.equal(caller(await compileFilter(noChroot, directory))("chroot"), "errno 1");
  const old = resolveSeccomp(defaultSeccompRules, [], { ...host, kernelVersion: 4007 });
  assert.equal(caller(await compileFilter(old, directory))("ptrace"), "errno 1");
});

test("the profile for arm64 is resolved with its own calls", () => {
  const resolved = resolveSeccomp(defaultSeccompRules, defaultCapabilities, {
    ...host,
    architecture: "arm64",
  });
  assert.deepEqual(resolved.architectures, ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]);
  const names = new Set(resolved.syscalls.flatMap((syscall) => syscall.names));
  assert.ok(names.has("sync_file_range2") && !names.has("arch_prctl") && !names.has("modify_ldt"));
});

test("a profile in Docker's format is honoured: names, arguments, conditions, actions", async () => {
  const profile = parseSeccompProfile(
    JSON.stringify({
      defaultAction: "SCMP_ACT_ALLOW",
      archMap: [{ architecture: "SCMP_ARCH_X86_64", subArchitectures: [] }],
      syscalls: [
        { names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO", errnoRet: 13 },
        { name: "chmod", action: "SCMP_ACT_ERRNO" },
        {
          names: ["kill"],
          action: "SCMP_ACT_KILL_PROCESS",
          args: [{ index: 1, value: 9, op: "SCMP_CMP_EQ" }],
        },
        { names: ["chown"], action: "SCMP_ACT_ERRNO", includes: { caps: ["CAP_SYS_ADMIN"] } },
        { names: ["rmdir"], action: "SCMP_ACT_ERRNO", excludes: { caps: ["CAP_CHOWN"] } },
        { names: ["link"], action: "SCMP_ACT_ERRNO", includes: { minKernel: "99.0" } },
        { names: ["no_such_call_ever"], action: "SCMP_ACT_ERRNO" },
      ],
    }),
  );
  const call = caller(await compileFilter(resolveSeccomp(profile, defaultCapabilities, host), directory));
  assert.deepEqual(
    ["mkdir", "mkdirat", "chmod", "chown", "rmdir", "link", "unlink"].map((name) => call(name)),
    ["errno 13", "errno 13", "errno 1", ALLOW, ALLOW, ALLOW, ALLOW],
  );
  assert.deepEqual([call("kill", 1, 9), call("kill", 1, 15)], ["action 80000000", ALLOW]);
});

test("a bad profile is refused before anything starts", () => {
  const cases = [
    "{bad",
    "[]",
    "{}",
    '{"defaultAction":"SCMP_ACT_MAYBE"}',
    '{"defaultAction":"SCMP_ACT_NOTIFY","listenerPath":"/x"}',
    '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}',
    '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"X"}]}',
    '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":9,"op":"SCMP_CMP_EQ"}]}]}',
    '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"op":"=="}]}]}',
    `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":${JSON.stringify(new Array(5000).fill("read"))},"action":"SCMP_ACT_ALLOW"}]}`,
  ];
  for (const text of cases)
    assert.throws(() => parseSeccompProfile(text), /^EngineError: Decoding seccomp profile failed/, text);
});

test("equal profiles are compiled once, and found again by the next daemon", async () => {
  const own = mkdtempSync(join(directory, "own-"));
  const compiler = createSeccompCompiler(own);
  const resolved = resolveSeccomp(defaultSeccompRules, defaultCapabilities, host);
  const [one, two] = await Promise.all([
    compiler.compile(resolved),
    compiler.compile(resolveSeccomp(defaultSeccompRules, defaultCapabilities, host)),
  ]);
  assert.equal(one, two);
  assert.deepEqual(readdirSync(own), [one.path.slice(own.length + 1)]);
  assert.deepEqual(readFileSync(one.path), standard);
  assert.equal(one.base64, standard.toString("base64"));
  assert.equal((await createSeccompCompiler(own).compile(resolved)).path, one.path);
});
