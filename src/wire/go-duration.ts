/** Nanoseconds of the units that Go's `time.ParseDuration` knows; a micro sign is written in two ways. */
export const goDurationUnits: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  μs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/**
 * Nanoseconds of all the numbers with units in a text, whatever its sign, not rounded. What text is a duration is for the
 * caller to say: Docker's parts differ in it.
 */
export function sumGoDuration(text: string): number {
  let total = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)/g)) {
    total += Number(amount) * (goDurationUnits[unit ?? ""] ?? 0);
  }
  return total;
}
