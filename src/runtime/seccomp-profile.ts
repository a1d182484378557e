import { createHash } from "node:crypto";
import { EngineError } from "#base/errors.ts";
import * as go from "#wire/go-json.ts";
import type { OciSeccomp, OciSeccompArgument } from "#wire/oci-runtime.ts";
import type { Capability } from "./capabilities.ts";

/**
 * A system call profile in Docker's format: the OCI's `linux.seccomp` plus conditions on capabilities, architectures and
 * the kernel's version, which the engine resolves because no OCI runtime knows them.
 */
export interface SeccompConditions {
  readonly caps?: readonly string[];
  /** Go's architecture names: `amd64`, `x32`, `x86`, `arm64`, `arm`. */
  readonly arches?: readonly string[];
  /** `4.8`. */
  readonly minKernel?: string;
}

export interface SeccompRuleSet {
  readonly defaultAction: string;
  readonly defaultErrnoRet?: number;
  readonly architectures?: readonly string[];
  readonly archMap?: readonly {
    readonly architecture: string;
    readonly subArchitectures: readonly string[];
  }[];
  readonly flags?: readonly string[];
  readonly syscalls: readonly {
    readonly names: readonly string[];
    readonly action: string;
    readonly errnoRet?: number;
    readonly args?: readonly OciSeccompArgument[];
    readonly includes?: SeccompConditions;
    readonly excludes?: SeccompConditions;
  }[];
}

export interface SeccompHost {
  /** Node's name: `x64`, `arm64`. */
  readonly architecture: string;
  /** `major * 1000 + minor`. */
  readonly kernelVersion: number;
}

const nativeArchitectures: Readonly<Record<string, { readonly go: string; readonly scmp: string }>> = {
  x64: { go: "amd64", scmp: "SCMP_ARCH_X86_64" },
  arm64: { go: "arm64", scmp: "SCMP_ARCH_AARCH64" },
};

const actions = new Set([
  "SCMP_ACT_KILL",
  "SCMP_ACT_KILL_PROCESS",
  "SCMP_ACT_KILL_THREAD",
  "SCMP_ACT_TRAP",
  "SCMP_ACT_ERRNO",
  "SCMP_ACT_TRACE",
  "SCMP_ACT_ALLOW",
  "SCMP_ACT_LOG",
]);

const operators = new Set([
  "SCMP_CMP_NE",
  "SCMP_CMP_LT",
  "SCMP_CMP_LE",
  "SCMP_CMP_EQ",
  "SCMP_CMP_GE",
  "SCMP_CMP_GT",
  "SCMP_CMP_MASKED_EQ",
]);

/** As many rules as ten default profiles: compiling takes time that grows with the square. */
const rulesMax = 4096;

function invalid(detail: string): EngineError {
  return new EngineError("invalid", `Decoding seccomp profile failed: ${detail}`, {
    code: "seccomp-profile",
  });
}

const conditionsSchema = go.struct("Filter", {
  caps: go.list(go.string),
  arches: go.list(go.string),
  minKernel: go.string,
});

const profileSchema = go.struct("Seccomp", {
  defaultAction: go.string,
  defaultErrnoRet: go.nullable(go.integer),
  architectures: go.list(go.string),
  archMap: go.list(
    go.struct("Architecture", { architecture: go.string, subArchitectures: go.list(go.string) }),
  ),
  flags: go.list(go.string),
  listenerPath: go.string,
  syscalls: go.list(
    go.struct("Syscall", {
      name: go.string,
      names: go.list(go.string),
      action: go.string,
      errnoRet: go.nullable(go.integer),
      // uint64 in Go: an unsigned number that a double holds exactly is all that real profiles use.
      args: go.list(
        go.struct("Arg", { index: go.integer, value: go.integer, valueTwo: go.integer, op: go.string }),
      ),
      includes: conditionsSchema,
      excludes: conditionsSchema,
    }),
  ),
});

type Decoded = go.Infer<typeof profileSchema>;

function checkSyscall(syscall: Decoded["syscalls"][number]): void {
  if (syscall.name !== "" && syscall.names.length > 0) {
    throw invalid("'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'");
  }
  if (!actions.has(syscall.action)) throw invalid(`unknown action ${syscall.action}`);
  for (const argument of syscall.args) {
    if (argument.index < 0 || argument.index > 5 || argument.value < 0 || argument.valueTwo < 0) {
      throw invalid(`bad argument condition of ${syscall.names.join(" ")}${syscall.name}`);
    }
    if (!operators.has(argument.op)) throw invalid(`unknown operator ${argument.op}`);
  }
}

