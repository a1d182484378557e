import type { Container } from "./container.ts";
import type { ContainerContext } from "./container-context.ts";

/** It stopped for good: those who wait are told, a `--rm` container goes. */
export function finishStop(ctx: ContainerContext, container: Container): void {
  container.announceStopped();
  if (container.document.hostConfig.AutoRemove && !container.restartInProgress && !container.removing) {
    ctx.background("removing a container after its exit", ctx.removeContainer(container));
  } else if (!container.removing) {
    ctx.background("saving a stopped container", ctx.table.save(container));
  }
}
