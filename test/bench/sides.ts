import { execFileSync } from "node:child_process";
import { childrenOf, type PeerDaemon, startDockerd } from "../peers/dockerd.ts";
import { startPodman } from "../peers/podman.ts";
import { type PeerRegistry, startRegistry } from "../peers/registry.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";

/** One engine under test: its API socket, a command line for it, and a registry inside its own network namespace. */
export interface BenchSide extends AsyncDisposable {
  readonly name: string;
  readonly socket: string;
  /** Runs the engine's client: docker for daemons, podman for podman. */
  cli(...args: string[]): { status: number; stdout: string; stderr: string };
  /** Pids whose memory counts as the engine's own, beside what each container costs. */
  enginePids(): number[];
  /** Command lines of what the engine starts for each container, beside the workload. */
  readonly containerProcess: RegExp;
  readonly dataRoot: string;
  /** SIGKILL and a new start on the same roots, in another network namespace: only for a side that ends with it. */
  crash?(): Promise<void>;
  readonly registry: PeerRegistry;
  /** Namespaced runner of a command beside the engine: for skopeo. */
  readonly netnsOf: number;
}

function dockerCli(socket: string) {
  return (...args: string[]): { status: number; stdout: string; stderr: string } => {
    try {
      const stdout = execFileSync("docker", ["-H", `unix://${socket}`, ...args], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "pipe"],
        // Both daemons build with the classic builder.
        env: { ...process.env, DOCKER_BUILDKIT: "0" },
      });
      return { status: 0, stdout, stderr: "" };
    } catch (error) {
      const failed = error as { status?: number; stdout?: string; stderr?: string };
      return { status: failed.status ?? -1, stdout: failed.stdout ?? "", stderr: failed.stderr ?? "" };
    }
  };
}

export async function dockerdSide(port: number): Promise<BenchSide> {
  const daemon: PeerDaemon = await startDockerd({ extraArgs: ["--insecure-registry", `127.0.0.1:${port}`] });
  const registry = await startRegistry({ netnsOf: daemon.pid, port });
  return {
    name: "dockerd",
    socket: daemon.socket,
    cli: dockerCli(daemon.socket),
    enginePids: () => daemon.daemonPids(),
    containerProcess: /containerd-shim|docker-proxy/,
    dataRoot: daemon.dataRoot,
    registry,
    netnsOf: daemon.pid,
    async [Symbol.asyncDispose]() {
      await registry[Symbol.asyncDispose]();
      await daemon[Symbol.asyncDispose]();
    },
  };
}

/** Skiff in a network namespace of its own, as the peers are. `program`: the installed bundle's skiffd. */
export async function skiffSide(
  port: number,
  name: string,
  args: readonly string[],
  program?: string,
): Promise<BenchSide> {
  const daemon: TestDaemon = await startSkiffd({
    args: ["--insecure-registry", `127.0.0.1:${port}`, ...args],
    prefix: ["unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "skiffd"],
    ...(program === undefined ? {} : { program }),
  });
  const pid = daemon.child.pid!;
  const registry = await startRegistry({ netnsOf: pid, port });
  return {
    name,
    socket: daemon.socket,
    cli: dockerCli(daemon.socket),
    // The native launcher and the namespace helper; shims belong to their containers.
    enginePids: () => [pid, ...childrenOf(pid)],
    containerProcess: /skiff-native|launcher|shim/,
    dataRoot: daemon.dataRoot,
    crash: async () => {
      await daemon.kill();
      await daemon.restart();
    },
    registry,
    netnsOf: pid,
    async [Symbol.asyncDispose]() {
      await registry[Symbol.asyncDispose]();
      await daemon[Symbol.asyncDispose]();
    },
  };
}

/** podman with its Docker-compatible service. */
export async function podmanSide(port: number): Promise<BenchSide> {
  const podman = await startPodman([`127.0.0.1:${port}`]);
  const registry = await startRegistry({ netnsOf: podman.pid, port });
  return {
    name: "podman",
    socket: podman.socket,
    cli: podman.cli,
    enginePids: () => [],
    containerProcess: /conmon/,
    dataRoot: podman.dataRoot,
    registry,
    netnsOf: podman.pid,
    async [Symbol.asyncDispose]() {
      await registry[Symbol.asyncDispose]();
      await podman[Symbol.asyncDispose]();
    },
  };
}
