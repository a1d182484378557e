import { atLeast, type Command, ExitError } from "./command.ts";
import { type CreateRequest, createRequest } from "./container-config.ts";
import { containerFlags } from "./container-flags.ts";
import type { CliContext } from "./context.ts";
import { checkPullPolicy, createContainer, withHelp } from "./create-container.ts";
import { DetachError, parseDetachKeys } from "./detach-keys.ts";
import { errorText } from "./error-text.ts";
import { string } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";
import { followTerminalSize } from "./resize.ts";
import { runSession } from "./session.ts";
import { forwardSignals } from "./signals.ts";
import { terminalSize } from "./terminal.ts";
import { watchExit } from "./wait-exit.ts";

export const run: Command = {
  usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
  flags: [
    ...containerFlags("When to pull the image before running"),
    toggle("d,detach", "Run in the background and print the container's id"),
    flag("detach-keys", string, "Keys that detach from the container"),
    toggle("sig-proxy", "Pass signals on to the process", { shown: "true", initial: true }),
  ],
  args: atLeast(1),
  interspersed: false,
  run: runRun,
};

async function runRun(context: CliContext, flags: Flags, args: readonly string[]): Promise<number> {
  let request: CreateRequest;
  try {
    checkPullPolicy(flags.text("pull"));
    request = createRequest(flags, args, context.env);
  } catch (error) {
    throw withHelp(context, "run", error);
  }
  const detach = flags.bool("detach");
  if (detach) {
    if (flags.changed("attach"))
      throw new ExitError(1, "conflicting options: cannot specify both --attach and --detach");
    request = detached(request);
  } else if (request.attach.stdin && request.tty && process.stdin.isTTY !== true) {
    throw new ExitError(1, "the input device is not a TTY");
  }
  const { width, height } = terminalSize();
  (request.body["HostConfig"] as Record<string, unknown>)["ConsoleSize"] = [height, width];
  let id: string;
  try {
    id = await createContainer(context, flags, request);
  } catch (error) {
    throw startFailure(context, error);
  }
  const { stdin, stdout, stderr } = request.attach;
  return stdin || stdout || stderr ? runAttached(context, flags, request, id) : runDetached(context, id);
}

function detached(request: CreateRequest): CreateRequest {
  return {
    ...request,
    attach: { stdin: false, stdout: false, stderr: false },
    body: { ...request.body, AttachStdin: false, AttachStdout: false, AttachStderr: false, StdinOnce: false },
  };
}

async function runDetached(context: CliContext, id: string): Promise<number> {
  try {
    await context.client.run("POST", `/containers/${id}/start`);
  } catch (error) {
    throw startFailure(context, error);
  } finally {
    // Also after a failed start: the container is there, and this is how a script finds it.
    context.print(id);
  }
  return 0;
}

/** Attach first, then wait, then start: nothing the process writes is lost and no exit is missed. */
async function runAttached(
  context: CliContext,
  flags: Flags,
  request: CreateRequest,
  id: string,
): Promise<number> {
  const { client } = context;
  const { attach, tty } = request;
  const detachKeys = flags.text("detach-keys") || context.config.detachKeys || "";
  if (detachKeys !== "") parseDetachKeys(detachKeys);
  using _signals = flags.bool("sig-proxy")
    ? forwardSignals((signal) => {
        client.run("POST", `/containers/${id}/kill`, { query: { signal } }).catch(() => {
          // The process may be gone already, or not there yet.
        });
      })
    : undefined;
  const hijacked = await client.hijack(`/containers/${id}/attach`, {
    query: {
      stream: true,
      stdin: attach.stdin ? true : undefined,
      stdout: attach.stdout ? true : undefined,
      stderr: attach.stderr ? true : undefined,
      detachKeys: detachKeys || undefined,
    },
  });
  const session = runSession({
    hijacked,
    tty,
    stdin: attach.stdin,
    stdout: attach.stdout,
    stderr: attach.stderr,
    detachKeys,
  });
  session.catch(() => {
    // Awaited below; this keeps an early failure from being called unhandled.
  });
  const watch = await watchExit(context, id, request.autoRemove);
  try {
    await client.run("POST", `/containers/${id}/start`);
  } catch (error) {
    hijacked.stream.destroy();
    await session.catch(() => {});
    // A --rm container that did not start is removed all the same: wait, so that its name is free when we return.
    if (request.autoRemove) await watch.code;
    else watch.cancel();
    throw startFailure(context, error);
  }
  using _size = tty ? followTerminalSize(context, `/containers/${id}`) : undefined;
  try {
    await session;
  } catch (error) {
    if (!(error instanceof DetachError)) throw error;
    watch.cancel();
    return 0;
  }
  return watch.code;
}

/** Docker tells the reason of a failed start by its text: 127 not found, 126 not executable, else 125. */
function startFailure(context: CliContext, error: unknown): ExitError {
  const text = errorText(error);
  let code = 125;
  if (/executable file not found|no such file or directory|system cannot find the file specified/.test(text))
    code = 127;
  else if (/permission denied|is a directory/.test(text)) code = 126;
  return withHelp(context, "run", error, code);
}
