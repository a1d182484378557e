import { EngineError } from "#base/errors.ts";

/** Capabilities by number, as in <linux/capability.h>. */
export const capabilityNames = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_DAC_READ_SEARCH",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETPCAP",
  "CAP_LINUX_IMMUTABLE",
  "CAP_NET_BIND_SERVICE",
  "CAP_NET_BROADCAST",
  "CAP_NET_ADMIN",
  "CAP_NET_RAW",
  "CAP_IPC_LOCK",
  "CAP_IPC_OWNER",
  "CAP_SYS_MODULE",
  "CAP_SYS_RAWIO",
  "CAP_SYS_CHROOT",
  "CAP_SYS_PTRACE",
  "CAP_SYS_PACCT",
  "CAP_SYS_ADMIN",
  "CAP_SYS_BOOT",
  "CAP_SYS_NICE",
  "CAP_SYS_RESOURCE",
  "CAP_SYS_TIME",
  "CAP_SYS_TTY_CONFIG",
  "CAP_MKNOD",
  "CAP_LEASE",
  "CAP_AUDIT_WRITE",
  "CAP_AUDIT_CONTROL",
  "CAP_SETFCAP",
  "CAP_MAC_OVERRIDE",
  "CAP_MAC_ADMIN",
  "CAP_SYSLOG",
  "CAP_WAKE_ALARM",
  "CAP_BLOCK_SUSPEND",
  "CAP_AUDIT_READ",
  "CAP_PERFMON",
  "CAP_BPF",
  "CAP_CHECKPOINT_RESTORE",
] as const;

export type Capability = (typeof capabilityNames)[number];

/** What every container has unless told otherwise: Docker's default set. */
export const defaultCapabilities: readonly Capability[] = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FSETID",
  "CAP_FOWNER",
  "CAP_MKNOD",
  "CAP_NET_RAW",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETFCAP",
  "CAP_SETPCAP",
  "CAP_NET_BIND_SERVICE",
  "CAP_SYS_CHROOT",
  "CAP_KILL",
  "CAP_AUDIT_WRITE",
];

const numbers = new Map<string, number>(capabilityNames.map((name, number) => [name, number]));

/** A 64-bit mask, bit n for capability n. */
export function capabilityMask(names: readonly Capability[]): bigint {
  let mask = 0n;
  for (const name of names) mask |= 1n << BigInt(numbers.get(name)!);
  return mask;
}

/** The named capabilities of a mask, in the order of their numbers. Bits newer than this list are left out. */
export function capabilitiesOf(mask: bigint): Capability[] {
  return capabilityNames.filter((_, number) => (mask & (1n << BigInt(number))) !== 0n);
}

/** `net_admin`, `CAP_NET_ADMIN`, `all`: Docker takes them in any case, with and without the prefix. */
function normalise(name: string, option: "CapAdd" | "CapDrop"): Capability | "ALL" {
  const upper = name.trim().toUpperCase();
  if (upper === "ALL") return "ALL";
  const full = upper.startsWith("CAP_") ? upper : `CAP_${upper}`;
  if (!numbers.has(full)) {
    throw new EngineError("invalid", `invalid ${option}: unknown capability: "${full}"`, {
      code: "unknown-capability",
    });
  }
  return full as Capability;
}

export interface CapabilityChoice {
  readonly capabilities: readonly Capability[];
  /** Wanted by `--privileged` or `ALL`, but the daemon does not have them itself. */
  readonly missing: readonly Capability[];
}

/**
 * Docker's rules for `--privileged`, `--cap-add` and `--cap-drop`: privileged is everything; `add ALL` is everything but
 * the dropped; `drop ALL` leaves the added alone; else the default set less the dropped plus the added.
 * "Everything" is what the daemon itself has (`available`): Docker fails outright where the host took one away from it.
 * A capability added by its own name that the daemon lacks is an error, since a program that needs it could only fail.
 */
export function chooseCapabilities(
  request: {
    readonly privileged: boolean;
    readonly capAdd: readonly string[];
    readonly capDrop: readonly string[];
  },
  available: bigint,
): CapabilityChoice {
  const add = new Set(request.capAdd.map((name) => normalise(name, "CapAdd")));
  const drop = new Set(request.capDrop.map((name) => normalise(name, "CapDrop")));
  if (request.privileged) return grant(capabilityNames, available);
  if (add.has("ALL")) {
    return grant(
      capabilityNames.filter((name) => !drop.has(name)),
      available,
    );
  }
  const added = [...add] as Capability[];
  for (const name of added) {
    if ((available & capabilityMask([name])) === 0n) {
      throw new EngineError(
        "invalid",
        `invalid CapAdd: the daemon does not have ${name} and cannot grant it`,
        {
          code: "capability-not-available",
        },
      );
    }
  }
  const kept = drop.has("ALL") ? [] : defaultCapabilities.filter((name) => !drop.has(name));
  return grant([...new Set([...kept, ...added])], available);
}

function grant(wanted: readonly Capability[], available: bigint): CapabilityChoice {
  const has = (name: Capability): boolean => (available & capabilityMask([name])) !== 0n;
  return { capabilities: wanted.filter(has), missing: wanted.filter((name) => !has(name)) };
}
