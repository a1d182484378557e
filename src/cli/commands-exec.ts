import { containerPart } from "#sdk/path-part.ts";
import { atLeast, type Command, ExitError } from "./command.ts";
import type { CliContext } from "./context.ts";
import { collectEnvironment } from "./env-file.ts";
import { list, listOf, string } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";
import { checkEnv } from "./option-checks.ts";
import { followTerminalSize } from "./resize.ts";
import { runSession } from "./session.ts";
import { terminalSize } from "./terminal.ts";

export const exec: Command = {
  usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
  flags: [
    toggle("d,detach", "Run in the background"),
    flag("detach-keys", string, "Keys that detach from the command"),
    flag("e,env", listOf(checkEnv), "Set an environment variable"),
    flag("env-file", list, "Read environment variables from a file"),
    toggle("i,interactive", "Keep standard input open even when nothing is attached"),
    toggle("privileged", "Give the command all privileges"),
    toggle("t,tty", "Give the command a pseudo-terminal"),
    flag("u,user", string, 'User name or id (as "<name|uid>[:<group|gid>]")'),
    flag("w,workdir", string, "Working directory inside the container"),
  ],
  args: atLeast(2),
  interspersed: false,
  run: runExec,
};

async function runExec(context: CliContext, flags: Flags, args: readonly string[]): Promise<number> {
  const [name, ...command] = args as [string, ...string[]];
  const { client } = context;
  const detach = flags.bool("detach");
  const tty = flags.bool("tty");
  const stdin = flags.bool("interactive") && !detach;
  const detachKeys = flags.text("detach-keys") || context.config.detachKeys || "";
  const env = collectEnvironment(flags.list("env-file"), flags.list("env"), context.env);
  // The container first: a wrong name is told even where the terminal is wrong too.
  await client.run("GET", `/containers/${containerPart(name)}/json`);
  if (!detach && stdin && tty && process.stdin.isTTY !== true)
    throw new ExitError(1, "the input device is not a TTY");
  const { width, height } = terminalSize();
  const consoleSize = tty && width > 0 ? { ConsoleSize: [height, width] } : {};
  const created = await client.json<{ Id: string }>("POST", `/containers/${containerPart(name)}/exec`, {
    json: {
      User: flags.text("user"),
      Privileged: flags.bool("privileged"),
      Tty: tty,
      ...consoleSize,
      Detach: detach,
      AttachStdin: stdin,
      AttachStderr: !detach,
      AttachStdout: !detach,
      DetachKeys: detachKeys,
      Env: env.length === 0 ? null : env,
      WorkingDir: flags.text("workdir"),
      Cmd: command,
    },
  });
  const id = created.Id;
  if (id === "") throw new ExitError(1, "exec ID empty");
  if (detach) {
    await client.run("POST", `/exec/${id}/start`, { json: { Detach: true, Tty: tty, ...consoleSize } });
    return 0;
  }
  const hijacked = await client.hijack(`/exec/${id}/start`, {
    json: { Detach: false, Tty: tty, ...consoleSize },
  });
  using _size = tty && process.stdout.isTTY === true ? followTerminalSize(context, `/exec/${id}`) : undefined;
  await runSession({ hijacked, tty, stdin, stdout: true, stderr: !tty, detachKeys });
  const state = await client.json<{ ExitCode: number | null }>("GET", `/exec/${id}/json`);
  return state.ExitCode ?? 0;
}
