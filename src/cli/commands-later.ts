/** Commands that have their place but not their code yet: they say so by name. */
import { type Command, ExitError } from "./command.ts";

function notYet(name: string, usage: string): Command {
  return {
    usage,
    flags: [],
    args: { kind: "any" },
    interspersed: false,
    run: async (context) => {
      throw new ExitError(1, `${context.program} ${name} is not available yet`);
    },
  };
}

export const stats: Command = notYet("stats", "[OPTIONS] [CONTAINER...]");
