/** What happens when a container's first process has ended. */
import { parseTime } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import { removeDirectory } from "#base/remove-directory.ts";
import type { Sandbox } from "#runtime/runtime.ts";
import type { ExitRecord } from "#runtime/shim.ts";
import type { Container } from "./container.ts";
import { type ContainerContext, containerEvent, runDirOf } from "./container-context.ts";
import { releaseNetwork } from "./container-network.ts";
import { finishStop } from "./container-settle.ts";
import { publishVolumeUnmounts } from "./container-volumes.ts";
import { scheduleRestart } from "./restart.ts";
import { nextRestartPauseMs, shouldRestart } from "./restart-policy.ts";
import { requireNext } from "./transitions.ts";

/** Waits for the exit in the background: the sandbox's promise resolves exactly once, also when its shim dies. */
export function watchExit(ctx: ContainerContext, container: Container, sandbox: Sandbox): void {
  ctx.watch(
    "handling an exit",
    sandbox.exited.then((record) => {
      if (container.sandbox === sandbox) handleExit(ctx, container, record);
    }),
  );
}

/**
 * Applies an exit record: state and events first, then everybody who waits, and only then what takes time. A container
 * that is started again stays "up" for those who wait, as Docker's does.
 */
export function handleExit(ctx: ContainerContext, container: Container, record: ExitRecord): void {
  const { document, state } = container;
  const restarts =
    !container.exitOnNext &&
    !container.removing &&
    !ctx.closing &&
    shouldRestart(document.hostConfig.RestartPolicy, {
      exitCode: record.exitCode,
      restartCount: state.restartCount,
      manuallyStopped: state.manuallyStopped,
    });
  const ranMs = durationMs(state.startedAt, record.finishedAt);
  container.sandbox = undefined;
  state.status = requireNext(state.status, restarts ? "exitRestart" : "exit");
  state.pid = 0;
  state.exitCode = record.exitCode;
  state.finishedAt = record.finishedAt;
  state.oomKilled = record.oomKilled;
  state.error = record.lost ?? "";
  container.changed();
  if ((record.droppedLogLines ?? 0) > 0) {
    ctx.log.warn("log lines were dropped", { container: container.id, lines: record.droppedLogLines });
  }
  if (record.oomKilled) containerEvent(ctx, container, "oom");
  containerEvent(ctx, container, "die", {
    exitCode: String(record.exitCode),
    execDuration: String(Math.floor(ranMs / 1000)),
  });
  container.cleanup = cleanUp(ctx, container);
  if (restarts) {
    container.restartPauseMs = nextRestartPauseMs(container.restartPauseMs, ranMs);
    scheduleRestart(ctx, container);
    ctx.background("saving a restarting container", ctx.table.save(container));
    return;
  }
  finishStop(ctx, container);
}

/** Never rejects: what stays is found by the next recovery. */
async function cleanUp(ctx: ContainerContext, container: Container): Promise<void> {
  publishVolumeUnmountsLater(ctx, container);
  const results = await Promise.allSettled([
    releaseNetwork(ctx, container),
    removeDirectory(runDirOf(ctx, container.id)),
  ]);
  for (const result of results) {
    if (result.status === "fulfilled") continue;
    ctx.log.warn("cleaning up after an exit", { container: container.id, error: messageOf(result.reason) });
  }
}

// After the network's events, as Docker orders them: those are published in this turn.
function publishVolumeUnmountsLater(ctx: ContainerContext, container: Container): void {
  if (container.document.mounts.length > 0) queueMicrotask(() => publishVolumeUnmounts(ctx, container));
}

export function durationMs(from: string, to: string): number {
  const start = parseTime(from);
  const end = parseTime(to);
  if (start === undefined || end === undefined || end < start) return 0;
  return Number((end - start) / 1_000_000n);
}
