import { EngineError } from "#base/errors.ts";
import { sumGoDuration } from "./go-duration.ts";

/** Values of one filter key: a repeated key means OR, different keys mean AND. */
export type Filters = ReadonlyMap<string, readonly string[]>;

const filterValueLengthMax = 1024;

/**
 * Reads the `filters` query parameter: `{"key":["a","b"]}`, or the older `{"key":{"a":true}}`, and refuses keys that
 * are not accepted in Docker's words (`invalid filter 'x'`).
 */
export function parseFilters(text: string | undefined, accepted: ReadonlySet<string>): Filters {
  const result = new Map<string, string[]>();
  if (text === undefined || text === "") return result;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new EngineError("invalid", "invalid filter", { code: "bad-filter", cause });
  }
  if (value === null) return result;
  if (typeof value !== "object" || Array.isArray(value)) {
    throw new EngineError("invalid", "invalid filter", { code: "bad-filter" });
  }
  for (const [key, entry] of Object.entries(value)) {
    if (!accepted.has(key)) throw invalidFilter(key);
    result.set(key, filterValues(key, entry));
  }
  return result;
}

function filterValues(key: string, entry: unknown): string[] {
  if (Array.isArray(entry)) return entry.map((item) => filterText(key, item));
  if (typeof entry === "object" && entry !== null) {
    return Object.entries(entry)
      .filter(([, on]) => on === true)
      .map(([item]) => filterText(key, item));
  }
  throw invalidFilter(key);
}

function filterText(key: string, item: unknown): string {
  if (typeof item !== "string" || item.length > filterValueLengthMax) throw invalidFilter(key);
  return item;
}

export function invalidFilter(key: string, value?: string): EngineError {
  const what = value === undefined ? key : `${key}=${value}`;
  return new EngineError("invalid", `invalid filter '${what}'`, { code: "bad-filter" });
}

/** Whether every `label` (or no `label!`) filter holds: `key` or `key=value`. */
export function matchLabels(
  wanted: readonly string[] | undefined,
  labels: Readonly<Record<string, string>> | null,
): boolean {
  if (wanted === undefined) return true;
  return wanted.every((entry) => hasLabel(entry, labels));
}

export function hasLabel(entry: string, labels: Readonly<Record<string, string>> | null): boolean {
  if (labels === null) return false;
  const equals = entry.indexOf("=");
  const key = equals < 0 ? entry : entry.slice(0, equals);
  if (!Object.hasOwn(labels, key)) return false;
  return equals < 0 || labels[key] === entry.slice(equals + 1);
}

/**
 * Docker matches names and ids by Go regular expressions, which run in linear time. JavaScript's do not: a pattern that
 * could backtrack without end (a quantified group, a back reference, look-around) is refused.
 */
export function filterPattern(key: string, text: string): (candidate: string) => boolean {
  if (!/[\\^$.*+?()[\]{}|]/.test(text)) return (candidate) => candidate.includes(text);
  const quantifiers = text.match(/[*+{?]/g)?.length ?? 0;
  if (/\)[*+{?]|\(\?|\\[1-9k]/.test(text) || quantifiers > 3) throw invalidFilter(key, text);
  try {
    const pattern = new RegExp(text, "u");
    return (candidate) => candidate === text || pattern.test(candidate);
  } catch {
    return (candidate) => candidate === text;
  }
}

/**
 * The instant that `since`, `until` and their filters name, in nanoseconds: seconds with a fraction, RFC 3339, a local
 * date and time, or a Go duration before now (`10m`, `1h30m`).
 */
export function parseInstant(text: string, nowNs: bigint): bigint | undefined {
  const seconds = /^(-?\d{1,12})(?:\.(\d{1,9})\d*)?$/.exec(text);
  if (seconds !== null) {
    return BigInt(seconds[1]!) * 1_000_000_000n + BigInt((seconds[2] ?? "").padEnd(9, "0"));
  }
  const duration = parseGoDuration(text);
  if (duration !== undefined) return nowNs - duration;
  const date = /^\d{4}-\d\d-\d\d(?:T\d\d(?::\d\d(?::\d\d(?:\.(\d{1,9}))?)?)?)?(Z|[+-]\d\d:\d\d)?$/.exec(text);
  if (date === null) return undefined;
  const whole = text.replace(/\.\d+/, "").replace(/T(\d\d)(?=Z|[+-]|$)/, "T$1:00");
  const ms = Date.parse(
    whole.includes("T") || date[2] === undefined ? whole : whole.replace(/(Z|[+-])/, "T00:00$1"),
  );
  if (Number.isNaN(ms)) return undefined;
  return BigInt(ms) * 1_000_000n + BigInt((date[1] ?? "").padEnd(9, "0"));
}

/** Nanoseconds of a Go duration (`1h30m`, `1.5s`), or undefined. */
export function parseGoDuration(text: string): bigint | undefined {
  if (!/^-?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$/.test(text)) return undefined;
  const total = sumGoDuration(text);
  if (!Number.isFinite(total) || total > 1e19) return undefined;
  return BigInt(Math.round(total)) * (text.startsWith("-") ? -1n : 1n);
}
