import { containerPart } from "#sdk/path-part.ts";
import type { ContainerDetails } from "#sdk/types.ts";
import { atLeast, type Command, ExitError } from "./command.ts";
import type { CliContext } from "./context.ts";
import { DetachError } from "./detach-keys.ts";
import { errorText } from "./error-text.ts";
import { string } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";
import { followTerminalSize } from "./resize.ts";
import { runSession } from "./session.ts";
import { forwardSignals } from "./signals.ts";
import { watchExit } from "./wait-exit.ts";

export const start: Command = {
  usage: "[OPTIONS] CONTAINER [CONTAINER...]",
  flags: [
    toggle("a,attach", "Attach to the output and pass signals on"),
    flag("checkpoint", string, "Start from this checkpoint", { hidden: true }),
    flag("checkpoint-dir", string, "Where checkpoints are", { hidden: true }),
    flag("detach-keys", string, "Keys that detach from the container"),
    toggle("i,interactive", "Attach standard input"),
  ],
  args: atLeast(1),
  run: runStart,
};

async function runStart(context: CliContext, flags: Flags, names: readonly string[]): Promise<number> {
  if (flags.text("checkpoint") !== "") throw new ExitError(1, "checkpoints are not supported");
  if (flags.bool("attach") || flags.bool("interactive")) {
    if (names.length > 1) throw new ExitError(1, "you cannot start and attach multiple containers at once");
    return startAttached(context, flags, names[0]!);
  }
  const failed: string[] = [];
  for (const name of names) {
    try {
      await context.client.run("POST", `/containers/${containerPart(name)}/start`);
      context.print(name);
    } catch (error) {
      context.error(errorText(error));
      failed.push(name);
    }
  }
  if (failed.length > 0) throw new ExitError(1, `Error: failed to start containers: ${failed.join(", ")}`);
  return 0;
}

async function startAttached(context: CliContext, flags: Flags, name: string): Promise<number> {
  const { client } = context;
  const details = await client.json<ContainerDetails>("GET", `/containers/${containerPart(name)}/json`);
  const { Id: id, Config: config } = details;
  const detachKeys = flags.text("detach-keys") || context.config.detachKeys || "";
  using _signals = config.Tty
    ? undefined
    : forwardSignals((signal) => {
        client.run("POST", `/containers/${id}/kill`, { query: { signal } }).catch(() => {
          // The process may be gone already.
        });
      });
  const stdin = flags.bool("interactive") && config.OpenStdin;
  const hijacked = await client.hijack(`/containers/${id}/attach`, {
    query: {
      stream: true,
      stdin: stdin ? true : undefined,
      stdout: true,
      stderr: true,
      detachKeys: detachKeys || undefined,
    },
  });
  const session = runSession({ hijacked, tty: config.Tty, stdin, stdout: true, stderr: true, detachKeys });
  session.catch(() => {
    // Awaited below.
  });
  const watch = await watchExit(context, id, details.HostConfig.AutoRemove);
  try {
    await client.run("POST", `/containers/${id}/start`);
  } catch (error) {
    hijacked.stream.destroy();
    await session.catch(() => {});
    if (details.HostConfig.AutoRemove) await watch.code;
    else watch.cancel();
    throw error;
  }
  using _size =
    config.Tty && process.stdout.isTTY === true
      ? followTerminalSize(context, `/containers/${id}`)
      : undefined;
  try {
    await session;
  } catch (error) {
    if (!(error instanceof DetachError)) throw error;
    return 0;
  }
  return watch.code;
}
