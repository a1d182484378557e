import { TransportError } from "./network-error.ts";
import { RegistryError } from "./registry-error.ts";
import { backoffFor, type RegistryTiming, retryAfterMs } from "./timing.ts";

/** Milliseconds until the next attempt, or undefined when there should be none. */
export function retryDelay(error: unknown, attempt: number, timing: RegistryTiming): number | undefined {
  if (attempt >= timing.attemptsMax) return undefined;
  if (error instanceof TransportError) return error.retryable ? backoffFor(attempt, timing) : undefined;
  if (!(error instanceof RegistryError) || !error.retryable) return undefined;
  const asked = retryAfterMs(error.retryAfter, Date.now());
  if (asked === undefined) return backoffFor(attempt, timing);
  return asked <= timing.retryAfterMsMax ? asked : undefined;
}
