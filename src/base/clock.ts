/** Wall time for records, monotonic time for timeouts (clocks jump; timers must not). Injected so that tests can hold it. */
export interface Clock {
  /** RFC 3339 with nanoseconds in UTC, as Go prints it: trailing zeros of the fraction are dropped. */
  now(): string;
  /** Nanoseconds since the epoch. */
  nowNs(): bigint;
  /** Milliseconds that only grow. */
  monotonicMs(): number;
}

// hrtime gives sub-millisecond digits; re-anchored on each read so that a jump of the wall clock is followed.
function wallNs(): bigint {
  const ms = performance.timeOrigin + performance.now();
  const drift = Date.now() - ms;
  const base = Math.abs(drift) > 5 ? Date.now() : ms;
  return BigInt(Math.floor(base * 1000)) * 1000n + (process.hrtime.bigint() % 1000n);
}

export const systemClock: Clock = {
  now: () => formatTime(wallNs()),
  nowNs: wallNs,
  monotonicMs: () => performance.now(),
};

/** Go's time.RFC3339Nano in UTC. */
export function formatTime(ns: bigint): string {
  const seconds = ns / 1_000_000_000n;
  const fraction = (ns % 1_000_000_000n).toString().padStart(9, "0").replace(/0+$/, "");
  const whole = new Date(Number(seconds) * 1000).toISOString().slice(0, 19);
  return fraction === "" ? `${whole}Z` : `${whole}.${fraction}Z`;
}

/** Nanoseconds since the epoch of an RFC 3339 time, or undefined when it is not one. */
export function parseTime(text: string): bigint | undefined {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)$/.exec(text);
  if (match === null) return undefined;
  const ms = Date.parse(`${match[1]}${match[3]}`);
  if (Number.isNaN(ms)) return undefined;
  return BigInt(ms) * 1_000_000n + BigInt((match[2] ?? "").padEnd(9, "0"));
}

/** What Docker prints for a time that was never set. */
export const zeroTime = "0001-01-01T00:00:00Z";
