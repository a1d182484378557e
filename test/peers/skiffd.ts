import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { waitForPing } from "./dockerd.ts";

export interface TestDaemon extends AsyncDisposable {
  readonly socket: string;
  /** Value for DOCKER_HOST. */
  readonly host: string;
  readonly home: string;
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly child: ChildProcess;
  /** What the daemon logged so far. */
  log(): string;
  /** SIGKILL, as a crash would. The roots stay. */
  kill(): Promise<void>;
  /** SIGTERM and wait; resolves with the exit code. */
  stop(): Promise<number | null>;
  /** Starts it again on the same roots. */
  restart(): Promise<void>;
}

export interface TestDaemonOptions {
  readonly args?: readonly string[];
  /** Roots of an earlier daemon, or undefined for new ones under /tmp. */
  readonly home?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Another skiffd than this checkout's: an installed bundle. */
  readonly program?: string;
  /** Command line in front of the daemon, for example `nsenter …`. */
  readonly prefix?: readonly string[];
}

const skiffd = join(import.meta.dirname, "../../bin/skiffd");

/** A private skiffd on temporary roots. Disposal removes every container, stops the daemon, and deletes the roots. */
export async function startSkiffd(options: TestDaemonOptions = {}): Promise<TestDaemon> {
  const home = options.home ?? mkdtempSync(join(tmpdir(), "skiff-test-"));
  const socket = join(home, "skiff.sock");
  const logPath = join(home, "daemon.log");
  const dataRoot = join(home, "data");
  const execRoot = join(home, "run");
  const state: { child: ChildProcess } = { child: undefined as unknown as ChildProcess };
  const start = async (): Promise<void> => {
    const log = openSync(logPath, "a");
    const argv = [
      ...(options.prefix ?? []),
      options.program ?? skiffd,
      "-H",
      `unix://${socket}`,
      "--data-root",
      dataRoot,
      "--exec-root",
      execRoot,
      "--pidfile",
      join(home, "pid"),
      ...(options.args ?? []),
    ];
    state.child = spawn(argv[0]!, argv.slice(1), {
      env: { ...process.env, ...options.env },
      stdio: ["ignore", log, log],
    });
    try {
      await waitForPing(socket, state.child, 20_000);
    } catch (error) {
      state.child.kill("SIGKILL");
      throw new Error(
        `skiffd did not start: ${String(error)}\n${readFileSync(logPath, "utf8").slice(-4000)}`,
      );
    }
  };
  const end = async (signal: NodeJS.Signals): Promise<number | null> => {
    const { child } = state;
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
    const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    child.kill(signal);
    await Promise.race([ended, sleep(20_000, undefined, { ref: false })]);
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await ended;
    }
    return child.exitCode;
  };
  await start();
  return {
    socket,
    host: `unix://${socket}`,
    home,
    dataRoot,
    execRoot,
    get child() {
      return state.child;
    },
    log: () => readFileSync(logPath, "utf8"),
    kill: async () => {
      await end("SIGKILL");
    },
    stop: () => end("SIGTERM"),
    restart: start,
    async [Symbol.asyncDispose]() {
      if (state.child.exitCode === null && state.child.signalCode === null) await removeAll(socket);
      await end("SIGTERM");
      rmSync(home, { recursive: true, force: true });
    },
  };
}

async function removeAll(socketPath: string): Promise<void> {
  const { call } = await import("./engine-call.ts");
  const containers = await call<{ Id: string }[]>(socketPath, "GET", "/containers/json?all=1");
  for (const container of containers.body ?? []) {
    await call(socketPath, "DELETE", `/containers/${container.Id}?force=1&v=1`);
  }
}
