/** Use cases: exec create, start, inspect, resize. */
import type { Duplex } from "node:stream";
import { EngineError, messageOf } from "#base/errors.ts";
import { type ExecId, newExecId } from "#base/ids.ts";
import { RuntimeStartError } from "#runtime/runtime-start-error.ts";
import type { ExecProcess } from "#runtime/shim.ts";
import type { ExecCreateBody, ExecStartBody } from "#wire/container-schema.ts";
import { encodeFrame } from "#wire/stdio-frames.ts";
import { parseDetachKeys } from "./attach-keys.ts";
import { joinStdio } from "./attach-pipe.ts";
import type { Container } from "./container.ts";
import { effectiveEnv } from "./container-config.ts";
import { type ContainerContext, containerEvent } from "./container-context.ts";
import type { Exec } from "./exec-record.ts";

/** Ended execs that are still there to be inspected, oldest forgotten first. */
const endedExecsMax = 256;

/** Execs of all containers by id. */
export class ExecTable {
  readonly #byId = new Map<ExecId, Exec>();
  readonly #ended: Exec[] = [];

  add(container: Container, exec: Exec): void {
    this.#byId.set(exec.id, exec);
    container.execs.set(exec.id, exec);
  }

  resolve(id: string): Exec {
    const exec = this.#byId.get(id as ExecId);
    if (exec !== undefined) return exec;
    throw new EngineError("notFound", `No such exec instance: ${id}`, { code: "no-such-exec" });
  }

  /** Keeps an ended exec for a while, so that its exit code can be asked for. */
  ended(container: Container, exec: Exec): void {
    this.#ended.push(exec);
    container.execs.delete(exec.id);
    const oldest = this.#ended.length > endedExecsMax ? this.#ended.shift() : undefined;
    if (oldest !== undefined) this.#byId.delete(oldest.id);
  }

