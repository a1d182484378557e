import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { childrenOf, type PeerDaemon, startDockerd, waitForPing } from "../peers/dockerd.ts";
import { ensurePeers } from "../peers/peer-cache.ts";
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

/** podman with its Docker-compatible service, in namespaces of its own. */
export async function podmanSide(port: number): Promise<BenchSide> {
  const peers = ensurePeers();
  const home = mkdtempSync(join(tmpdir(), "skiff-peer-podman-"));
  const socket = join(home, "podman.sock");
  writeFileSync(join(home, "policy.json"), '{"default":[{"type":"insecureAcceptAnything"}]}');
  writeFileSync(
    join(home, "registries.conf"),
    `[[registry]]\nlocation = "127.0.0.1:${port}"\ninsecure = true\n`,
  );
  mkdirSync(join(home, "net"));
  writeFileSync(
    join(home, "containers.conf"),
    `[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["${join(peers.root, "usr/lib/cni")}"]\nnetwork_config_dir = "${join(home, "net")}"\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nconmon_path = ["${peers.path("conmon")}"]\nruntime = "runc"\ntmp_dir = "${join(home, "tmp")}"\n[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=10000:10000"]\ncgroup_parent = "/skiff-peer-podman"\n`,
  );
  const { env } = peers;
  const base = [
    "--root",
    join(home, "root"),
    "--runroot",
    join(home, "runroot"),
    "--storage-driver",
    "overlay",
  ];
  // conmon runs podman's clean-up without the environment: what it needs lies where it looks, in this namespace only.
  const libraries = "usr/lib/x86_64-linux-gnu";
  for (const name of ["etc", "etc-work"]) mkdirSync(join(home, name));
  const script = [
    "mount --make-rprivate /",
    "mount -t tmpfs -o mode=755 tmpfs /run",
    `mount -t overlay -o lowerdir=${join(peers.root, libraries)}:/${libraries} overlay /${libraries}`,
    'mount -t overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/etc-work" overlay /etc',
    "mkdir -p /etc/containers",
    'cp "$1"/policy.json "$1"/registries.conf "$1"/containers.conf /etc/containers/',
    "shift",
    "ip link set lo up",
    'exec "$@"',
  ].join(" && ");
  // podman waits up to 20 s for conmon to be reaped: a subreaper does it at once where pid 1 is slow.
  const reaper = [peers.path("tini-static"), "-s", "--"];
  const log = openSync(join(home, "log"), "a");
  const child: ChildProcess = spawn(
    "unshare",
    [
      "--mount",
      "--net",
      "--",
      "sh",
      "-c",
      script,
      "podman",
      home,
      ...reaper,
      peers.path("podman"),
      ...base,
      "system",
      "service",
      "--time=0",
      `unix://${socket}`,
    ],
    { env, stdio: ["ignore", log, log] },
  );
  try {
    await waitForPing(socket, child, 20_000);
  } catch (error) {
    child.kill("SIGKILL");
    throw new Error(
      `podman did not start: ${String(error)}\n${readFileSync(join(home, "log"), "utf8").slice(-2000)}`,
    );
  }
  const registry = await startRegistry({ netnsOf: child.pid!, port });
  return {
    name: "podman",
    socket,
    cli: (...args) => {
      try {
        const stdout = execFileSync(
          "nsenter",
          ["-t", String(child.pid), "-m", "-n", "--", ...reaper, peers.path("podman"), ...base, ...args],
          {
            env,
            encoding: "utf8",
            stdio: ["ignore", "pipe", "pipe"],
          },
        );
        return { status: 0, stdout, stderr: "" };
      } catch (error) {
        const failed = error as { status?: number; stdout?: string; stderr?: string };
        return { status: failed.status ?? -1, stdout: failed.stdout ?? "", stderr: failed.stderr ?? "" };
      }
    },
    enginePids: () => [],
    containerProcess: /conmon/,
    dataRoot: join(home, "root"),
    registry,
    netnsOf: child.pid!,
    async [Symbol.asyncDispose]() {
      await registry[Symbol.asyncDispose]();
      child.kill("SIGTERM");
      await new Promise<void>((resolve) =>
        child.exitCode === null && child.signalCode === null
          ? child.once("exit", () => resolve())
          : resolve(),
      );
      rmSync(home, { recursive: true, force: true });
    },
  };
}
