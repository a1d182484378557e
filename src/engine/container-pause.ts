/** Use cases: pause and unpause. */
import { EngineError } from "#base/errors.ts";
import type { Container } from "./container.ts";
import { type ContainerContext, containerEvent } from "./container-context.ts";
import { requireNext } from "./transitions.ts";

export async function pauseContainer(ctx: ContainerContext, container: Container): Promise<void> {
  using _lock = await ctx.locks.acquire(container.id);
  const { status } = container.state;
  if (status === "paused") throw refuse(`container ${container.id} is already paused`);
  if (status === "restarting") {
    throw refuse(`container ${container.id} is restarting, wait until the container is running`);
  }
  if (status !== "running" || container.sandbox === undefined) {
    throw refuse(`container ${container.id} is not running`);
  }
  await container.sandbox.pause();
  // It may have ended while it was being frozen.
  if (container.state.status !== "running") return;
  change(ctx, container, "pause");
}

export async function unpauseContainer(ctx: ContainerContext, container: Container): Promise<void> {
  using _lock = await ctx.locks.acquire(container.id);
  if (container.state.status !== "paused" || container.sandbox === undefined) {
    throw new EngineError("system", `container ${container.id} is not paused`, { code: "not-paused" });
  }
  await container.sandbox.resume();
  if (container.state.status !== "paused") return;
  change(ctx, container, "resume");
}

function change(ctx: ContainerContext, container: Container, happening: "pause" | "resume"): void {
  container.state.status = requireNext(container.state.status, happening);
  container.changed();
  containerEvent(ctx, container, happening === "pause" ? "pause" : "unpause");
  ctx.background("saving a paused or resumed container", ctx.table.save(container));
}

function refuse(message: string): EngineError {
  return new EngineError("conflict", message, { code: "wrong-state" });
}
