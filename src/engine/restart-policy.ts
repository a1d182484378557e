/** Restart policies (moby `container/restart` and `restartmanager`). Pure. */
import { EngineError } from "#base/errors.ts";

export interface RestartPolicy {
  readonly Name: string;
  readonly MaximumRetryCount: number;
}

export const firstRestartPauseMs = 100;
const restartPauseMsMax = 60_000;
/** A run this long was a success: the pause starts again from the first one. */
const settledAfterMs = 10_000;

export function checkRestartPolicy(policy: RestartPolicy, autoRemove: boolean): void {
  const { Name: name, MaximumRetryCount: count } = policy;
  const refuse = (message: string): EngineError =>
    new EngineError("invalid", message, { code: "bad-restart" });
  if (!["", "no", "always", "on-failure", "unless-stopped"].includes(name)) {
    throw refuse(
      `invalid restart policy: unknown policy '${name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'`,
    );
  }
  if (name !== "on-failure" && count !== 0) {
    throw refuse(
      count < 0
        ? "invalid restart policy: maximum retry count can only be used with 'on-failure' and cannot be negative"
        : "invalid restart policy: maximum retry count can only be used with 'on-failure'",
    );
  }
  if (count < 0) throw refuse("invalid restart policy: maximum retry count cannot be negative");
  if (autoRemove && name !== "" && name !== "no") {
    throw refuse("can't create 'AutoRemove' container with restart policy");
  }
}

/** Whether a container that ended by itself is started again. */
export function shouldRestart(
  policy: RestartPolicy,
  ended: { readonly exitCode: number; readonly restartCount: number; readonly manuallyStopped: boolean },
): boolean {
  switch (policy.Name) {
    case "always":
      return true;
    case "unless-stopped":
      return !ended.manuallyStopped;
    case "on-failure":
      if (ended.exitCode === 0) return false;
      return policy.MaximumRetryCount === 0 || ended.restartCount < policy.MaximumRetryCount;
    default:
      return false;
  }
}

/** The pause before the next start: 100 ms, doubled for each quick failure, a minute at most. */
export function nextRestartPauseMs(previousMs: number, ranMs: number): number {
  if (previousMs === 0 || ranMs >= settledAfterMs) return firstRestartPauseMs;
  return Math.min(previousMs * 2, restartPauseMsMax);
}

/** When the daemon starts: `always`, `unless-stopped` unless a user stopped it, `on-failure` after a failure. */
export function shouldStartWithDaemon(
  policy: RestartPolicy,
  ended: {
    readonly exitCode: number;
    readonly restartCount: number;
    readonly manuallyStopped: boolean;
    readonly everStarted: boolean;
  },
): boolean {
  if (!ended.everStarted) return false;
  if (policy.Name === "on-failure" && ended.manuallyStopped) return false;
  return shouldRestart(policy, ended);
}
