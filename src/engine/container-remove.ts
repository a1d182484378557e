/** Use cases: remove and prune. The row goes first, durably; the bytes after it. */
import { parseTime } from "#base/clock.ts";
import { EngineError, messageOf } from "#base/errors.ts";
import { removeDirectory } from "#base/remove-directory.ts";
import type { Filters } from "#wire/filters.ts";
import { hasLabel, invalidFilter, matchLabels, parseInstant } from "#wire/filters.ts";
import type { Container } from "./container.ts";
import { type ContainerContext, containerEvent, runDirOf, stateDirOf } from "./container-context.ts";
import type { MountPoint } from "./container-document.ts";
import { dropEarly } from "./container-early.ts";
import { killAndWait } from "./container-stop.ts";
import { requireNext } from "./transitions.ts";

export interface RemoveOptions {
  readonly force: boolean;
  /** Anonymous volumes that no other container names go too. */
  readonly volumes: boolean;
}

/** Removes a container. `conflict` in Docker's words while it is up and `force` is not given. */
export async function removeContainer(
  ctx: ContainerContext,
  container: Container,
  options: RemoveOptions,
): Promise<void> {
  if (container.removing) {
    throw new EngineError("conflict", `removal of container ${container.name} is already in progress`, {
      code: "removing",
    });
  }
  if (container.isUp && !options.force) throw stillUp(container);
  container.removing = true;
  try {
    using _lock = await ctx.locks.acquire(container.id);
    await dropEarly(ctx, container);
    await killAndWait(ctx, container);
    await container.cleanup;
    await container.copies.drain(0, "the container is removed");
    await eraseContainer(ctx, container, options);
  } catch (error) {
    container.removing = false;
    throw error;
  }
  ctx.background("removing a container's files", removeFiles(ctx, container));
  if (options.volumes) await removeAnonymousVolumes(ctx, container);
  containerEvent(ctx, container, "destroy");
  container.announceRemoved();
}

function stillUp(container: Container): EngineError {
  const advice =
    container.state.status === "paused"
      ? "container is paused and must be unpaused first"
      : `container is ${container.state.status}: stop the container before removing or force remove`;
  return new EngineError("conflict", `cannot remove container "/${container.name}": ${advice}`, {
    code: "still-up",
  });
}

function anonymousVolumes(ctx: ContainerContext, container: Container): readonly MountPoint[] {
  return container.document.mounts.filter(
    (mount) => mount.kind === "volume" && mount.anonymous && ctx.volumes.find(mount.name) !== undefined,
  );
}

/** Whether only containers that are being removed name the volume. */
function isLastUser(ctx: ContainerContext, name: string): boolean {
  return ctx.table.usersOfVolume(name).every((id) => ctx.table.find(id)?.removing === true);
}

async function eraseContainer(
  ctx: ContainerContext,
  container: Container,
  options: RemoveOptions,
): Promise<void> {
  const { state } = container;
  const before = state.status;
  state.status = requireNext(before, "remove");
  container.changed();
  try {
    // Should the daemon die before they are gone, the next one knows that they were to go.
    const marks = anonymousVolumes(ctx, container)
      .filter(({ name }) => isLastUser(ctx, name))
      .map(({ name }) => ctx.volumes.belongsTo(name, options.volumes ? container.id : undefined));
    await ctx.table.erase(container, marks);
  } catch (error) {
    state.status = before;
    container.changed();
    throw new EngineError("system", `unable to remove container "/${container.name}": ${messageOf(error)}`, {
      cause: error,
    });
  }
  container.closePendingAttaches();
}

/** Nobody waits for it; what it leaves behind when the daemon dies meanwhile has no row, and recovery removes it. */
async function removeFiles(ctx: ContainerContext, container: Container): Promise<void> {
  await Promise.all([
    ctx.snapshotter.removeWritable(container.id),
    removeDirectory(stateDirOf(ctx, container.id)),
    removeDirectory(runDirOf(ctx, container.id)),
  ]);
}

async function removeAnonymousVolumes(ctx: ContainerContext, container: Container): Promise<void> {
  for (const mount of anonymousVolumes(ctx, container)) {
    if (ctx.table.usersOfVolume(mount.name).length > 0) continue;
    try {
      await ctx.volumes.remove(mount.name, { force: true, usedBy: [] });
      ctx.events.publish("volume", "destroy", mount.name, { driver: mount.driver });
    } catch (error) {
      ctx.log.warn("removing an anonymous volume", { volume: mount.name, error: messageOf(error) });
    }
  }
}

export const pruneFilters: ReadonlySet<string> = new Set(["label", "label!", "until"]);

/** Removes every container that is not up. Returns their ids and the bytes that their writable layers held. */
export async function pruneContainers(
  ctx: ContainerContext,
  filters: Filters,
): Promise<{ deleted: string[]; reclaimedBytes: number }> {
  const until = pruneInstant(ctx, filters);
  const deleted: string[] = [];
  let reclaimedBytes = 0;
  for (const container of [...ctx.table.all()]) {
    if (container.isUp || container.removing || !container.published) continue;
    if (!isPrunable(container, filters, until)) continue;
    const bytes = await ctx.snapshotter.writableUsage(container.id).catch(() => 0);
    try {
      await removeContainer(ctx, container, { force: false, volumes: false });
    } catch (error) {
      ctx.log.warn("pruning a container", { container: container.id, error: messageOf(error) });
      continue;
    }
    deleted.push(container.id);
    reclaimedBytes += bytes;
  }
  ctx.events.publish("container", "prune", "", { reclaimed: String(reclaimedBytes) });
  return { deleted, reclaimedBytes };
}

function pruneInstant(ctx: ContainerContext, filters: Filters): bigint | undefined {
  const values = filters.get("until");
  if (values === undefined) return undefined;
  if (values.length > 1) throw new EngineError("invalid", "more than one until filter specified");
  const instant = parseInstant(values[0] ?? "", ctx.clock.nowNs());
  if (instant === undefined) throw invalidFilter("until", values[0]);
  return instant;
}

function isPrunable(container: Container, filters: Filters, until: bigint | undefined): boolean {
  const { document } = container;
  const labels = document.config.Labels;
  if (!matchLabels(filters.get("label"), labels)) return false;
  if (filters.get("label!")?.some((entry) => hasLabel(entry, labels))) return false;
  return until === undefined || (parseTime(document.created) ?? 0n) <= until;
}
