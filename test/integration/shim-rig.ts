import { spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { type ContainerId, newContainerId, newExecId } from "#base/ids.ts";
import { silentLog } from "#base/log.ts";
import type { ExecLaunch, Shim, ShimHost, ShimLaunch, StdioStream } from "#runtime/shim.ts";
import { createShimHost } from "#runtime/shim-host.ts";

/** A busybox layer, a bundle and a host of shims on temporary roots: what the shim's tests run containers with. */
export const nativeBinary = join(import.meta.dirname, "../../native/build/skiff-native");

const dockerCapabilities = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FSETID",
  "CAP_FOWNER",
  "CAP_MKNOD",
  "CAP_NET_RAW",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETFCAP",
  "CAP_SETPCAP",
  "CAP_NET_BIND_SERVICE",
  "CAP_SYS_CHROOT",
  "CAP_KILL",
  "CAP_AUDIT_WRITE",
];

/** The same set as a mask. */
export const dockerCapabilityMask = 0xa80425fbn;

export interface BundleOptions {
  readonly args: readonly string[];
  readonly terminal?: boolean;
  readonly cwd?: string;
  readonly hostPidNamespace?: boolean;
  readonly memoryBytes?: number;
  readonly mounts?: readonly object[];
  readonly rootfsPropagation?: string;
}

/** A minimal OCI configuration: what the runtime area writes in earnest. */
export function ociConfig(cgroupPath: string, options: BundleOptions): object {
  const namespaces = [
    "mount",
    "ipc",
    "uts",
    "network",
    ...(options.hostPidNamespace === true ? [] : ["pid"]),
  ];
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: options.terminal ?? false,
      user: { uid: 0, gid: 0 },
      args: options.args,
      env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
      cwd: options.cwd ?? "/",
      capabilities: {
        bounding: dockerCapabilities,
        effective: dockerCapabilities,
        permitted: dockerCapabilities,
      },
    },
    root: { path: "rootfs", readonly: false },
    hostname: "test",
    mounts: [
      { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
      {
        destination: "/dev",
        type: "tmpfs",
        source: "tmpfs",
        options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
      },
      {
        destination: "/dev/pts",
        type: "devpts",
        source: "devpts",
        options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
      },
      ...(options.mounts ?? []),
    ],
    linux: {
      cgroupsPath: cgroupPath,
      namespaces: namespaces.map((type) => ({ type })),
      ...(options.rootfsPropagation === undefined ? {} : { rootfsPropagation: options.rootfsPropagation }),
      resources: {
        devices: [{ allow: true, access: "rwm" }],
        ...(options.memoryBytes === undefined
          ? {}
          : { memory: { limit: options.memoryBytes, swap: options.memoryBytes } }),
      },
    },
  };
}

export interface TestContainer {
  readonly id: ContainerId;
  readonly runDir: string;
  readonly stateDir: string;
  readonly logPath: string;
  readonly launch: ShimLaunch;
}

export class Rig implements AsyncDisposable {
  readonly root: string;
  readonly execRoot: string;
  readonly layer: string;
  readonly launcherCgroup: string;
  readonly cgroupParent: string;
  host!: ShimHost;
  #mounted = false;

  private constructor() {
    this.root = mkdtempSync(join(tmpdir(), "skiff-shim-"));
    this.execRoot = join(this.root, "run");
    this.layer = join(this.root, "layer");
    const unique = this.root.slice(this.root.lastIndexOf("-") + 1);
    this.launcherCgroup = `/skiff-test-shims-${unique}`;
    this.cgroupParent = `/skiff-test-${unique}`;
    mkdirSync(this.execRoot, { recursive: true, mode: 0o700 });
    makeLayer(this.layer);
  }

  /** `mountExecRoot` may mount something on the exec root before anything is in it. */
  static async start(mountExecRoot?: (execRoot: string) => void): Promise<Rig> {
    const rig = new Rig();
    mountExecRoot?.(rig.execRoot);
    mkdirSync(join(rig.execRoot, "containers"), { recursive: true, mode: 0o700 });
    rig.#mounted = mountExecRoot !== undefined;
    await rig.connect();
    return rig;
  }

  /** A (new) daemon's host over the same roots. */
  async connect(): Promise<ShimHost> {
    this.host = await createShimHost({
      binaryPath: nativeBinary,
      execRoot: this.execRoot,
      launcherCgroup: this.launcherCgroup,
      log: silentLog,
    });
    return this.host;
  }

  /** Directories and bundle of a container that has not been launched yet. */
  container(bundle: BundleOptions, changes: Partial<ShimLaunch> = {}): TestContainer {
    const id = newContainerId();
    const runDir = join(this.execRoot, "containers", id);
    const stateDir = join(this.root, "state", id);
    for (const path of [runDir, stateDir, join(stateDir, "upper"), join(stateDir, "work")]) {
      mkdirSync(path, { recursive: true, mode: 0o700 });
    }
    chmodSync(join(stateDir, "upper"), 0o755);
    const logPath = join(stateDir, `${id}-json.log`);
    const cgroupPath = `${this.cgroupParent}/${id}`;
    const launch: ShimLaunch = {
      id,
      runDir,
      stateDir,
      lowerDirs: [this.layer],
      upperDir: join(stateDir, "upper"),
      workDir: join(stateDir, "work"),
      volatile: true,
      runtime: { path: "/usr/bin/crun", kind: "crun", root: join(this.execRoot, "crun"), args: [] },
      terminal: bundle.terminal ?? false,
      openStdin: false,
      stdinOnce: false,
      log: { driver: "json-file", path: logPath, maxBytes: 0, maxFiles: 1, attrsJson: "" },
      ports: [],
      cgroupPath,
      ...changes,
    };
    writeFileSync(join(runDir, "config.json"), JSON.stringify(ociConfig(cgroupPath, bundle)));
    return { id, runDir, stateDir, logPath, launch };
  }

