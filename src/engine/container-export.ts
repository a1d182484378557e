/** Use case: export. */
import type { Readable } from "node:stream";
import { EngineError } from "#base/errors.ts";
import type { Container } from "./container.ts";
import { type ContainerContext, containerEvent } from "./container-context.ts";

/**
 * A container's file system as one flat tar: what its processes see without volumes and binds, with the files that every
 * container has. Needs no mount, so it is the same for running and stopped ones. Throws `conflict` for one that is going.
 */
export function exportContainer(ctx: ContainerContext, container: Container, signal: AbortSignal): Readable {
  const { status } = container.state;
  if (container.removing || status === "removing") {
    throw new EngineError("conflict", `You cannot export container ${container.id} which is being removed`, {
      code: "removing",
    });
  }
  if (status === "dead") {
    throw new EngineError("conflict", `You cannot export container ${container.id} which is Dead`, {
      code: "dead",
    });
  }
  const layers = ctx.images.get(container.document.imageId)?.layers ?? [];
  const archive = ctx.snapshotter.mergedTar(
    container.id,
    layers.map(({ key }) => key),
    { extra: ctx.runtime.baseLayers, signal },
  );
  containerEvent(ctx, container, "export");
  return archive;
}
