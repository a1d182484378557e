/** Use cases: stop, kill, restart. */
import { constants } from "node:os";
import { EngineError, messageOf } from "#base/errors.ts";
import type { Sandbox } from "#runtime/runtime.ts";
import type { Container } from "./container.ts";
import { type ContainerContext, containerEvent } from "./container-context.ts";
import { startContainer } from "./container-start.ts";
import { giveUp } from "./restart.ts";
import { parseSignal, stopSignalOf } from "./signals.ts";

const { SIGKILL } = constants.signals;
const defaultStopTimeoutS = 10;
/** After SIGKILL the exit is a matter of the kernel; longer than this and the caller is told. */
const killWaitMs = 10_000;

export interface StopOptions {
  /** Name or number; "": the container's own. */
  readonly signal: string;
  /** Seconds; undefined: the container's own, else 10; negative: for ever. */
  readonly timeoutS: number | undefined;
}

/** Asks, waits, then kills everything in the container. `notModified` when it does not run. */
export async function stopContainer(
  ctx: ContainerContext,
  container: Container,
  options: StopOptions,
): Promise<void> {
  const signal =
    options.signal === "" ? stopSignalOf(container.document.config) : parseSignal(options.signal);
  if (!container.isUp) {
    throw new EngineError("notModified", "container already stopped", { code: "already-stopped" });
  }
  const timeoutS = options.timeoutS ?? container.document.config.StopTimeout ?? defaultStopTimeoutS;
  container.state.manuallyStopped = true;
  container.exitOnNext = true;
  await stopOnce(ctx, container, signal, timeoutS);
  containerEvent(ctx, container, "stop");
}

async function stopOnce(
  ctx: ContainerContext,
  container: Container,
  signal: number,
  timeoutS: number,
): Promise<void> {
  if (await endRestarting(ctx, container)) return;
  const stopped = container.wait("not-running");
  try {
    await sendSignal(ctx, container, signal);
    if (timeoutS < 0) {
      await stopped.exit;
      return;
    }
    if (await within(stopped.exit, timeoutS * 1000)) return;
    await killWhole(ctx, container);
    if (!(await within(stopped.exit, killWaitMs))) throw stillRunning(container);
  } finally {
    stopped.forget();
  }
}

/** True when the container was between two runs and has been ended there. */
async function endRestarting(ctx: ContainerContext, container: Container): Promise<boolean> {
  if (container.state.status !== "restarting") return false;
  using _lock = await ctx.locks.acquire(container.id);
  if (container.state.status === "restarting") giveUp(ctx, container);
  return !container.isUp;
}

/** Whether the promise settles within so many milliseconds. */
async function within(promise: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  try {
    return await Promise.race([promise.then(() => true as const), late]);
  } finally {
    clearTimeout(timer);
  }
}

function stillRunning(container: Container): EngineError {
  return new EngineError(
    "system",
    `container ${container.id} PID ${container.state.pid} is zombie and can not be killed. Use the --init option when creating containers to run an init inside the container that forwards signals and reaps processes`,
    { code: "unkillable" },
  );
}

/** A signal to the first process; one that ends it reaches a paused container only when it goes on. */
async function sendSignal(ctx: ContainerContext, container: Container, signal: number): Promise<void> {
  const { sandbox } = container;
  if (sandbox === undefined) return;
  containerEvent(ctx, container, "kill", { signal: String(signal) });
  await signalIfThere(sandbox, signal);
  if (container.state.status === "paused") await wakePaused(ctx, container);
}

/** A process that has ended just now is as good as one that got the signal: its exit is on its way. */
async function signalIfThere(sandbox: Sandbox, signal: number): Promise<void> {
  try {
    await sandbox.signal(signal);
  } catch (error) {
    if (!(error instanceof EngineError && error.code === "ESRCH")) throw error;
  }
}

async function wakePaused(ctx: ContainerContext, container: Container): Promise<void> {
  try {
    await container.sandbox?.resume();
  } catch (error) {
    ctx.log.debug("resuming a container to stop it", { container: container.id, error: messageOf(error) });
  }
}

/** SIGKILL to every process of the container. Shared with forced removal. */
export async function killWhole(ctx: ContainerContext, container: Container): Promise<void> {
  const { sandbox } = container;
  if (sandbox === undefined) return;
  containerEvent(ctx, container, "kill", { signal: String(SIGKILL) });
  // The first process by its own name, in case its cgroup was moved; then whatever else is in the cgroup.
  await signalIfThere(sandbox, SIGKILL);
  await sandbox.killAll();
  if (container.state.status === "paused") await wakePaused(ctx, container);
}

/** SIGKILL and wait for the end: for removal by force. */
export async function killAndWait(ctx: ContainerContext, container: Container): Promise<void> {
  container.exitOnNext = true;
  if (container.state.status === "restarting") giveUp(ctx, container);
  if (!container.isUp) return;
  const stopped = container.wait("not-running");
  try {
    await killWhole(ctx, container);
    if (!(await within(stopped.exit, killWaitMs))) throw stillRunning(container);
  } finally {
    stopped.forget();
  }
}

/** The signal that `kill` was asked for; "" means SIGKILL. */
export function killSignal(text: string): number {
  return text === "" ? SIGKILL : parseSignal(text);
}

/** With SIGKILL it returns after the exit. */
export async function killContainer(
  ctx: ContainerContext,
  container: Container,
  number: number,
): Promise<void> {
  const { status } = container.state;
  if (!container.isUp || (container.sandbox === undefined && status !== "restarting")) {
    throw new EngineError(
      "conflict",
      `cannot kill container: ${container.name}: container ${container.id} is not running`,
      { code: "not-running" },
    );
  }
  container.state.manuallyStopped = true;
  const ends = number === SIGKILL || number === stopSignalOf(container.document.config);
  if (ends) container.exitOnNext = true;
  if (await endRestarting(ctx, container)) return;
  if (number === SIGKILL) await killAndWait(ctx, container);
  else if (ends) await sendSignal(ctx, container, number);
  else {
    containerEvent(ctx, container, "kill", { signal: String(number) });
    if (container.sandbox !== undefined) await signalIfThere(container.sandbox, number);
  }
}

/** Stop where it runs, then start. A `--rm` container is kept. */
export async function restartContainer(
  ctx: ContainerContext,
  container: Container,
  options: StopOptions,
): Promise<void> {
  container.restartInProgress = true;
  try {
    if (container.isUp) {
      await stopContainer(ctx, container, options).catch((error: unknown) => {
        if (!(error instanceof EngineError && error.kind === "notModified")) throw error;
      });
    }
    await startContainer(ctx, container);
  } finally {
    container.restartInProgress = false;
  }
}
