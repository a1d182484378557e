/** Sizes and durations, read and written as Docker's tools do (go-units, Go's time package). */
import { goDurationUnits } from "#wire/go-duration.ts";

const binaryFactors: Readonly<Record<string, number>> = { k: 1, m: 2, g: 3, t: 4, p: 5 };

/** units.RAMInBytes: `512m`, `1.5GiB`, `64 KB`; powers of 1024. Throws `invalid size: 'x'` or `invalid suffix: 'x'`. */
export function parseSize(text: string): number {
  const match = /^(.*[\d. ])?([^\d. ]*)$/s.exec(text);
  const digits = match?.[1]?.replace(/ $/, "") ?? "";
  const suffix = match?.[2] ?? "";
  if (digits === "" || digits.startsWith("-")) throw new Error(`invalid size: '${text}'`);
  if (!/^\+?(\d+(\.\d*)?|\.\d+)$/.test(digits)) {
    throw new Error(`strconv.ParseFloat: parsing ${JSON.stringify(digits)}: invalid syntax`);
  }
  const unit = /^(?:([kmgtp])(?:i?b)?|b)?$/.exec(suffix.toLowerCase());
  if (unit === null) throw new Error(`invalid suffix: '${suffix}'`);
  return Math.trunc(Number(digits) * 1024 ** (unit[1] === undefined ? 0 : binaryFactors[unit[1]]!));
}

/** Four significant digits (or `precision`) as Go's %.4g gives them. */
function significant(value: number, precision: number): string {
  const text = value.toPrecision(precision);
  const number = Number(text);
  if (number !== 0 && (Math.abs(number) >= 10 ** precision || Math.abs(number) < 1e-4)) {
    return number.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
  }
  return String(number);
}

function scaled(bytes: number, base: number, names: readonly string[], precision: number): string {
  let value = bytes;
  let index = 0;
  while (value >= base && index < names.length - 1) {
    value /= base;
    index += 1;
  }
  return `${significant(value, precision)}${names[index]}`;
}

const decimalNames = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"] as const;
const binaryNames = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"] as const;

/** units.HumanSize: `4.49MB`, powers of 1000. */
export function humanSize(bytes: number, precision = 4): string {
  return scaled(bytes, 1000, decimalNames, precision);
}

/** units.BytesSize: `7.763GiB`, powers of 1024. */
export function binarySize(bytes: number): string {
  return scaled(bytes, 1024, binaryNames, 4);
}

const plural = (count: number, unit: string): string => `${count} ${unit}`;

/** units.HumanDuration of a span in milliseconds: `About a minute`, `3 hours`, `2 weeks`. */
export function humanDuration(ms: number): string {
  const seconds = Math.trunc(ms / 1000);
  if (seconds < 1) return "Less than a second";
  if (seconds === 1) return "1 second";
  if (seconds < 60) return plural(seconds, "seconds");
  const minutes = Math.trunc(ms / 60_000);
  if (minutes === 1) return "About a minute";
  if (minutes < 60) return plural(minutes, "minutes");
  const hours = Math.trunc(ms / 3_600_000 + 0.5);
  if (hours === 1) return "About an hour";
  if (hours < 48) return plural(hours, "hours");
  if (hours < 24 * 7 * 2) return plural(Math.trunc(hours / 24), "days");
  if (hours < 24 * 30 * 2) return plural(Math.trunc(hours / 24 / 7), "weeks");
  if (hours < 24 * 365 * 2) return plural(Math.trunc(hours / 24 / 30), "months");
  return plural(Math.trunc(ms / 3_600_000 / 24 / 365), "years");
}

/** time.ParseDuration, in nanoseconds. Throws Go's messages. */
export function parseDuration(text: string): number {
  const quoted = JSON.stringify(text);
  const sign = text.startsWith("-") ? -1 : 1;
  let rest = text.replace(/^[+-]/, "");
  if (rest === "0") return 0;
  if (rest === "") throw new Error(`time: invalid duration ${quoted}`);
  let total = 0;
  while (rest !== "") {
    const number = /^(\d+(?:\.\d*)?|\.\d+)/.exec(rest);
    if (number === null) throw new Error(`time: invalid duration ${quoted}`);
    rest = rest.slice(number[0].length);
    const unit = /^[^\d.]*/.exec(rest)![0];
    if (unit === "") throw new Error(`time: missing unit in duration ${quoted}`);
    const factor = goDurationUnits[unit];
    if (factor === undefined)
      throw new Error(`time: unknown unit ${JSON.stringify(unit)} in duration ${quoted}`);
    total += Number(number[0]) * factor;
    rest = rest.slice(unit.length);
  }
  return sign * Math.round(total);
}

/** time.Duration's String. */
export function formatDuration(ns: number): string {
  if (ns === 0) return "0s";
  const sign = ns < 0 ? "-" : "";
  const span = Math.abs(ns);
  if (span < 1e3) return `${sign}${span}ns`;
  if (span < 1e6) return `${sign}${span / 1e3}µs`;
  if (span < 1e9) return `${sign}${span / 1e6}ms`;
  const hours = Math.floor(span / 3600e9);
  const minutes = Math.floor((span % 3600e9) / 60e9);
  const seconds = (span % 60e9) / 1e9;
  if (hours > 0) return `${sign}${hours}h${minutes}m${seconds}s`;
  return minutes > 0 ? `${sign}${minutes}m${seconds}s` : `${sign}${seconds}s`;
}
