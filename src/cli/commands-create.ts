import { atLeast, type Command } from "./command.ts";
import { type CreateRequest, createRequest } from "./container-config.ts";
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
  let request: CreateRequest;
  try {
    checkPullPolicy(flags.text("pull"));
    request = createRequest(flags, args, context.env);
  } catch (error) {
    throw withHelp(context, "create", error);
  }
  context.print(await createContainer(context, flags, request));
  return 0;
}