  /** What containers of this rig have left on the host. Only this rig's: other tests may run beside it. */
  async leftOver(settleMs = 10_000): Promise<string[]> {
    const deadline = performance.now() + settleMs;
    for (;;) {
      const found = [...this.#mounts(), ...this.#cgroups(), ...this.#processes(), ...this.#files()];
      if (found.length === 0 || performance.now() > deadline) return found;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  #mounts(): string[] {
    const lines = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
    const own = this.#mounted ? ` ${this.execRoot} ` : "\0";
    return lines.filter((line) => line.includes(this.root) && !line.includes(own));
  }

  #cgroups(): string[] {
    return cgroupMounts().flatMap((mount) => {
      const parent = join(mount, this.cgroupParent);
      if (!existsSync(parent)) return [];
      return readdirSync(parent, { withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .map((entry) => join(parent, entry.name));
    });
  }

  /** Shims, and whatever else sits in this rig's cgroups; the launcher is meant to be there. */
  #processes(): string[] {
    return readdirSync("/proc")
      .filter((pid) => /^\d+$/.test(pid))
      .filter((pid) => {
        try {
          if (readFileSync(`/proc/${pid}/comm`, "utf8") === "skiff-launcher\n") return false;
          const cgroup = readFileSync(`/proc/${pid}/cgroup`, "utf8");
          return cgroup.includes(this.launcherCgroup) || cgroup.includes(this.cgroupParent);
        } catch {
          return false;
        }
      })
      .map((pid) => `process ${pid}`);
  }

  #files(): string[] {
    const containers = join(this.execRoot, "containers");
    return readdirSync(containers).flatMap((id) =>
      readdirSync(join(containers, id))
        .filter((name) => name !== "config.json")
        .map((name) => join(containers, id, name)),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.host[Symbol.asyncDispose]();
    if (this.#mounted) spawnSync("umount", [this.execRoot]);
    rmSync(this.root, { recursive: true, force: true });
    // The parents of the containers' cgroups: not empty only when a test left something, which the leak check tells.
    for (const mount of cgroupMounts()) {
      spawnSync("rmdir", [join(mount, this.cgroupParent)], { stdio: "ignore" });
    }
  }
}

export function cgroupMounts(): string[] {
  return readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .filter((line) => / cgroup2? /.test(line))
    .map((line) => line.split(" ")[1] ?? "");
}

/** The cgroups of this container that exist. */
export function cgroupsOf(container: TestContainer): string[] {
  return cgroupMounts()
    .map((mount) => join(mount, container.launch.cgroupPath))
    .filter((path) => existsSync(path));
}

function makeLayer(layer: string): void {
  for (const path of ["bin", "etc", "proc", "dev", "sys", "tmp", "root"]) {
    mkdirSync(join(layer, path), { recursive: true });
  }
  chmodSync(join(layer, "tmp"), 0o1777);
  copyFileSync("/bin/busybox", join(layer, "bin/busybox"));
  const applets = spawnSync("/bin/busybox", ["--list"], { encoding: "utf8" }).stdout.split("\n");
  for (const applet of applets) {
    if (applet !== "" && applet !== "busybox") symlinkSync("busybox", join(layer, "bin", applet));
  }
  writeFileSync(join(layer, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
}

export function execLaunch(args: readonly string[], changes: Partial<ExecLaunch> = {}): ExecLaunch {
  return {
    execId: newExecId(),
    args,
    env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
    cwd: "/",
    uid: 0,
    gid: 0,
    additionalGids: [],
    capabilities: {
      bounding: dockerCapabilityMask,
      effective: dockerCapabilityMask,
      permitted: dockerCapabilityMask,
      inheritable: 0n,
      ambient: 0n,
    },
    noNewPrivileges: false,
    terminal: false,
    openStdin: false,
    ...changes,
  };
}

/** Everything a stream gives until its end. */
export async function readAll(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** Docker's 8-byte frames, taken apart. */
export function demultiplex(bytes: Buffer): { stdout: string; stderr: string } {
  const out = { stdout: "", stderr: "" };
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at + 4);
    const text = bytes.subarray(at + 8, at + 8 + length).toString("latin1");
    if (bytes[at] === 2) out.stderr += text;
    else out.stdout += text;
    at += 8 + length;
  }
  return out;
}

export const allStreams = { stdin: false, stdout: true, stderr: true } as const;
export const withStdin = { stdin: true, stdout: true, stderr: true } as const;

/** Attaches, starts, and gives all output with the exit. */
export async function runToEnd(
  host: ShimHost,
  container: TestContainer,
  input?: string,
): Promise<{ shim: Shim; output: Buffer; exitCode: number }> {
  const shim = await host.launch(container.launch);
  const stream: StdioStream = await shim.attach(input === undefined ? allStreams : withStdin);
  const output = readAll(stream);
  await shim.start();
  if (input !== undefined) stream.end(input);
  const exit = await shim.exited;
  return { shim, output: await output, exitCode: exit.exitCode };
}

/** Waits until a condition holds; fails after `timeoutMs`. */
export async function until(condition: () => boolean, what: string, timeoutMs = 20_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
