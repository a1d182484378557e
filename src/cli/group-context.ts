import type { CommandGroup } from "./command.ts";
import { entry } from "./command-entry.ts";

export const contextGroup: CommandGroup = {
  name: "context",
  summary: "Manage contexts",
  commands: [
    entry(
      "create",
      "Create a context",
      async () => (await import("./commands-context-edit.ts")).createContext,
    ),
    entry(
      "export",
      "Write a context to a tar archive",
      async () => (await import("./commands-context-edit.ts")).exportContext,
    ),
    entry(
      "import",
      "Make a context from a tar archive",
      async () => (await import("./commands-context-edit.ts")).importContext,
    ),
    entry(
      "inspect",
      "Show everything about one or more contexts",
      async () => (await import("./commands-context.ts")).inspectContexts,
    ),
    entry("ls", "List contexts", async () => (await import("./commands-context.ts")).listAllContexts, {
      aliases: ["list"],
      paths: ["context ls", "context list"],
    }),
    entry(
      "rm",
      "Remove one or more contexts",
      async () => (await import("./commands-context-edit.ts")).removeContexts,
      { aliases: ["remove"], paths: ["context rm", "context remove"] },
    ),
    entry(
      "update",
      "Change a context",
      async () => (await import("./commands-context-edit.ts")).updateContext,
    ),
    entry(
      "show",
      "Print the name of the context in use",
      async () => (await import("./commands-context.ts")).showContext,
    ),
    entry(
      "use",
      "Choose the context to use from now on",
      async () => (await import("./commands-context.ts")).useContext,
    ),
  ],
};