  /** The container is gone, and its execs with it. */
  forget(container: Container): void {
    for (const [id, exec] of this.#byId) if (exec.containerId === container.id) this.#byId.delete(id);
  }
}

/** Docker's conditions for an exec, in its words. */
function checkExecutable(container: Container): void {
  const { status } = container.state;
  const refuse = (message: string): EngineError =>
    new EngineError("conflict", message, { code: "not-running" });
  if (status === "paused") {
    throw refuse(`container ${container.id} is paused, unpause the container before exec`);
  }
  if (status === "restarting") {
    throw refuse(`container ${container.id} is restarting, wait until the container is running`);
  }
  if (status !== "running" || container.sandbox === undefined) {
    throw refuse(`container ${container.id} is not running`);
  }
}

export function createExec(
  ctx: ContainerContext,
  execs: ExecTable,
  container: Container,
  body: ExecCreateBody,
): ExecId {
  if (!body.Cmd?.length || body.Cmd[0] === "") {
    throw new EngineError("invalid", "No exec command specified", { code: "no-command" });
  }
  checkExecutable(container);
  ctx.runtime.announce();
  parseDetachKeys(body.DetachKeys);
  if (body.WorkingDir !== "" && !body.WorkingDir.startsWith("/")) {
    throw new EngineError(
      "invalid",
      `the working directory '${body.WorkingDir}' is invalid, it needs to be an absolute path`,
    );
  }
  const { promise, resolve } = Promise.withResolvers<void>();
  const exec: Exec = {
    id: newExecId(),
    containerId: container.id,
    command: body.Cmd,
    env: body.Env ?? [],
    workingDir: body.WorkingDir,
    user: body.User,
    privileged: body.Privileged,
    terminal: body.Tty,
    openStdin: body.AttachStdin,
    openStdout: body.AttachStdout,
    openStderr: body.AttachStderr,
    detachKeys: body.DetachKeys,
    size: sizeOf(body.ConsoleSize),
    phase: "created",
    process: undefined,
    exitCode: null,
    started: promise,
    markStarted: resolve,
  };
  execs.add(container, exec);
  execEvent(ctx, container, exec, "exec_create");
  return exec.id;
}

function sizeOf(console: readonly number[] | null): { rows: number; columns: number } | undefined {
  const [rows = 0, columns = 0] = console ?? [];
  return rows > 0 && columns > 0 ? { rows, columns } : undefined;
}

function execEvent(
  ctx: ContainerContext,
  container: Container,
  exec: Exec,
  action: "exec_create" | "exec_start",
): void {
  const [program = "", ...args] = exec.command;
  containerEvent(ctx, container, `${action}: ${program} ${args.join(" ")}`, { execID: exec.id });
}

export interface ExecStart {
  readonly terminal: boolean;
  /** Runs the process for a client; errors are written to the client, as Docker does once the connection is taken. */
  serve(client: Duplex): Promise<void>;
  /** The client never came: the exec counts as ended. */
  cancel(): void;
  /** Runs the process for nobody. */
  detached(): Promise<void>;
}

/** Claims an exec for one start. `conflict` when it has been started before or its container cannot run it. */
export function startExec(
  ctx: ContainerContext,
  execs: ExecTable,
  container: Container,
  exec: Exec,
  body: ExecStartBody,
): ExecStart {
  if (exec.phase !== "created") {
    const how = exec.phase === "ended" ? "has already run" : "is already running";
    throw new EngineError("conflict", `Error: Exec command ${exec.id} ${how}`, { code: "exec-started" });
  }
  checkExecutable(container);
  exec.phase = "starting";
  exec.size = sizeOf(body.ConsoleSize) ?? exec.size;
  return {
    terminal: exec.terminal,
    cancel: () => endUnstarted(execs, container, exec, 126),
    detached: async () => void (await runExec(ctx, execs, container, exec, false)),
    serve: async (client) => {
      let process: ExecProcess;
      try {
        process = await runExec(ctx, execs, container, exec, true);
      } catch (error) {
        const text = Buffer.from(`${messageOf(error)}\r\n`);
        client.end(exec.terminal ? text : encodeFrame("stdout", text));
        client.resume();
        return;
      }
      if (process.stdio === undefined) {
        client.end();
        return;
      }
      await joinStdio(client, process.stdio, {
        stdin: exec.openStdin,
        detachKeys: exec.terminal && exec.openStdin ? parseDetachKeys(exec.detachKeys) : undefined,
      });
    },
  };
}

async function runExec(
  ctx: ContainerContext,
  execs: ExecTable,
  container: Container,
  exec: Exec,
  attached: boolean,
): Promise<ExecProcess> {
  execEvent(ctx, container, exec, "exec_start");
  let process: ExecProcess;
  try {
    checkExecutable(container);
    process = await container.sandbox!.exec({
      execId: exec.id,
      args: exec.command,
      env: effectiveEnv(exec.env),
      workingDir: exec.workingDir,
      user: exec.user,
      privileged: exec.privileged,
      terminal: exec.terminal,
      openStdin: exec.openStdin && attached,
      ...(exec.size !== undefined && { terminalSize: exec.size }),
      attach: attached
        ? { stdin: exec.openStdin, stdout: exec.openStdout, stderr: exec.openStderr }
        : undefined,
    });
  } catch (error) {
    endUnstarted(execs, container, exec, error instanceof RuntimeStartError ? error.exitCode : 126);
    throw error;
  }
  exec.phase = "running";
  exec.process = process;
  exec.markStarted();
  ctx.watch("waiting for an exec", finishExec(ctx, execs, container, exec, process));
  return process;
}

function endUnstarted(execs: ExecTable, container: Container, exec: Exec, exitCode: number): void {
  exec.phase = "ended";
  exec.exitCode = exitCode;
  execs.ended(container, exec);
  exec.markStarted();
}

async function finishExec(
  ctx: ContainerContext,
  execs: ExecTable,
  container: Container,
  exec: Exec,
  process: ExecProcess,
): Promise<void> {
  const { exitCode } = await process.exited;
  exec.phase = "ended";
  exec.exitCode = exitCode;
  execs.ended(container, exec);
  containerEvent(ctx, container, "exec_die", { execID: exec.id, exitCode: String(exitCode) });
}

export interface ExecInspectJson {
  ID: string;
  Running: boolean;
  ExitCode: number | null;
  ProcessConfig: {
    tty: boolean;
    entrypoint: string;
    arguments: string[];
    privileged: boolean;
    user?: string;
  };
  OpenStdin: boolean;
  OpenStderr: boolean;
  OpenStdout: boolean;
  CanRemove: boolean;
  ContainerID: string;
  DetachKeys: string;
  Pid: number;
}

export function inspectExec(exec: Exec): ExecInspectJson {
  const [entrypoint = "", ...args] = exec.command;
  return {
    ID: exec.id,
    Running: exec.phase === "running",
    ExitCode: exec.exitCode,
    ProcessConfig: {
      tty: exec.terminal,
      entrypoint,
      arguments: args,
      privileged: exec.privileged,
      ...(exec.user !== "" && { user: exec.user }),
    },
    OpenStdin: exec.openStdin,
    OpenStderr: exec.openStderr,
    OpenStdout: exec.openStdout,
    CanRemove: false,
    ContainerID: exec.containerId,
    DetachKeys: exec.detachKeys,
    Pid: exec.process?.pid ?? 0,
  };
}

/** How long a resize waits for its exec to be started: clients send both at once. */
const resizeWaitMs = 3_000;

export async function resizeExec(exec: Exec, size: { rows: number; columns: number }): Promise<void> {
  if (exec.phase === "created" || exec.phase === "starting") {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, resizeWaitMs);
    });
    await Promise.race([exec.started, late]);
    clearTimeout(timer);
  }
  if (exec.process === undefined || exec.phase !== "running") {
    throw new EngineError("conflict", "exec process is not started", { code: "not-running" });
  }
  await exec.process.resize(size.rows, size.columns);
}
