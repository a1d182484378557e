import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { waitForPing } from "./dockerd.ts";
import { childrenOf, type DaemonIdentity, objectsLeft, removeCgroups } from "./leaks.ts";

export interface TestDaemon extends AsyncDisposable {
  readonly socket: string;
  /** Value for DOCKER_HOST. */
  readonly host: string;
  readonly home: string;
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly cgroupParent: string;
  readonly child: ChildProcess;
  /** For the leak check. */
  readonly identity: DaemonIdentity;
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
  /** Elsewhere than below `home`: a disk of its own. It is left as it is. */
  readonly dataRoot?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Another skiffd than this checkout's: an installed bundle. */
  readonly program?: string;
  /** Command line in front of the daemon, for example `nsenter …`. */
  readonly prefix?: readonly string[];
  /** Descriptors that the daemon finds from 3 on. */
  readonly inherit?: readonly number[];
}

const skiffd = join(import.meta.dirname, "../../bin/skiffd");

/**
 * A private skiffd on temporary roots. Disposal removes every container, stops the daemon, deletes the roots, and throws
 * when something of this daemon is still in the kernel: so every suite that starts one ends with a leak check.
 */
export async function startSkiffd(options: TestDaemonOptions = {}): Promise<TestDaemon> {
  const home = options.home ?? mkdtempSync(join(tmpdir(), "skiff-test-"));
  const socket = join(home, "skiff.sock");
  const logPath = join(home, "daemon.log");
  const dataRoot = options.dataRoot ?? join(home, "data");
  const execRoot = join(home, "run");
  const cgroupParent = `/skiff-test-${basename(home).slice(-6)}`;
  const state: { child: ChildProcess } = { child: undefined as unknown as ChildProcess };
  const children: string[] = [];
  const identity: DaemonIdentity = { home, dataRoot, cgroupParent, children };
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
      "--cgroup-parent",
      cgroupParent,
      ...(options.args ?? []),
    ];
    state.child = spawn(argv[0]!, argv.slice(1), {
      env: { ...process.env, ...options.env },
      stdio: ["ignore", log, log, ...(options.inherit ?? [])],
    });
    try {
      await waitForPing(socket, state.child, 60_000);
      // Restarted helpers are found by what they hold.
      children.push(...childrenOf(state.child.pid!));
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
    cgroupParent,
    identity,
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
      const runs = (): boolean => state.child.exitCode === null && state.child.signalCode === null;
      // A daemon that ended left its containers; the next one takes them over and can remove them.
      if (!runs() && hasEntries(join(dataRoot, "containers"))) await start();
      if (runs()) await removeAll(socket);
      await end("SIGTERM");
      const left = await objectsLeft(identity);
      removeCgroups(cgroupParent);
      const log = readFileSync(logPath, "utf8").slice(-2000);
      rmSync(home, { recursive: true, force: true });
      if (left.length > 0) throw new Error(`left over after the daemon:\n${left.join("\n")}\n${log}`);
    },
  };
}

function hasEntries(folder: string): boolean {
  return existsSync(folder) && readdirSync(folder).length > 0;
}

async function removeAll(socketPath: string): Promise<void> {
  const { call } = await import("./engine-call.ts");
  const containers = await call<{ Id: string }[]>(socketPath, "GET", "/containers/json?all=1");
  for (const container of containers.body ?? []) {
    await call(socketPath, "DELETE", `/containers/${container.Id}?force=1&v=1`);
  }
}
