import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { EngineError, errnoOf } from "#base/errors.ts";
import {
  compileSeccomp,
  type SeccompArchitecture,
  type SeccompOperator,
  type SeccompProgram,
  seccompArchitectures,
  syscallNumber,
} from "#sys/seccomp.ts";
import type { OciSeccomp } from "#wire/oci-runtime.ts";
import { seccompKey } from "./seccomp-profile.ts";

/**
 * Filters compiled once: a runtime spends 15 ms of CPU on the default profile at every start. A compiled filter is kept
 * in memory and under the exec root (a tmpfs: it does not outlive the kernel it was made for).
 */
export interface CompiledSeccomp {
  /** The raw `struct sock_filter` array, for the shim's execs. */
  readonly path: string;
  /** The same for crun's annotation `run.oci.seccomp_bpf_data`. */
  readonly base64: string;
}

export interface SeccompCompiler {
  compile(seccomp: OciSeccomp): Promise<CompiledSeccomp>;
}

const returns: Readonly<Record<string, number>> = {
  SCMP_ACT_KILL: 0x0000_0000,
  SCMP_ACT_KILL_THREAD: 0x0000_0000,
  SCMP_ACT_KILL_PROCESS: 0x8000_0000,
  SCMP_ACT_TRAP: 0x0003_0000,
  SCMP_ACT_ERRNO: 0x0005_0000,
  SCMP_ACT_TRACE: 0x7ff0_0000,
  SCMP_ACT_LOG: 0x7ffc_0000,
  SCMP_ACT_ALLOW: 0x7fff_0000,
};
const EPERM = 1;
const ENOSYS = 38;
/** The kernel takes no longer filter: BPF_MAXINSNS. */
const instructionsMax = 4096;
/** One filter a distinct set of capabilities or profile; containers with hand-written profiles must not grow the daemon. */
const cachedMax = 64;

function returnValue(action: string, errnoRet: number | undefined): number {
  const value = returns[action];
  if (value === undefined) throw new EngineError("invalid", `unknown seccomp action ${action}`);
  const carriesErrno = action === "SCMP_ACT_ERRNO" || action === "SCMP_ACT_TRACE";
  return carriesErrno ? value | ((errnoRet ?? EPERM) & 0xffff) : value;
}

function isArchitecture(name: string): name is SeccompArchitecture {
  return Object.hasOwn(seccompArchitectures, name);
}

function toProgram(seccomp: OciSeccomp): SeccompProgram {
  const architectures = seccomp.architectures.map((name) => {
    if (!isArchitecture(name)) throw new EngineError("invalid", `unknown seccomp architecture ${name}`);
    return name;
  });
  return {
    defaultAction: returnValue(seccomp.defaultAction, seccomp.defaultErrnoRet),
    architectures,
    rules: seccomp.syscalls.flatMap(({ names, action, errnoRet, args = [] }) =>
      names.map((name) => ({
        name,
        action: returnValue(action, errnoRet),
        conditions: args.map((argument) => ({
          index: argument.index,
          operator: argument.op as SeccompOperator,
          value: BigInt(argument.value),
          valueTwo: BigInt(argument.valueTwo ?? 0),
        })),
      })),
    ),
  };
}

// struct sock_filter: u16 code, u8 jump if true, u8 jump if false, u32 k.
function instruction(code: number, jumpTrue: number, jumpFalse: number, k: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt16LE(code, 0);
  bytes.writeUInt8(jumpTrue, 2);
  bytes.writeUInt8(jumpFalse, 3);
  bytes.writeUInt32LE(k >>> 0, 4);
  return bytes;
}

const LD_WORD = 0x20;
const JUMP = 0x05;
const JUMP_EQ = 0x15;
const JUMP_GT = 0x25;
const JUMP_GE = 0x35;
const RETURN = 0x06;
const seccompDataNr = 0;
const seccompDataArch = 4;
const seccompDataFirstArgument = 16;
const x86Socketcall = 102;
const SYS_SOCKET = 1;
/** Above it lie ARM's private calls and x32's bit; no architecture counts up to it. */
const privateCalls = 0x0f_0000;

/**
 * libseccomp lets a rule for `socket` stand for socketcall(SYS_SOCKET) of 32-bit x86, too, and forgets its conditions there
 * (they are behind a pointer): a profile that filters families would be open through it. It answers EPERM instead.
 */
