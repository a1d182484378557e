import { setTimeout as sleep } from "node:timers/promises";
import { TransportError } from "./network-error.ts";
import { RegistryError } from "./registry-error.ts";
import { backoffFor, type RegistryTiming, retryAfterMs } from "./timing.ts";
import { cancelled } from "./transport.ts";

/** Milliseconds until the next attempt, or undefined when there should be none. */
export function retryDelay(error: unknown, attempt: number, timing: RegistryTiming): number | undefined {
  if (attempt >= timing.attemptsMax) return undefined;
  if (error instanceof TransportError) return error.retryable ? backoffFor(attempt, timing) : undefined;
  if (!(error instanceof RegistryError) || !error.retryable) return undefined;
  const asked = retryAfterMs(error.retryAfter, Date.now());
  if (asked === undefined) return backoffFor(attempt, timing);
  return asked <= timing.retryAfterMsMax ? asked : undefined;
}

/** Waits. Throws what a cancelled request throws. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(ms, undefined, { signal });
  } catch {
    throw cancelled(signal);
  }
}

/** Waits for the next attempt at a blob, and tells each second how many are left. Throws as `pause`. */
export async function pauseAloud(
  ms: number,
  { signal, onRetry }: { readonly signal: AbortSignal; readonly onRetry?: (seconds: number) => void },
): Promise<void> {
  for (let left = ms; left > 0; left -= 1000) {
    onRetry?.(Math.ceil(left / 1000));
    await pause(Math.min(1000, left), signal);
  }
}
