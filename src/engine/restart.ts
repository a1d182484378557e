/** The restart policy at work: a pause, then a start, until it holds or is called off. */
import { messageOf } from "#base/errors.ts";
import type { Container } from "./container.ts";
import type { ContainerContext } from "./container-context.ts";
import { finishStop } from "./container-settle.ts";
import { launch } from "./container-start.ts";
import { nextRestartPauseMs, shouldRestart } from "./restart-policy.ts";
import { requireNext } from "./transitions.ts";

/** The container is `restarting`. Starts it after its pause, unless `cancelRestart` is called before. */
export function scheduleRestart(ctx: ContainerContext, container: Container): void {
  const timer = setTimeout(() => {
    container.cancelRestart = undefined;
    ctx.background("restarting a container", restartNow(ctx, container));
  }, container.restartPauseMs);
  container.cancelRestart = () => {
    clearTimeout(timer);
    container.cancelRestart = undefined;
  };
}

async function restartNow(ctx: ContainerContext, container: Container): Promise<void> {
  using _lock = await ctx.locks.acquire(container.id);
  if (ctx.closing || container.removing || container.state.status !== "restarting") return;
  if (container.exitOnNext) {
    giveUp(ctx, container);
    return;
  }
  container.state.restartCount += 1;
  try {
    await launch(ctx, container);
  } catch (error) {
    ctx.log.warn("a restart failed", { container: container.id, error: messageOf(error) });
    afterFailedRestart(ctx, container);
  }
}

function afterFailedRestart(ctx: ContainerContext, container: Container): void {
  const { state, document } = container;
  const again =
    !container.exitOnNext &&
    !ctx.closing &&
    shouldRestart(document.hostConfig.RestartPolicy, {
      exitCode: state.exitCode,
      restartCount: state.restartCount,
      manuallyStopped: state.manuallyStopped,
    });
  if (!again) {
    giveUp(ctx, container);
    return;
  }
  container.restartPauseMs = nextRestartPauseMs(container.restartPauseMs, 0);
  scheduleRestart(ctx, container);
}

/** Ends the waiting state of a container that will not be started again. */
export function giveUp(ctx: ContainerContext, container: Container): void {
  container.cancelRestart?.();
  container.state.status = requireNext(container.state.status, "giveUp");
  container.changed();
  finishStop(ctx, container);
}
