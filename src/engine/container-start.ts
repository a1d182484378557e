/**
 * Use case: start. Network, sandbox, files, volumes, ports, process: each step undone when a later one fails, so that a
 * failed start leaves nothing but its error in the container's state.
 */
import { mkdir, rm } from "node:fs/promises";
import { EngineError, messageOf } from "#base/errors.ts";
import type { Sandbox } from "#runtime/runtime.ts";
import { RuntimeStartError } from "#runtime/runtime-start-error.ts";
import type { Started } from "#runtime/shim.ts";
import type { Container } from "./container.ts";
import { type ContainerContext, containerEvent, runDirOf } from "./container-context.ts";
import { type EarlySandbox, takeEarly } from "./container-early.ts";
import { writeStartFiles } from "./container-files.ts";
import { connectWaiting } from "./container-io.ts";
import { attachNetwork, connectAttachment, prepareWithPorts, releaseNetwork } from "./container-network.ts";
import { containerOfMode } from "./container-references.ts";
import { fillVolumes, makeBindSources, publishVolumeMounts } from "./container-volumes.ts";
import { requireNext } from "./transitions.ts";

/** Starts a created or exited container. `notModified` when it runs already; `conflict` when it is paused or going. */
export async function startContainer(ctx: ContainerContext, container: Container): Promise<void> {
  if (isRunning(container)) throw alreadyRunning();
  using _lock = await ctx.locks.acquire(container.id);
  checkStartable(container);
  container.exitOnNext = false;
  container.state.manuallyStopped = false;
  container.restartPauseMs = 0;
  container.state.restartCount = 0;
  await launch(ctx, container);
}

function alreadyRunning(): EngineError {
  return new EngineError("notModified", "container already started", { code: "already-started" });
}

/** A container that waits for its restart policy counts as running, as for Docker. */
function isRunning(container: Container): boolean {
  return container.state.status === "running" || container.state.status === "restarting";
}

function checkStartable(container: Container): void {
  const { status } = container.state;
  if (isRunning(container)) throw alreadyRunning();
  if (status === "paused") {
    throw new EngineError("conflict", "cannot start a paused container, try unpause instead", {
      code: "paused",
    });
  }
  if (status === "removing" || status === "dead" || container.removing) {
    throw new EngineError("conflict", "container is marked for removal and cannot be started", {
      code: "removing",
    });
  }
}

/** A copy that holds the mount of an earlier life is waited for no longer than this. */
const copyGraceMs = 10_000;

/** The start itself, for a user's and the restart policy's: the caller holds the container's lock. */
export async function launch(ctx: ContainerContext, container: Container): Promise<void> {
  await container.cleanup;
  await container.copies.drain(copyGraceMs, "the container is started");
  const { state } = container;
  let sandbox: Sandbox;
  let started: Started;
  try {
    ({ sandbox, started } = await startSandbox(ctx, container));
  } catch (error) {
    startFailed(ctx, container, error);
    throw error;
  }
  state.status = requireNext(state.status, "start");
  state.pid = started.pid;
  state.startedAt = started.startedAt;
  state.exitCode = 0;
  state.error = "";
  state.oomKilled = false;
  container.sandbox = sandbox;
  container.changed();
  container.attachment?.adopted();
  containerEvent(ctx, container, "start");
  // Here, not when the whole restart is over: a short process may have ended by then, and `die` would come first.
  if (container.restartInProgress) containerEvent(ctx, container, "restart");
  ctx.background("saving a started container", ctx.table.save(container));
  if (container.pendingAttaches.size > 0) {
    ctx.background("attaching late clients", connectWaiting(container, sandbox));
  }
  ctx.onStarted(container, sandbox);
}

/** The error stays in the container's state, as `docker inspect` shows it; a `--rm` container is removed. */
function startFailed(ctx: ContainerContext, container: Container, error: unknown): void {
  const { state } = container;
  state.status = requireNext(state.status, "startFailed");
  state.exitCode = error instanceof RuntimeStartError ? error.exitCode : 128;
  state.error = messageOf(error);
  state.pid = 0;
  container.changed();
  container.closePendingAttaches();
  ctx.background("saving a failed start", ctx.table.save(container));
  if (container.document.hostConfig.AutoRemove && !container.restartInProgress) {
    ctx.background("removing a container that could not start", ctx.removeContainer(container));
  }
}

async function startSandbox(
  ctx: ContainerContext,
  container: Container,
): Promise<{ sandbox: Sandbox; started: Started }> {
  await using undo = new AsyncDisposableStack();
  const sandbox = await prepare(ctx, container, undo);
  await Promise.all([
    container.attachment?.publish(),
    connectWaiting(container, sandbox),
    fillVolumes(ctx, container, sandbox),
  ]);
  const started = await sandbox.start();
  undo.move();
  return { sandbox, started };
}

/**
 * Network, run directory, sources and files, the row (intent before effect: it names the endpoint before a process can
 * hold it), and the sandbox.
 */
async function prepare(
  ctx: ContainerContext,
  container: Container,
  undo: AsyncDisposableStack,
): Promise<Sandbox> {
  const early = await takeEarly(ctx, container);
  const runDir = runDirOf(ctx, container.id);
  undo.defer(() => rm(runDir, { recursive: true, force: true }));
  undo.defer(() => releaseNetwork(ctx, container));
  if (early !== undefined) return adoptEarly(ctx, container, early, undo);
  const { document } = container;
  document.networkContainer = containerOfMode(ctx.table, document.hostConfig.NetworkMode)?.id ?? "";
  await Promise.all([
    attachNetwork(ctx, container),
    mkdir(runDir, { recursive: true, mode: 0o700 }),
    makeBindSources(document.mounts),
  ]);
  // The files of an earlier daemon's life may be gone; those of this one's are there, and only their text changes.
  if (!container.writtenFiles.has("hosts")) await writeStartFiles(ctx, container);
  publishVolumeMounts(ctx, container);
  const preparing = prepareWithPorts(ctx, container);
  // A shim that was made while something beside it failed must go too.
  undo.defer(async () => {
    const sandbox = await preparing.catch(() => undefined);
    if (sandbox !== undefined) await abandon(ctx, sandbox);
  });
  const [sandbox] = await Promise.all([
    preparing,
    writeStartFiles(ctx, container),
    ctx.table.save(container),
  ]);
  return sandbox;
}

/** The sandbox that was made at create: what was not done then for others' eyes is done now. */
async function adoptEarly(
  ctx: ContainerContext,
  container: Container,
  early: EarlySandbox,
  undo: AsyncDisposableStack,
): Promise<Sandbox> {
  undo.defer(() => abandon(ctx, early.sandbox));
  connectAttachment(ctx, container, early.attachment);
  publishVolumeMounts(ctx, container);
  await Promise.all([writeStartFiles(ctx, container), ctx.table.save(container)]);
  return early.sandbox;
}

/** A shim whose start failed has ended by itself already. */
async function abandon(ctx: ContainerContext, sandbox: Sandbox): Promise<void> {
  try {
    await sandbox.abandon();
  } catch (error) {
    ctx.log.debug("abandoning a sandbox", { container: sandbox.id, error: messageOf(error) });
  }
}
