/** How long the registry client waits for what. Tests shorten it. */
export interface RegistryTiming {
  readonly connectMs: number;
  readonly headersMs: number;
  /** Longest silence within a body. */
  readonly idleMs: number;
  /** A body must bring `rateBytesMin` in every window of `rateWindowMs`: a trickle is given up and asked for again. */
  readonly rateWindowMs: number;
  readonly rateBytesMin: number;
  /** Attempts without progress, as dockerd's `--max-download-attempts`. */
  readonly attemptsMax: number;
  /** Attempts of one blob in all: a server that always breaks off after some bytes ends too. */
  readonly resumesMax: number;
  readonly backoffMs: number;
  readonly backoffMaxMs: number;
  /** Longest `Retry-After` that is obeyed; a longer one fails at once with the server's error. */
  readonly retryAfterMsMax: number;
}

export const defaultTiming: RegistryTiming = {
  connectMs: 15_000,
  headersMs: 30_000,
  idleMs: 30_000,
  rateWindowMs: 60_000,
  rateBytesMin: 64 * 1024,
  attemptsMax: 5,
  resumesMax: 50,
  backoffMs: 500,
  backoffMaxMs: 15_000,
  retryAfterMsMax: 120_000,
};

/** Milliseconds of a `Retry-After` header (seconds or an HTTP date), or undefined when absent or unreadable. */
export function retryAfterMs(header: string | undefined, nowMs: number): number | undefined {
  if (header === undefined) return undefined;
  if (/^\d{1,9}$/.test(header.trim())) return Number(header) * 1000;
  const at = /^[A-Z][a-z]{2}/.test(header) ? Date.parse(header) : Number.NaN;
  return Number.isNaN(at) ? undefined : Math.max(0, at - nowMs);
}

/** Exponential backoff with jitter: attempt 1 waits about `backoffMs`. */
export function backoffFor(attempt: number, timing: RegistryTiming): number {
  const base = Math.min(timing.backoffMaxMs, timing.backoffMs * 2 ** (attempt - 1));
  return base * (0.75 + Math.random() / 2);
}
