import { containerPart } from "#sdk/path-part.ts";
import { demultiplex, writeAll } from "#sdk/stdio-demux.ts";
import type { ContainerDetails } from "#sdk/types.ts";
import { type Command, ExitError, exactly } from "./command.ts";
import type { CliContext } from "./context.ts";
import { string } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";
import { timestampOf } from "./times.ts";
import { parseDuration } from "./units.ts";

export const logs: Command = {
  usage: "[OPTIONS] CONTAINER",
  flags: [
    toggle("details", "Show what the log driver adds to each line"),
    toggle("f,follow", "Go on as more is written"),
    flag("since", string, 'Show from this time on ("2013-01-02T13:23:37Z", or "42m" for 42 minutes ago)'),
    flag("n,tail", string, "Lines to show from the end", { shown: '"all"', initial: "all" }),
    toggle("t,timestamps", "Show when each line was written"),
    flag("until", string, 'Show up to this time ("2013-01-02T13:23:37Z", or "42m" for 42 minutes ago)'),
  ],
  args: exactly(1),
  run: runLogs,
};

async function runLogs(context: CliContext, flags: Flags, [name]: readonly string[]): Promise<number> {
  const { client } = context;
  const details = await client.json<ContainerDetails>("GET", `/containers/${containerPart(name!)}/json`);
  const response = await client.request("GET", `/containers/${details.Id}/logs`, {
    query: {
      stdout: true,
      stderr: true,
      since: timeOption(flags, "since"),
      until: timeOption(flags, "until"),
      timestamps: flags.bool("timestamps") ? true : undefined,
      details: flags.bool("details") ? true : undefined,
      follow: flags.bool("follow") ? true : undefined,
      tail: flags.text("tail"),
    },
  });
  if (details.Config.Tty) {
    for await (const chunk of response.body as AsyncIterable<Buffer>) await writeAll(process.stdout, chunk);
  } else await demultiplex(response.body, process.stdout, process.stderr);
  return 0;
}

/** `--since` and `--until` for the API. */
function timeOption(flags: Flags, name: "since" | "until"): string | undefined {
  const text = flags.text(name);
  if (text === "") return undefined;
  try {
    return timestampOf(text, parseDuration);
  } catch {
    throw new ExitError(
      1,
      `invalid value for "${name}": failed to parse value as time or duration: ${JSON.stringify(text)}`,
    );
  }
}
