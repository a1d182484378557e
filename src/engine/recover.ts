/**
 * The daemon's start is its recovery: rows say what was meant, shims and exit records say what is true.
 *
 * 1. A container whose row says that it runs is taken over from its shim, or gets the exit that its shim recorded, or,
 *    where there is neither, counts as killed.
 * 2. A container that was being started when the daemon died either runs (its shim says so) or never did.
 * 3. A container's directories are made while its row is committed: those that are missing are made now.
 * 4. What no row names is removed: writable layers, state and run directories, and the volumes that belonged to a
 *    container which was being made or removed.
 */
import { mkdir, readdir, rm } from "node:fs/promises";
import { errnoOf, messageOf } from "#base/errors.ts";
import { isId } from "#base/ids.ts";
import { Semaphore } from "#base/lock.ts";
import type { Sandbox } from "#runtime/runtime.ts";
import type { ExitRecord } from "#runtime/shim.ts";
import type { Container } from "./container.ts";
import { type ContainerContext, runDirOf, stateDirOf } from "./container-context.ts";
import { handleExit } from "./container-exit.ts";
import { requestByItself } from "./container-request.ts";
import { startContainer } from "./container-start.ts";
import { shouldStartWithDaemon } from "./restart-policy.ts";
import { requireNext } from "./transitions.ts";

/** Containers recovered or started at once. */
const concurrency = 8;
const exitKilled = 137;

/** Brings memory, rows and the machine into agreement. Restart policies go on in the background afterwards. */
export async function recoverContainers(ctx: ContainerContext): Promise<void> {
  const containers = [...ctx.table.all()];
  for (const container of containers) container.published = true;
  const runDirs = new Set(await namesIn(`${ctx.execRoot}/containers`));
  await makeMissing(ctx, containers);
  const slots = new Semaphore(concurrency);
  await Promise.all(
    containers.map(async (container) => {
      using _slot = await slots.acquire();
      try {
        await recoverOne(ctx, container, runDirs.has(container.id));
      } catch (error) {
        ctx.log.error("recovering a container", { container: container.id, error });
        if (container.isUp) applyExit(ctx, container, lostExit(ctx, container, messageOf(error)));
      }
    }),
  );
  await removeOrphans(ctx, runDirs);
  await ctx.networks.reconcile();
  ctx.background("starting containers with the daemon", startWithDaemon(ctx, containers));
}

/** Also after power loss: the row was flushed, its directories need not have been. */
async function makeMissing(ctx: ContainerContext, containers: readonly Container[]): Promise<void> {
  const layers = new Set<string>(await ctx.snapshotter.listWritable());
  const stateDirs = new Set(await namesIn(`${ctx.dataRoot}/containers`));
  for (const { id } of containers) {
    if (!layers.has(id)) await ctx.snapshotter.createWritable(id);
    if (!stateDirs.has(id)) await mkdir(stateDirOf(ctx, id), { recursive: true, mode: 0o710 });
    if (layers.has(id) && stateDirs.has(id)) continue;
    ctx.log.warn("a container's directories were missing and are empty now", { container: id });
  }
}

async function recoverOne(ctx: ContainerContext, container: Container, hasRunDir: boolean): Promise<void> {
  const { state } = container;
  if (state.status === "removing" || state.status === "dead") {
    state.status = "dead";
    return;
  }
  if (state.status === "restarting") {
    // Its pause ended with the daemon; whether it is started again is the policy's to say.
    state.status = requireNext(state.status, "giveUp");
    await ctx.table.save(container);
  }
  if (!container.isUp && !hasRunDir) return;
  const found = await ctx.runtime.recover(requestByItself(ctx, container));
  if (found !== undefined && "sandbox" in found) await takeOver(ctx, container, found.sandbox);
  else if (found !== undefined) adoptExit(ctx, container, found.exit);
  else if (container.isUp) applyExit(ctx, container, lostExit(ctx, container, "the shim is gone"));
  else await forgetStart(ctx, container);
}

