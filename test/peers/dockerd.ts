import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { removeCgroups } from "./leaks.ts";
import { ensurePeers } from "./peer-cache.ts";

export interface PeerDaemon extends AsyncDisposable {
  readonly socket: string;
  /** Value for DOCKER_HOST. */
  readonly host: string;
  /** pid of a process in the peer's network and mount namespaces: for nsenter. */
  readonly pid: number;
  /** Pids of the daemon and what it keeps running beside it, for memory figures. */
  daemonPids(): number[];
  readonly dataRoot: string;
}

/** Resolves once GET /_ping on a unix socket answers 200. */
export async function waitForPing(socketPath: string, child: ChildProcess, timeoutMs: number): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const ok = await new Promise<boolean>((resolve) => {
      const ping = request({ socketPath, path: "/_ping", agent: false }, (answer) => {
        answer.resume();
        resolve(answer.statusCode === 200);
      });
      ping.on("error", () => resolve(false));
      ping.end();
    });
    if (ok) return;
    if (child.exitCode !== null || child.signalCode !== null)
      throw new Error(`daemon ended before it answered`);
    if (performance.now() > deadline) throw new Error(`no answer on ${socketPath} within ${timeoutMs} ms`);
    await sleep(20);
  }
}

/**
 * Debian's dockerd with its containerd on a socket and roots of its own, in its own network and mount namespaces: its
 * firewall rules, bridge and mounts are not the machine's. `dataRoot` lies under /tmp (overlay2 needs a real disk).
 * `prepare`: shell commands that run in its namespaces before it.
 */
export async function startDockerd(
  options: { extraArgs?: readonly string[]; prepare?: readonly string[] } = {},
): Promise<PeerDaemon> {
  const peers = ensurePeers();
  const home = mkdtempSync(join(tmpdir(), "skiff-peer-dockerd-"));
  const dataRoot = join(home, "data");
  mkdirSync(dataRoot);
  const socket = join(home, "docker.sock");
  const config = join(home, "daemon.json");
  writeFileSync(config, "{}");
  const log = openSync(join(home, "log"), "a");
  // /run is hidden by a tmpfs of the namespace's own, so that containerd's and docker's state folders are private.
  const script = [
    "mount --make-rprivate /",
    "mount -t tmpfs -o mode=755 tmpfs /run",
    "ip link set lo up",
    ...(options.prepare ?? []),
    'exec "$@"',
  ].join(" && ");
  const child = spawn(
    "unshare",
    [
      "--mount",
      "--net",
      "--",
      "sh",
      "-c",
      script,
      "dockerd",
      peers.path("dockerd"),
      "-H",
      `unix://${socket}`,
      "--data-root",
      dataRoot,
      "--exec-root",
      join(home, "exec"),
      "--pidfile",
      join(home, "pid"),
      "--cgroup-parent",
      `/skiff-peer-${process.pid}`,
      "--config-file",
      config,
      "--storage-driver",
      "overlay2",
      ...(options.extraArgs ?? []),
    ],
    { env: peers.env, stdio: ["ignore", log, log] },
  );
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
      child.kill("SIGTERM");
      await Promise.race([ended, sleep(15_000, undefined, { ref: false })]);
      if (child.exitCode === null && child.signalCode === null) {
        child.kill("SIGKILL");
        await ended;
      }
    }
    removeCgroups(`/skiff-peer-${process.pid}`);
    rmSync(home, { recursive: true, force: true });
  };
  try {
    await waitForPing(socket, child, 60_000);
  } catch (error) {
    const text = readFileSync(join(home, "log"), "utf8").slice(-3000);
    await stop();
    throw new Error(`dockerd did not start: ${String(error)}\n${text}`);
  }
  return {
    socket,
    host: `unix://${socket}`,
    pid: child.pid!,
    dataRoot,
    daemonPids: () => [child.pid!, ...childrenOf(child.pid!)],
    [Symbol.asyncDispose]: stop,
  };
}

export function childrenOf(pid: number): number[] {
  // Each thread has the children that it made itself.
  const lists = readdirSync(`/proc/${pid}/task`).map((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/children`, "utf8").trim(),
  );
  return lists.flatMap((list) => (list === "" ? [] : list.split(" ").map(Number)));
}
