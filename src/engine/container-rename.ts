/** Use case: rename. */
import { EngineError } from "#base/errors.ts";
import type { Container } from "./container.ts";
import { type ContainerContext, containerEvent } from "./container-context.ts";
import { dropEarly } from "./container-early.ts";
import { checkContainerName } from "./names.ts";

/** Gives a container another name. Docker's words for an empty, equal, malformed or taken one. */
export async function renameContainer(
  ctx: ContainerContext,
  container: Container,
  newName: string,
): Promise<void> {
  const refuse = (message: string): EngineError => new EngineError("invalid", message, { code: "bad-name" });
  if (newName === "") throw refuse("Neither old nor new names may be empty");
  const shown = newName.startsWith("/") ? newName : `/${newName}`;
  if (shown === `/${container.name}`) {
    throw refuse("Renaming a container with the same name as its current name");
  }
  let name: string;
  try {
    name = checkContainerName(newName, shown);
  } catch (error) {
    if (error instanceof EngineError) throw refuse(`Error when allocating new name: ${error.message}`);
    throw error;
  }
  using _lock = await ctx.locks.acquire(container.id);
  await dropEarly(ctx, container);
  const oldName = container.name;
  try {
    await ctx.table.rename(container, name);
  } catch (error) {
    if (!(error instanceof EngineError) || error.code !== "name-in-use") throw error;
    throw new EngineError("conflict", `Error when allocating new name: ${error.message}`, {
      code: error.code,
    });
  }
  containerEvent(ctx, container, "rename", { oldName: `/${oldName}` });
}
