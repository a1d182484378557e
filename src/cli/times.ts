/** Times as Docker's tables show them. */
import { humanDuration } from "./units.ts";

/** `3 hours ago` for seconds since the epoch. */
export function ago(seconds: number, nowMs = Date.now()): string {
  return `${humanDuration(nowMs - seconds * 1000)} ago`;
}

const two = (value: number): string => String(value).padStart(2, "0");

/** time.Time's String in local time: `2026-11-24 14:09:13 +0000 UTC`. `fraction` is appended to the seconds. */
export function goTimeString(ms: number, fraction = ""): string {
  const time = new Date(ms);
  const offset = -time.getTimezoneOffset();
  const date = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  const sign = offset < 0 ? "-" : "+";
  const zone = `${sign}${two(Math.floor(Math.abs(offset) / 60))}${two(Math.abs(offset) % 60)}`;
  return `${date} ${clock}${fraction === "" ? "" : `.${fraction}`} ${zone} ${zoneName(time, offset, zone)}`;
}

function zoneName(time: Date, offset: number, numeric: string): string {
  if (offset === 0 && new Intl.DateTimeFormat().resolvedOptions().timeZone === "UTC") return "UTC";
  const name = new Intl.DateTimeFormat("en-US", { timeZoneName: "short" })
    .formatToParts(time)
    .find((part) => part.type === "timeZoneName")?.value;
  // Go prints the number again where a zone has no letters.
  return name === undefined || !/^[A-Z]+$/.test(name) ? numeric.replace(/00$/, "") : name;
}

/** time.Time's String of an RFC 3339 time in UTC, keeping its nanoseconds. */
export function goUtcString(text: string): string {
  const match = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d(?:\.\d+)?)(Z|[+-]\d\d:\d\d)$/.exec(text);
  if (match === null) return text;
  const zone = match[3] === "Z" ? "+0000 UTC" : `${match[3]!.replace(":", "")} ${match[3]!.replace(":", "")}`;
  return `${match[1]} ${match[2]} ${zone}`;
}

/** RFC 3339 with the local offset, as `history --human=false` shows a time. */
export function localRfc3339(seconds: number): string {
  const time = new Date(seconds * 1000);
  const offset = -time.getTimezoneOffset();
  const date = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  if (offset === 0) return `${date}T${clock}Z`;
  const sign = offset < 0 ? "-" : "+";
  return `${date}T${clock}${sign}${two(Math.floor(Math.abs(offset) / 60))}:${two(Math.abs(offset) % 60)}`;
}

const durationPattern = /^[+-]?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$/;

/**
 * What `--since` and `--until` send: a Go duration is counted back from now (in whole seconds), a time without zone is local, a number
 * stays. Result: seconds, or seconds.nanoseconds, since the epoch. Throws for anything else.
 */
export function timestampOf(
  text: string,
  parseDuration: (text: string) => number,
  nowMs = Date.now(),
): string {
  if (durationPattern.test(text)) {
    // Whole seconds, as Docker's client sends them.
    return String(Math.floor((nowMs - parseDuration(text) / 1e6) / 1000));
  }
  if (/^\d+(\.\d+)?$/.test(text)) return text;
  const match =
    /^(\d{4}-\d\d-\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?)?(Z|[+-]\d\d:\d\d)?$/.exec(text);
  if (match === null) throw new Error(`parsing time ${JSON.stringify(text)}: invalid value`);
  const [, date, hour = "00", minute = "00", second = "00", fraction = "", zone = ""] = match;
  const ms = Date.parse(`${date}T${hour}:${minute}:${second}${zone}`);
  if (Number.isNaN(ms)) throw new Error(`parsing time ${JSON.stringify(text)}: value out of range`);
  return secondsWithNanos(BigInt(ms) * 1_000_000n + BigInt(fraction.padEnd(9, "0")));
}

function secondsWithNanos(ns: bigint): string {
  return `${ns / 1_000_000_000n}.${(ns % 1_000_000_000n).toString().padStart(9, "0")}`;
}
