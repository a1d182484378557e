/** What a start does with binds and volumes. */
import { mkdir, stat } from "node:fs/promises";
import { EngineError, errnoOf, messageOf } from "#base/errors.ts";
import type { Sandbox } from "#runtime/runtime.ts";
import type { Container } from "./container.ts";
import type { ContainerContext } from "./container-context.ts";
import type { MountPoint } from "./container-document.ts";

/** Host paths of `-v` are made when they are missing, as Docker does; those of `--mount` must be there. */
export async function makeBindSources(mounts: readonly MountPoint[]): Promise<void> {
  const binds = mounts.filter((mount) => mount.kind === "bind");
  if (binds.length === 0) return;
  await Promise.all(binds.map(makeBindSource));
}

async function makeBindSource(mount: MountPoint): Promise<void> {
  try {
    await stat(mount.source);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw sourceError(mount, error);
    if (!mount.createSource) {
      throw new EngineError(
        "invalid",
        `invalid mount config for type "bind": bind source path does not exist: ${mount.source}`,
        { code: "bad-mount" },
      );
    }
    await mkdir(mount.source, { recursive: true, mode: 0o755 }).catch((cause: unknown) => {
      throw sourceError(mount, cause);
    });
  }
}

function sourceError(mount: MountPoint, cause: unknown): EngineError {
  return new EngineError(
    "system",
    `error while creating mount source path '${mount.source}': ${messageOf(cause)}`,
    { code: "bad-mount", cause },
  );
}

/** Before the first start: an empty volume takes what the image has at its place. */
export async function fillVolumes(
  ctx: ContainerContext,
  container: Container,
  sandbox: Pick<Sandbox, "rootPath">,
): Promise<void> {
  for (const mount of container.document.mounts) {
    if (mount.kind !== "volume" || !mount.copyUp) continue;
    if (ctx.volumes.mountSource(mount.name).kind !== "directory") continue;
    await ctx.volumes.copyUp(mount.name, sandbox.rootPath, mount.destination);
    mount.copyUp = false;
  }
}

export function publishVolumeMounts(ctx: ContainerContext, container: Container): void {
  for (const mount of container.document.mounts) {
    if (mount.kind !== "volume") continue;
    ctx.events.publish("volume", "mount", mount.name, {
      container: container.id,
      destination: mount.destination,
      driver: mount.driver,
      propagation: mount.propagation,
      "read/write": String(!mount.readOnly),
    });
  }
}

export function publishVolumeUnmounts(ctx: ContainerContext, container: Container): void {
  for (const mount of container.document.mounts) {
    if (mount.kind !== "volume") continue;
    ctx.events.publish("volume", "unmount", mount.name, { container: container.id, driver: mount.driver });
  }
}
