import { ApiError } from "#sdk/api-error.ts";
import { containerPart } from "#sdk/path-part.ts";
import type { WaitResult } from "#sdk/types.ts";
import { atLeast, type Command } from "./command.ts";
import { forEachInTurn, forEachName } from "./each.ts";
import { errorText } from "./error-text.ts";
import { integer, string } from "./flag-types.ts";
import { type FlagSpec, type Flags, flag, toggle } from "./flags.ts";

const several = "CONTAINER [CONTAINER...]";

const stopFlags: readonly FlagSpec[] = [
  flag("s,signal", string, "Signal to send first"),
  flag("t,timeout", integer, "Seconds to wait before killing"),
  flag("time", integer, "", { hidden: true, aliasOf: "timeout" }),
];

function stopQuery(flags: Flags): Record<string, string | number | undefined> {
  return {
    signal: flags.text("signal") || undefined,
    t: flags.changed("timeout") ? flags.number("timeout") : undefined,
  };
}

export const stop: Command = {
  usage: `[OPTIONS] ${several}`,
  flags: stopFlags,
  args: atLeast(1),
  run: (context, flags, names) =>
    forEachName(context, names, async (name) => {
      await context.client.run("POST", `/containers/${containerPart(name)}/stop`, {
        query: stopQuery(flags),
      });
      return name;
    }),
};

export const restart: Command = {
  usage: `[OPTIONS] ${several}`,
  flags: stopFlags,
  args: atLeast(1),
  run: (context, flags, names) =>
    forEachInTurn(context, names, async (name) => {
      await context.client.run("POST", `/containers/${containerPart(name)}/restart`, {
        query: stopQuery(flags),
      });
      return name;
    }),
};

export const kill: Command = {
  usage: `[OPTIONS] ${several}`,
  flags: [flag("s,signal", string, "Signal to send")],
  args: atLeast(1),
  run: (context, flags, names) =>
    forEachName(context, names, async (name) => {
      await context.client.run("POST", `/containers/${containerPart(name)}/kill`, {
        query: { signal: flags.text("signal") || undefined },
      });
      return name;
    }),
};

function plainAction(action: string): Command {
  return {
    usage: several,
    flags: [],
    args: atLeast(1),
    run: (context, _flags, names) =>
      forEachName(context, names, async (name) => {
        await context.client.run("POST", `/containers/${containerPart(name)}/${action}`);
        return name;
      }),
  };
}

export const pause: Command = plainAction("pause");
export const unpause: Command = plainAction("unpause");

export const wait: Command = {
  usage: several,
  flags: [],
  args: atLeast(1),
  run: (context, _flags, names) =>
    forEachInTurn(context, names, async (name) => {
      const result = await context.client.json<WaitResult>("POST", `/containers/${containerPart(name)}/wait`);
      return String(result.StatusCode);
    }),
};

export const remove: Command = {
  usage: `[OPTIONS] ${several}`,
  flags: [
    toggle("f,force", "Remove a running container too (kills it)"),
    toggle("l,link", "Remove the link"),
    toggle("v,volumes", "Remove the container's anonymous volumes"),
  ],
  args: atLeast(1),
  run: async (context, flags, names) => {
    const force = flags.bool("force");
    return forEachName(context, names, async (name) => {
      const trimmed = name.replace(/^\/+/, "");
      if (trimmed === "") throw new Error("container name cannot be empty");
      try {
        await context.client.run("DELETE", `/containers/${containerPart(trimmed)}`, {
          query: {
            force: force ? true : undefined,
            v: flags.bool("volumes") ? true : undefined,
            link: flags.bool("link") ? true : undefined,
          },
        });
      } catch (error) {
        if (!force || !(error instanceof ApiError) || error.status !== 404) throw error;
        // Gone is what was asked for: told, but no failure.
        context.error(errorText(error));
        return undefined;
      }
      return name;
    });
  },
};
