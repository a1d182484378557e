/** Use case: wait. */
import { EngineError } from "#base/errors.ts";
import type { Container, WaitCondition } from "./container.ts";

const conditions: readonly string[] = ["not-running", "next-exit", "removed"];

export interface Wait {
  readonly exit: Promise<number>;
  forget(): void;
}

/**
 * Registers a waiter before it returns: an exit after this call, however fast, is not missed. `not-running` is answered
 * at once for a container that is not up.
 */
export function waitForContainer(container: Container, condition: string): Wait {
  const wanted = condition === "" ? "not-running" : condition;
  if (!conditions.includes(wanted)) {
    throw new EngineError("invalid", `invalid condition: "${condition}"`, { code: "bad-condition" });
  }
  if (wanted === "not-running" && !container.isUp) {
    return { exit: Promise.resolve(container.state.exitCode), forget: () => {} };
  }
  return container.wait(wanted as WaitCondition);
}
