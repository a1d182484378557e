import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { waitForPing } from "./dockerd.ts";
import { ensurePeers } from "./peer-cache.ts";

export interface PeerPodman extends AsyncDisposable {
  /** Of its Docker-compatible service. */
  readonly socket: string;
  /** A process in its network and mount namespaces. */
  readonly pid: number;
  readonly dataRoot: string;
  /** podman's own command line, on the same storage. */
  cli(...args: string[]): { status: number; stdout: string; stderr: string };
}

/**
 * Debian's podman with its Docker-compatible service, on roots of its own, in namespaces of its own. `insecureRegistries`:
 * `host:port` that it may speak http to.
 */
export async function startPodman(insecureRegistries: readonly string[]): Promise<PeerPodman> {
  const peers = ensurePeers();
  const home = mkdtempSync(join(tmpdir(), "skiff-peer-podman-"));
  const socket = join(home, "podman.sock");
  writeConfiguration(home, insecureRegistries);
  const { env } = peers;
  const base = [
    ...["--root", join(home, "root"), "--runroot", join(home, "runroot")],
    ...["--storage-driver", "overlay"],
  ];
  // conmon runs podman's clean-up without the environment: what it needs lies where it looks, in this namespace only.
  const libraries = "usr/lib/x86_64-linux-gnu";
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
  const podman = [peers.path("tini-static"), "-s", "--", peers.path("podman"), ...base];
  const log = openSync(join(home, "log"), "a");
  const service = [...podman, "system", "service", "--time=0", `unix://${socket}`];
  const child = spawn("unshare", ["--mount", "--net", "--", "sh", "-c", script, "podman", home, ...service], {
    env,
    stdio: ["ignore", log, log],
  });
  try {
    await waitForPing(socket, child, 60_000);
  } catch (error) {
    child.kill("SIGKILL");
    const text = readFileSync(join(home, "log"), "utf8").slice(-2000);
    throw new Error(`podman did not start: ${String(error)}\n${text}`);
  }
  return {
    socket,
    pid: child.pid!,
    dataRoot: join(home, "root"),
    cli: (...args) => {
      try {
        const argv = ["-t", String(child.pid), "-m", "-n", "--", ...podman, ...args];
        const stdout = execFileSync("nsenter", argv, {
          env,
          encoding: "utf8",
          stdio: ["ignore", "pipe", "pipe"],
        });
        return { status: 0, stdout, stderr: "" };
      } catch (error) {
        const failed = error as { status?: number; stdout?: string; stderr?: string };
        return { status: failed.status ?? -1, stdout: failed.stdout ?? "", stderr: failed.stderr ?? "" };
      }
    },
    async [Symbol.asyncDispose]() {
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

function writeConfiguration(home: string, insecureRegistries: readonly string[]): void {
  const peers = ensurePeers();
  for (const name of ["net", "etc", "etc-work"]) mkdirSync(join(home, name));
  writeFileSync(join(home, "policy.json"), '{"default":[{"type":"insecureAcceptAnything"}]}');
  writeFileSync(
    join(home, "registries.conf"),
    insecureRegistries
      .map((location) => `[[registry]]\nlocation = "${location}"\ninsecure = true\n`)
      .join(""),
  );
  writeFileSync(
    join(home, "containers.conf"),
    `[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["${join(peers.root, "usr/lib/cni")}"]\nnetwork_config_dir = "${join(home, "net")}"\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nconmon_path = ["${peers.path("conmon")}"]\nruntime = "runc"\ntmp_dir = "${join(home, "tmp")}"\n[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=10000:10000"]\ncgroup_parent = "/skiff-peer-podman"\n`,
  );
}
