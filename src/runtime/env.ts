import { EngineError } from "#base/errors.ts";

export const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * Docker's merge: a later value takes the place of an earlier one, an entry without `=` removes the variable (and never
 * takes it from the daemon's own environment).
 */
export function mergeEnv(base: readonly string[], overrides: readonly string[]): string[] {
  const variables = new Map<string, string>();
  for (const entry of [...base, ...overrides]) {
    if (entry.includes("\0")) {
      throw new EngineError("invalid", `invalid environment variable: ${entry.replaceAll("\0", "\\0")}`);
    }
    const equals = entry.indexOf("=");
    if (equals < 0) variables.delete(entry);
    else variables.set(entry.slice(0, equals), entry);
  }
  return [...variables.values()];
}

export interface EnvSource {
  readonly env: readonly string[];
  readonly hostname: string;
  readonly terminal: boolean;
  /** Home directory of the user in the container's passwd file. */
  readonly home: string;
}

/** PATH, HOSTNAME and (with a terminal) TERM first, then what was asked for, HOME last: the order Docker prints. */
export function containerEnv(source: EnvSource): string[] {
  const base = [`PATH=${defaultPath}`, `HOSTNAME=${source.hostname}`];
  if (source.terminal) base.push("TERM=xterm");
  const merged = mergeEnv(base, source.env);
  return merged.some((entry) => entry.startsWith("HOME=")) ? merged : [...merged, `HOME=${source.home}`];
}
