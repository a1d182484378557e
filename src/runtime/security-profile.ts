import { EngineError } from "#base/errors.ts";
import type { HostInfo } from "#sys/hostinfo.ts";
import type { OciDeviceRule, OciMount, OciSeccomp } from "#wire/oci-runtime.ts";
import { apparmorProfileName } from "./apparmor.ts";
import { type Capability, chooseCapabilities } from "./capabilities.ts";
import type { SandboxRequest } from "./runtime.ts";
import { defaultSeccompRules } from "./seccomp-default.ts";
import { parseSeccompProfile, resolveSeccomp, type SeccompRuleSet } from "./seccomp-profile.ts";

/** The default profile as data, and what a request makes of it. docs/internals/security-profile.md explains each entry. */

/** Read empty inside: they tell about the host or let a container act on it. */
export const defaultMaskedPaths: readonly string[] = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/sys/devices/virtual/powercap",
  "/sys/firmware",
];

export const defaultReadonlyPaths: readonly string[] = [
  "/proc/bus",
  "/proc/fs",
  "/proc/irq",
  "/proc/sys",
  "/proc/sysrq-trigger",
];

/**
 * /dev/null, zero, full, random, tty, console and so on: deny everything, then these. /dev/fuse (10:229) is denied by not
 * being named; runc refuses to write a rule that takes it out of "mknod of any", which allows making the node only.
 */
export const defaultDeviceRules: readonly OciDeviceRule[] = [
  { allow: false, access: "rwm" },
  { allow: true, type: "c", major: 1, minor: 5, access: "rwm" },
  { allow: true, type: "c", major: 1, minor: 3, access: "rwm" },
  { allow: true, type: "c", major: 1, minor: 9, access: "rwm" },
  { allow: true, type: "c", major: 1, minor: 8, access: "rwm" },
  { allow: true, type: "c", major: 5, minor: 0, access: "rwm" },
  { allow: true, type: "c", major: 5, minor: 1, access: "rwm" },
  { allow: true, type: "c", access: "m" },
  { allow: true, type: "b", access: "m" },
  { allow: true, type: "c", major: 1, minor: 7, access: "rwm" },
  { allow: true, type: "c", major: 5, minor: 2, access: "rwm" },
  { allow: true, type: "c", major: 136, access: "rwm" },
];

export const privilegedDeviceRules: readonly OciDeviceRule[] = [{ allow: true, access: "rwm" }];

