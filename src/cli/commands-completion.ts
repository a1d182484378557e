import { type Command, ExitError, exactly } from "./command.ts";
import { completionScripts } from "./completion-scripts.ts";

/** `completion SHELL`: a script for the shell's own completion, on standard output. */
export const completion: Command = {
  usage: "SHELL",
  description:
    "Print a script that completes the words of this command line, for bash, zsh or fish.\n\nFor the running bash: source <(skiff completion bash)",
  flags: [],
  args: exactly(1),
  run: async (context, _flags, [shell = ""]) => {
    const script = completionScripts[shell];
    if (script === undefined) {
      throw new ExitError(1, `there is no completion for ${shell}: bash, zsh and fish are known`);
    }
    context.write(script);
    return 0;
  },
};
