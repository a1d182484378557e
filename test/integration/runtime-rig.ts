import { spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { newContainerId, newExecId } from "#base/ids.ts";
import { silentLog } from "#base/log.ts";
import { createOciRuntime, type OciRuntimeOptions } from "#runtime/oci-runtime.ts";
import type { ExecRequest, Runtime, Sandbox, SandboxRequest } from "#runtime/runtime.ts";
import type { ExitRecord, ShimHost, StdioStream } from "#runtime/shim.ts";
import { createShimHost } from "#runtime/shim-host.ts";
import { killCgroup, readCgroupLayout, readPids, removeCgroupParent } from "#sys/cgroup.ts";
import { objectsLeft } from "../peers/leaks.ts";

/** A runtime on temporary roots with one image of busybox and C probes: what the runtime's and the profile's tests use. */
const nativeBinary = join(import.meta.dirname, "../../native/build/skiff-native");
const probeSource = join(import.meta.dirname, "security-probe.c");
const privately = { kind: "private" } as const;

export interface Finished {
  readonly exit: ExitRecord;
  readonly stdout: string;
  readonly stderr: string;
}

export class RuntimeRig implements AsyncDisposable {
  readonly root = mkdtempSync(join(tmpdir(), "skiff-runtime-"));
  readonly execRoot = join(this.root, "run");
  /** The image's only layer; tests may add to it before they run. */
  readonly layer = join(this.root, "layer");
  readonly #name = `skiff-test-runtime-${process.pid}`;
  host!: ShimHost;
  runtime!: Runtime;

  static async start(options: Partial<OciRuntimeOptions> = {}): Promise<RuntimeRig> {
    const rig = new RuntimeRig();
    makeLayer(rig.layer);
    await rig.connect(options);
    return rig;
  }

  /** As a daemon does when it starts. */
  async connect(options: Partial<OciRuntimeOptions> = {}): Promise<void> {
    mkdirSync(join(this.execRoot, "containers"), { recursive: true, mode: 0o711 });
    this.host = await createShimHost({
      binaryPath: nativeBinary,
      execRoot: this.execRoot,
      launcherCgroup: `/${this.#name}-shims`,
      log: silentLog,
    });
    this.runtime = await createOciRuntime({
      shimHost: this.host,
      execRoot: this.execRoot,
      cgroupParent: `/${this.#name}`,
      runtimes: [],
      defaultUlimits: [],
      noNewPrivileges: false,
      log: silentLog,
      nativeBinary,
      scaffoldParent: this.root,
      ...options,
    });
  }

  request(changes: Partial<SandboxRequest> = {}): SandboxRequest {
    const id = newContainerId();
    const runDir = join(this.execRoot, "containers", id);
    const stateDir = join(this.root, "state", id);
    const upperDir = join(stateDir, "upper");
    for (const path of [runDir, stateDir, join(stateDir, "work")]) {
      mkdirSync(path, { recursive: true, mode: 0o700 });
    }
    mkdirSync(upperDir);
    return {
      id,
      runDir,
      stateDir,
      lowerDirs: [this.layer],
      upperDir,
      workDir: join(stateDir, "work"),
      volatile: false,
      args: ["true"],
      env: [],
      workingDir: "",
      user: "",
      groupAdd: [],
      hostname: "tester",
      domainname: "",
      terminal: false,
      openStdin: false,
      stdinOnce: false,
      readonlyRootfs: false,
      mounts: [],
      shmSizeBytes: 64 * 1024 * 1024,
      privileged: false,
      capAdd: [],
      capDrop: [],
      securityOpt: [],
      devices: [],
      deviceCgroupRules: [],
      sysctls: new Map(),
      ulimits: [],
      resources: {},
      oomScoreAdj: 0,
      init: false,
      network: privately,
      pidNamespace: privately,
      ipcNamespace: privately,
      utsNamespace: privately,
      cgroupNamespace: { kind: "host" },
      ports: [],
      log: { driver: "json-file", path: join(stateDir, "json.log"), maxBytes: 0, maxFiles: 1, attrsJson: "" },
      ...changes,
    };
  }

  /** Prepares, runs to the end and gives what was written. */
  async run(args: readonly string[], changes: Partial<SandboxRequest> = {}): Promise<Finished> {
    const request = this.request({ ...changes, args });
    const sandbox = await this.runtime.prepare(request);
    await sandbox.start();
    const exit = await sandbox.exited;
    return { exit, ...readOutput(request) };
  }

  /** A container that sleeps until it is stopped; for execs. */
  async sleeper(
    changes: Partial<SandboxRequest> = {},
  ): Promise<{ sandbox: Sandbox; request: SandboxRequest }> {
    const request = this.request({ args: ["sleep", "600"], ...changes });
    const sandbox = await this.runtime.prepare(request);
    await sandbox.start();
    return { sandbox, request };
  }

  /** Kills what a failed test left running, too, and waits for the shims to take their groups away. */
  async [Symbol.asyncDispose](): Promise<void> {
    const layout = readCgroupLayout();
    await killCgroup(layout, `/${this.#name}`);
    await this.host[Symbol.asyncDispose]();
    const deadline = performance.now() + 5000;
    while (readPids(layout, `/${this.#name}-shims`).length > 0 && performance.now() < deadline)
      await sleep(5);
    await this.runtime[Symbol.asyncDispose]();
    removeCgroupParent(layout, `/${this.#name}-shims`);
    const left = await objectsLeft({
      home: this.root,
      dataRoot: this.root,
      cgroupParent: `/${this.#name}`,
      children: [],
    });
    rmSync(this.root, { recursive: true, force: true });
    if (left.length > 0) throw new Error(`left over after the runtime:\n${left.join("\n")}`);
  }
}

export async function stop(sandbox: Sandbox): Promise<ExitRecord> {
  await sandbox.signal(9);
  return sandbox.exited;
}

export function execRequest(args: readonly string[], changes: Partial<ExecRequest> = {}): ExecRequest {
  return {
    execId: newExecId(),
    args,
    env: [],
    workingDir: "",
    user: "",
    privileged: false,
    terminal: false,
    openStdin: false,
    attach: { stdin: false, stdout: true, stderr: true },
    ...changes,
  };
}

export async function exec(
  sandbox: Sandbox,
  args: readonly string[],
  changes: Partial<ExecRequest> = {},
): Promise<{ exitCode: number; stdout: string; stderr: string }> {
  const process = await sandbox.exec(execRequest(args, changes));
  const output = await demultiplex(process.stdio!);
  return { exitCode: (await process.exited).exitCode, ...output };
}

async function demultiplex(stdio: StdioStream): Promise<{ stdout: string; stderr: string }> {
  const chunks: Buffer[] = [];
  for await (const chunk of stdio) chunks.push(chunk as Buffer);
  const all = Buffer.concat(chunks);
  const output = { stdout: "", stderr: "" };
  for (let at = 0; at + 8 <= all.length; ) {
    const length = all.readUInt32BE(at + 4);
    output[all[at] === 2 ? "stderr" : "stdout"] += all.toString("utf8", at + 8, at + 8 + length);
    at += 8 + length;
  }
  return output;
}

function readOutput(request: SandboxRequest): { stdout: string; stderr: string } {
  const output = { stdout: "", stderr: "" };
  for (const line of readFileSync(request.log.path, "utf8").split("\n")) {
    if (line === "") continue;
    const entry = JSON.parse(line) as { log: string; stream: "stdout" | "stderr" };
    output[entry.stream] += entry.log;
  }
  return output;
}

function makeLayer(layer: string): void {
  for (const path of ["bin", "etc", "tmp", "root"]) mkdirSync(join(layer, path), { recursive: true });
  chmodSync(join(layer, "tmp"), 0o1777);
  copyFileSync("/bin/busybox", join(layer, "bin/busybox"));
  const applets = spawnSync("/bin/busybox", ["--list"], { encoding: "utf8" }).stdout;
  for (const name of applets.split("\n").filter((line) => line !== "" && line !== "busybox")) {
    symlinkSync("busybox", join(layer, "bin", name));
  }
  writeFileSync(
    join(layer, "etc/passwd"),
    "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
  );
  writeFileSync(join(layer, "etc/group"), "root:x:0:\nwheel:x:10:root,app\naudio:x:29:app\napp:x:1000:\n");
  const built = spawnSync("musl-gcc", ["-static", "-Os", "-s", "-o", join(layer, "bin/probe"), probeSource], {
    encoding: "utf8",
  });
  if (built.status !== 0) throw new Error(`musl-gcc: ${built.stderr}`);
}