/** The file systems every container has. `shmSizeBytes` for /dev/shm. */
export function defaultMounts(privileged: boolean, shmSizeBytes: number): OciMount[] {
  const access = privileged ? "rw" : "ro";
  return [
    { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
    {
      destination: "/dev",
      type: "tmpfs",
      source: "tmpfs",
      options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
      destination: "/dev/pts",
      type: "devpts",
      source: "devpts",
      options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", access] },
    {
      destination: "/sys/fs/cgroup",
      type: "cgroup",
      source: "cgroup",
      options: [access, "nosuid", "noexec", "nodev"],
    },
    { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
    {
      destination: "/dev/shm",
      type: "tmpfs",
      source: "shm",
      options: ["nosuid", "noexec", "nodev", "mode=1777", `size=${shmSizeBytes}`],
    },
  ];
}

export interface SecurityOptions {
  /** undefined: the default profile; null: unconfined. */
  readonly seccomp: SeccompRuleSet | null | undefined;
  readonly apparmor: string | undefined;
  readonly noNewPrivileges: boolean | undefined;
  readonly systemPathsUnconfined: boolean;
  readonly warnings: readonly string[];
}

function invalidOption(option: string): EngineError {
  return new EngineError("invalid", `invalid --security-opt 2: ${JSON.stringify(option)}`, {
    code: "security-opt",
  });
}

function noNewPrivilegesValue(option: string, value: string): boolean {
  if (value === "true" || value === "1") return true;
  if (value === "false" || value === "0") return false;
  throw invalidOption(option);
}

/** Reads `--security-opt` values (`key=value`, and `key:value` as old clients write it). Throws `invalid`. */
export function parseSecurityOptions(options: readonly string[]): SecurityOptions {
  let seccomp: SeccompRuleSet | null | undefined;
  let apparmor: string | undefined;
  let noNewPrivileges: boolean | undefined;
  let systemPathsUnconfined = false;
  const warnings: string[] = [];
  for (const option of options) {
    const match = /^([a-z-]+)(?:[=:]([\s\S]*))?$/.exec(option);
    const key = match?.[1];
    const value = match?.[2];
    if (key === "no-new-privileges") noNewPrivileges = noNewPrivilegesValue(option, value ?? "true");
    else if (option === "disable" || value === undefined || value === "") {
      if (option !== "disable") throw invalidOption(option);
    } else if (key === "seccomp") {
      if (value === "unconfined") seccomp = null;
      else seccomp = value === "builtin" ? undefined : parseSeccompProfile(value);
    } else if (key === "apparmor") apparmor = value;
    else if (key === "systempaths" && value === "unconfined") systemPathsUnconfined = true;
    else if (key === "label")
      warnings.push("SELinux is not supported: the security option 'label' is ignored.");
    else throw invalidOption(option);
  }
  return { seccomp, apparmor, noNewPrivileges, systemPathsUnconfined, warnings };
}

export interface SecurityProfile {
  readonly capabilities: readonly Capability[];
  /** undefined: unconfined. The same object for equal requests where it is the default profile. */
  readonly seccomp: OciSeccomp | undefined;
  readonly apparmor: string | undefined;
  readonly noNewPrivileges: boolean;
  readonly maskedPaths: readonly string[];
  readonly readonlyPaths: readonly string[];
  readonly warnings: readonly string[];
}

type SecurityRequest = Pick<
  SandboxRequest,
  "privileged" | "capAdd" | "capDrop" | "securityOpt" | "maskedPaths" | "readonlyPaths"
>;

/** Decides profiles; keeps the resolved default profile of each set of capabilities, since nearly all share a few. */
export class SecurityProfiles {
  readonly #host: HostInfo;
  readonly #noNewPrivileges: boolean;
  readonly #apparmorLoaded: boolean;
  readonly #defaults = new Map<string, OciSeccomp>();
  readonly #maskedPaths: readonly string[];

  /** `apparmorLoaded`: the default AppArmor profile is in the kernel. */
  constructor(host: HostInfo, noNewPrivileges: boolean, apparmorLoaded: boolean) {
    this.#apparmorLoaded = apparmorLoaded;
    this.#host = host;
    this.#noNewPrivileges = noNewPrivileges;
    this.#maskedPaths = [...defaultMaskedPaths, ...host.thermalThrottlePaths];
  }

  decide(request: SecurityRequest): SecurityProfile {
    const options = parseSecurityOptions(request.securityOpt);
    const { capabilities, missing } = chooseCapabilities(request, this.#host.capabilities);
    const warnings = [...options.warnings];
    if (missing.length > 0) {
      warnings.push(`The daemon does not have ${missing.join(", ")} and grants the other capabilities only.`);
    }
    const open = request.privileged || options.systemPathsUnconfined;
    return {
      capabilities,
      seccomp: this.#seccomp(options.seccomp, request.privileged, capabilities),
      apparmor: this.#apparmor(options.apparmor, request.privileged),
      noNewPrivileges: options.noNewPrivileges ?? this.#noNewPrivileges,
      maskedPaths: open ? [] : (request.maskedPaths ?? this.#maskedPaths),
      readonlyPaths: open ? [] : (request.readonlyPaths ?? defaultReadonlyPaths),
      warnings,
    };
  }

  /** The default filter for a set of capabilities: what `createOciRuntime` compiles ahead. */
  defaultSeccomp(capabilities: readonly Capability[]): OciSeccomp {
    const key = capabilities.join();
    let resolved = this.#defaults.get(key);
    if (resolved === undefined) {
      resolved = resolveSeccomp(defaultSeccompRules, capabilities, this.#host);
      if (this.#defaults.size < 256) this.#defaults.set(key, resolved);
    }
    return resolved;
  }

  #seccomp(
    asked: SeccompRuleSet | null | undefined,
    privileged: boolean,
    capabilities: readonly Capability[],
  ): OciSeccomp | undefined {
    if (asked === null || !this.#host.seccomp) return undefined;
    if (asked !== undefined) return resolveSeccomp(asked, capabilities, this.#host);
    return privileged ? undefined : this.defaultSeccomp(capabilities);
  }

  /** Undefined where the kernel has no AppArmor: Docker ignores the option there, too. */
  #apparmor(asked: string | undefined, privileged: boolean): string | undefined {
    if (!this.#host.apparmor || asked === "unconfined") return undefined;
    return asked ?? (privileged || !this.#apparmorLoaded ? undefined : apparmorProfileName);
  }
}