async function takeOver(ctx: ContainerContext, container: Container, sandbox: Sandbox): Promise<void> {
  if (sandbox.pid === 0) {
    await sandbox.abandon();
    await forgetStart(ctx, container);
    return;
  }
  const { state, document } = container;
  if (!container.isUp) {
    // The daemon died between the start of the process and the row that says so.
    state.status = requireNext(state.status, "start");
    state.startedAt = ctx.clock.now();
  }
  // Whether it is frozen is the kernel's to say: the daemon may have died between the freezing and the row.
  if (sandbox.isPaused() !== (state.status === "paused")) {
    state.status = requireNext(state.status, sandbox.isPaused() ? "pause" : "resume");
  }
  state.pid = sandbox.pid;
  container.sandbox = sandbox;
  container.changed();
  if (document.network !== null) {
    container.attachment = await ctx.networks.recover(container.id, document.network);
    document.network = container.attachment.record;
  }
  await ctx.table.save(container);
  ctx.onStarted(container, sandbox);
}

/** An exit record of this run, or of one that the row knows already. */
function adoptExit(ctx: ContainerContext, container: Container, exit: ExitRecord): void {
  const { state } = container;
  if (!container.isUp) {
    if (exit.finishedAt === state.finishedAt) return;
    state.status = requireNext(state.status, "start");
    state.startedAt = exit.startedAt;
  }
  applyExit(ctx, container, exit);
}

function applyExit(ctx: ContainerContext, container: Container, exit: ExitRecord): void {
  // Restart policies are applied once, when everything is recovered.
  container.exitOnNext = true;
  handleExit(ctx, container, exit);
  container.exitOnNext = false;
}

function lostExit(ctx: ContainerContext, container: Container, why: string): ExitRecord {
  return {
    exitCode: exitKilled,
    startedAt: container.state.startedAt,
    finishedAt: ctx.clock.now(),
    oomKilled: false,
    lost: why,
  };
}

/** A start that did not happen: its run directory and its network's row go. */
async function forgetStart(ctx: ContainerContext, container: Container): Promise<void> {
  container.document.network = null;
  await rm(runDirOf(ctx, container.id), { recursive: true, force: true });
  await ctx.table.save(container);
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** Only what is named like a container's: nothing else in the roots is touched. */
async function removeOrphans(ctx: ContainerContext, runDirs: ReadonlySet<string>): Promise<void> {
  const isOrphan = (name: string): boolean => isId(name) && !ctx.table.hasRow(name);
  const [layers, stateDirs] = await Promise.all([
    ctx.snapshotter.listWritable(),
    namesIn(`${ctx.dataRoot}/containers`),
  ]);
  const gone = await Promise.allSettled([
    ...layers.filter(isOrphan).map((id) => ctx.snapshotter.removeWritable(id)),
    ...stateDirs
      .filter(isOrphan)
      .map((id) => rm(`${ctx.dataRoot}/containers/${id}`, { recursive: true, force: true })),
    ...[...runDirs]
      .filter(isOrphan)
      .map((id) => rm(`${ctx.execRoot}/containers/${id}`, { recursive: true, force: true })),
  ]);
  const volumes = ctx.table.hasUnreadable ? [] : ctx.volumes.ownerless((owner) => ctx.table.hasRow(owner));
  for (const name of volumes) {
    const usedBy = ctx.table.usersOfVolume(name);
    if (usedBy.length === 0)
      gone.push(...(await Promise.allSettled([ctx.volumes.remove(name, { force: true, usedBy })])));
  }
  for (const result of gone) {
    if (result.status === "rejected") {
      ctx.log.warn("removing what no container owns", { error: messageOf(result.reason) });
    }
  }
}

async function startWithDaemon(ctx: ContainerContext, containers: readonly Container[]): Promise<void> {
  const slots = new Semaphore(concurrency);
  await Promise.all(
    containers.map(async (container) => {
      const { state, document } = container;
      if (container.isUp || state.status === "dead" || container.removing) return;
      const wanted = shouldStartWithDaemon(document.hostConfig.RestartPolicy, {
        exitCode: state.exitCode,
        restartCount: state.restartCount,
        manuallyStopped: state.manuallyStopped,
        everStarted: !state.startedAt.startsWith("0001"),
      });
      if (!wanted || ctx.closing) return;
      using _slot = await slots.acquire();
      await startContainer(ctx, container).catch((error: unknown) => {
        ctx.log.error("starting a container with the daemon", {
          container: container.id,
          error: messageOf(error),
        });
      });
    }),
  );
}