/** Reads a profile as `--security-opt seccomp=` gives it. Throws `invalid`. */
export function parseSeccompProfile(text: string): SeccompRuleSet {
  let decoded: Decoded;
  try {
    decoded = go.decodeJson(profileSchema, text);
  } catch (cause) {
    throw new EngineError("invalid", `Decoding seccomp profile failed: ${(cause as Error).message}`, {
      cause,
    });
  }
  if (!actions.has(decoded.defaultAction)) throw invalid(`unknown action ${decoded.defaultAction}`);
  if (decoded.listenerPath !== "") throw invalid("listenerPath is not supported");
  if (decoded.architectures.length > 0 && decoded.archMap.length > 0) {
    throw invalid(
      "'architectures' and 'archMap' were specified in the seccomp profile, use either 'architectures' or 'archMap'",
    );
  }
  let rules = 0;
  for (const syscall of decoded.syscalls) {
    checkSyscall(syscall);
    rules += syscall.names.length + 1;
  }
  if (rules > rulesMax) throw invalid(`more than ${rulesMax} rules`);
  return {
    ...decoded,
    defaultErrnoRet: decoded.defaultErrnoRet ?? 1,
    syscalls: decoded.syscalls.map(({ errnoRet, name, names, ...rest }) => ({
      ...rest,
      names: name === "" ? names : [name],
      ...(errnoRet === null ? {} : { errnoRet }),
    })),
  };
}

function kernelNumber(text: string): number {
  const match = /^(\d+)\.(\d+)$/.exec(text);
  if (match === null) throw invalid(`invalid kernel version: ${text}`);
  return Number(match[1]) * 1000 + Number(match[2]);
}

/** Docker's rule: includes need every capability, any of the architectures and the kernel; excludes need just one. */
function applies(
  syscall: SeccompRuleSet["syscalls"][number],
  has: ReadonlySet<string>,
  goArch: string,
  kernelVersion: number,
): boolean {
  const { includes = {}, excludes = {} } = syscall;
  if ((excludes.caps ?? []).some((name) => has.has(name))) return false;
  if ((excludes.arches ?? []).includes(goArch)) return false;
  if (excludes.minKernel && kernelVersion >= kernelNumber(excludes.minKernel)) return false;
  if (!(includes.caps ?? []).every((name) => has.has(name))) return false;
  const arches = includes.arches ?? [];
  if (arches.length > 0 && !arches.includes(goArch)) return false;
  return !(includes.minKernel && kernelVersion < kernelNumber(includes.minKernel));
}

/** The profile for one container on this host: conditions resolved, in the form that a runtime's `linux.seccomp` has. */
export function resolveSeccomp(
  profile: SeccompRuleSet,
  capabilities: readonly Capability[],
  host: SeccompHost,
): OciSeccomp {
  const native = nativeArchitectures[host.architecture];
  if (native === undefined) throw new EngineError("system", `no seccomp profile for ${host.architecture}`);
  const mapped = profile.archMap?.find((entry) => entry.architecture === native.scmp);
  const has = new Set<string>(capabilities);
  const architectures =
    mapped === undefined ? (profile.architectures ?? []) : [mapped.architecture, ...mapped.subArchitectures];
  const flags = profile.flags ?? [];
  return {
    defaultAction: profile.defaultAction,
    ...(profile.defaultAction === "SCMP_ACT_ERRNO" ? { defaultErrnoRet: profile.defaultErrnoRet ?? 1 } : {}),
    architectures,
    ...(flags.length === 0 ? {} : { flags }),
    syscalls: profile.syscalls
      .filter((syscall) => applies(syscall, has, native.go, host.kernelVersion))
      .map(({ names, action, errnoRet, args }) => ({
        names,
        action,
        ...(errnoRet === undefined ? {} : { errnoRet }),
        ...(args === undefined || args.length === 0 ? {} : { args }),
      })),
  };
}

/** Equal profiles compile to equal programs: the name of the compiled file. */
export function seccompKey(seccomp: OciSeccomp): string {
  return createHash("sha256").update(JSON.stringify(seccomp)).digest("hex");
}
