import { atLeast, type Command } from "./command.ts";
import { createRequest } from "./container-config.ts";
import { containerFlags } from "./container-flags.ts";
import type { CliContext } from "./context.ts";
import { checkPullPolicy, createContainer, withHelp } from "./create-container.ts";
import type { Flags } from "./flags.ts";

export const create: Command = {
  usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
  flags: containerFlags("When to pull the image before creating"),
  args: atLeast(1),
  interspersed: false,
  run: runCreate,
};

async function runCreate(context: CliContext, flags: Flags, args: readonly string[]): Promise<number> {
  try {
    checkPullPolicy(flags.text("pull"));
    context.print(await createContainer(context, flags, createRequest(flags, args, context.env)));
    return 0;
  } catch (error) {
    throw withHelp(context, "create", error);
  }
}
