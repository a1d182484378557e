import { containerPart } from "#sdk/path-part.ts";
import type { ContainerDetails, WaitResult } from "#sdk/types.ts";
import { type Command, ExitError, exactly } from "./command.ts";
import type { CliContext } from "./context.ts";
import { string } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";
import { followTerminalSize } from "./resize.ts";
import { runSession } from "./session.ts";
import { forwardSignals } from "./signals.ts";

export const attach: Command = {
  usage: "[OPTIONS] CONTAINER",
  flags: [
    flag("detach-keys", string, "Keys that detach from the container"),
    toggle("no-stdin", "Leave standard input alone"),
    toggle("sig-proxy", "Pass signals on to the process", { shown: "true", initial: true }),
  ],
  args: exactly(1),
  run: runAttach,
};

async function runAttach(context: CliContext, flags: Flags, [name]: readonly string[]): Promise<number> {
  const { client } = context;
  const details = await client.json<ContainerDetails>("GET", `/containers/${containerPart(name!)}/json`);
  const { Id: id, Config: config, State: state } = details;
  if (!state.Running) throw new ExitError(1, "You cannot attach to a stopped container, start it first");
  if (state.Paused) throw new ExitError(1, "You cannot attach to a paused container, unpause it first");
  if (state.Restarting)
    throw new ExitError(1, "You cannot attach to a restarting container, wait until it is running");
  const stdin = !flags.bool("no-stdin") && config.OpenStdin;
  if (stdin && config.Tty && process.stdin.isTTY !== true)
    throw new ExitError(1, "the input device is not a TTY");
  const detachKeys = flags.text("detach-keys") || context.config.detachKeys || "";
  using _signals =
    flags.bool("sig-proxy") && !config.Tty
      ? forwardSignals((signal) => {
          client.run("POST", `/containers/${id}/kill`, { query: { signal } }).catch(() => {
            // The process may be gone already.
          });
        })
      : undefined;
  // Asked before the stream is opened, so that an exit right after it is seen.
  const exit = client.json<WaitResult>("POST", `/containers/${id}/wait`);
  exit.catch(() => {
    // Read below, when the stream has ended.
  });
  const hijacked = await client.hijack(`/containers/${id}/attach`, {
    query: {
      stream: true,
      stdin: stdin ? true : undefined,
      stdout: true,
      stderr: true,
      detachKeys: detachKeys || undefined,
    },
  });
  using _size =
    config.Tty && process.stdout.isTTY === true
      ? followTerminalSize(context, `/containers/${id}`, { repaint: true })
      : undefined;
  await runSession({ hijacked, tty: config.Tty, stdin, stdout: true, stderr: true, detachKeys });
  const result = await exit;
  if (result.Error !== undefined && result.Error !== null) throw new ExitError(1, result.Error.Message);
  return result.StatusCode;
}