function socketcallGuard(seccomp: OciSeccomp, architecture: SeccompArchitecture): Buffer[] {
  const filtered = seccomp.syscalls.some((rule) => rule.names.includes("socket") && rule.args !== undefined);
  const open = seccomp.syscalls.some((rule) => rule.names.includes("socket") && rule.args === undefined);
  if (architecture !== "SCMP_ARCH_X86" || !filtered || open) return [];
  return [
    instruction(JUMP_EQ, 0, 3, x86Socketcall),
    instruction(LD_WORD, 0, 0, seccompDataFirstArgument),
    instruction(JUMP_EQ, 0, 1, SYS_SOCKET),
    instruction(RETURN, 0, 0, returns["SCMP_ACT_ERRNO"]! | EPERM),
  ];
}

function highestCall(seccomp: OciSeccomp, architecture: SeccompArchitecture): number {
  let highest = 0;
  for (const syscall of seccomp.syscalls.flatMap((entry) => entry.names)) {
    const number = syscallNumber(architecture, syscall) ?? 0;
    if (number > highest && number < privateCalls) highest = number;
  }
  return highest;
}

/**
 * What stands before the filter proper. C libraries probe for calls newer than the profile and expect ENOSYS, not EPERM, to
 * fall back (as runc answers too): numbers above the highest one that the profile knows get it.
 */
export function filterPrologue(seccomp: OciSeccomp): Buffer {
  const deniesWithEperm =
    seccomp.defaultAction === "SCMP_ACT_ERRNO" && (seccomp.defaultErrnoRet ?? EPERM) === EPERM;
  if (!deniesWithEperm) return Buffer.alloc(0);
  // x32 shares x86_64's token and is told apart by a bit of the number.
  const architectures = seccomp.architectures.filter(
    (name): name is SeccompArchitecture => isArchitecture(name) && name !== "SCMP_ARCH_X32",
  );
  let rest: Buffer[] = [];
  for (const name of architectures.toReversed()) {
    const guard = socketcallGuard(seccomp, name);
    const block = [
      instruction(LD_WORD, 0, 0, seccompDataNr),
      instruction(JUMP_GE, 2 + guard.length, 0, privateCalls),
      instruction(JUMP_GT, 0, 1, highestCall(seccomp, name)),
      instruction(RETURN, 0, 0, returns["SCMP_ACT_ERRNO"]! | ENOSYS),
      ...guard,
      instruction(JUMP, 0, 0, rest.length),
    ];
    rest = [instruction(JUMP_EQ, 0, block.length, seccompArchitectures[name]), ...block, ...rest];
  }
  return Buffer.concat([instruction(LD_WORD, 0, 0, seccompDataArch), ...rest]);
}

/** Bytes of a filter as the kernel takes them. Throws `invalid` when it would be longer than the kernel allows. */
export async function compileFilter(seccomp: OciSeccomp, scratchDirectory: string): Promise<Buffer> {
  const program = await compileSeccomp(toProgram(seccomp), scratchDirectory);
  const whole = Buffer.concat([filterPrologue(seccomp), program]);
  if (whole.length > instructionsMax * 8) {
    throw new EngineError("invalid", "the seccomp profile is too large for the kernel", {
      code: "seccomp-profile",
    });
  }
  return whole;
}

/** A compiler that keeps its results in `directory` (made, mode 0700). */
export function createSeccompCompiler(directory: string): SeccompCompiler {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const cache = new Map<string, Promise<CompiledSeccomp>>();

  async function make(seccomp: OciSeccomp, key: string): Promise<CompiledSeccomp> {
    const path = `${directory}/${key}.bpf`;
    let bytes: Buffer;
    try {
      bytes = readFileSync(path);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      bytes = await compileFilter(seccomp, directory);
      const temporary = `${path}.${randomBytes(6).toString("hex")}`;
      writeFileSync(temporary, bytes, { mode: 0o400, flag: "wx" });
      renameSync(temporary, path);
    }
    return { path, base64: bytes.toString("base64") };
  }

  const keys = new WeakMap<OciSeccomp, string>();
  return {
    compile(seccomp) {
      let key = keys.get(seccomp);
      if (key === undefined) {
        key = seccompKey(seccomp);
        keys.set(seccomp, key);
      }
      const known = cache.get(key);
      if (known !== undefined) return known;
      const result = make(seccomp, key);
      cache.set(key, result);
      // A failed compile is asked for again next time.
      result.catch(() => cache.delete(key));
      if (cache.size > cachedMax) cache.delete(cache.keys().next().value!);
      return result;
    },
  };
}
