import { EngineError } from "#base/errors.ts";
import type { HostInfo } from "#sys/hostinfo.ts";
import type { OciRlimit } from "#wire/oci-runtime.ts";
import { ulimitNames } from "#wire/process-options.ts";
import { capabilityMask } from "./capabilities.ts";

export interface Ulimit {
  readonly name: string;
  readonly soft: number;
  readonly hard: number;
}

const names: ReadonlySet<string> = new Set(["as", ...ulimitNames]);

/** Docker writes unlimited as -1. */
function value(limit: number): number {
  return limit < 0 ? Infinity : limit;
}

function invalid(message: string): EngineError {
  return new EngineError("invalid", message, { code: "ulimit" });
}

/**
 * The request's limits over the daemon's defaults. Throws `invalid` for names the kernel does not have, a soft limit above
 * the hard one, and a hard limit that this daemon may not raise (without CAP_SYS_RESOURCE the kernel refuses it).
 */
export function resolveUlimits(
  defaults: readonly Ulimit[],
  asked: readonly Ulimit[],
  host: HostInfo,
): readonly Ulimit[] {
  const result = new Map<string, Ulimit>();
  for (const limit of [...defaults, ...asked]) {
    if (!names.has(limit.name)) throw invalid(`invalid ulimit type: ${limit.name}`);
    if (value(limit.soft) > value(limit.hard)) {
      throw invalid(
        `ulimit soft limit must be less than or equal to hard limit: soft: ${limit.soft}, hard: ${limit.hard}`,
      );
    }
    result.set(limit.name, limit);
  }
  if ((host.capabilities & capabilityMask(["CAP_SYS_RESOURCE"])) !== 0n) return [...result.values()];
  for (const limit of result.values()) {
    const own = host.rlimits.get(limit.name)?.hard ?? Infinity;
    if (value(limit.hard) > own) {
      throw invalid(
        `ulimit ${limit.name}: the hard limit ${limit.hard} is above the daemon's own (${own}), which it cannot raise without CAP_SYS_RESOURCE`,
      );
    }
  }
  return [...result.values()];
}

/** RLIM_INFINITY: 2^64 - 1 as digits, since no JavaScript number holds it. */
const unlimited = (JSON as unknown as { rawJSON(text: string): { readonly rawJSON: string } }).rawJSON(
  "18446744073709551615",
);

export function ociRlimits(limits: readonly Ulimit[]): OciRlimit[] {
  const ociNumber = (limit: number): OciRlimit["soft"] => (limit < 0 ? unlimited : limit);
  return limits.map(({ name, soft, hard }) => ({
    type: `RLIMIT_${name.toUpperCase()}`,
    soft: ociNumber(soft),
    hard: ociNumber(hard),
  }));
}
