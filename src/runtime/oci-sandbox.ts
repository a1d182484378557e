import { posix } from "node:path";
import { EngineError } from "#base/errors.ts";
import type { ContainerId } from "#base/ids.ts";
import { openRoot } from "#sys/beneath.ts";
import { type CgroupLayout, freezeCgroup, isFrozen, killCgroup, readPids, thawCgroup } from "#sys/cgroup.ts";
import { closeFd } from "#sys/files.ts";
import { type Capability, capabilityMask } from "./capabilities.ts";
import { openProcessFiles } from "./container-files.ts";
import { containerEnv, mergeEnv } from "./env.ts";
import { applyResources, type ResourceSupport } from "./resources.ts";
import type {
  ContainerFiles,
  ContainerProcess,
  ExecRequest,
  Resources,
  Sandbox,
  SandboxRequest,
} from "./runtime.ts";
import type { SecurityProfile } from "./security-profile.ts";
import type {
  AttachOptions,
  ExecLaunch,
  ExecProcess,
  ExitRecord,
  Shim,
  Started,
  StdioStream,
} from "./shim.ts";
import { setUnitProperties, unitProperties } from "./systemd-properties.ts";
import { resolveUser, type UserRequest } from "./user.ts";

/** What a sandbox needs of its runtime. */
export interface SandboxContext {
  readonly layout: CgroupLayout;
  readonly support: ResourceSupport;
  /** Capabilities that the daemon has: what a privileged exec gets. */
  readonly available: readonly Capability[];
  readonly profile: SecurityProfile;
  readonly cgroupPath: string;
  readonly workingDir: string;
  /** The container's compiled filter for execs, or undefined for unconfined. */
  seccompPath(): Promise<string | undefined>;
}

/** Where the daemon finds the root filesystem of a shim, without what the runtime mounts in it. */
export function shimRootPath(shim: Shim): string {
  return `/proc/${shim.shimPid}/root${shim.rootfsPath}`;
}

/** Resolves a user in a shim's root filesystem. */
export function resolveShimUser(shim: Shim, request: UserRequest): ReturnType<typeof resolveUser> {
  const rootFd = openRoot(shimRootPath(shim));
  try {
    return resolveUser(rootFd, request);
  } finally {
    closeFd(rootFd);
  }
}

export class OciSandbox implements Sandbox {
  readonly #shim: Shim;
  readonly #request: SandboxRequest;
  readonly #context: SandboxContext;

  constructor(shim: Shim, request: SandboxRequest, context: SandboxContext) {
    this.#shim = shim;
    this.#request = request;
    this.#context = context;
  }

  get id(): ContainerId {
    return this.#shim.id;
  }

  get pid(): number {
    return this.#shim.pid;
  }

  get exited(): Promise<ExitRecord> {
    return this.#shim.exited;
  }

  get rootPath(): string {
    return this.#shim.pid > 0 ? `/proc/${this.#shim.pid}/root` : shimRootPath(this.#shim);
  }

  openFiles(): ContainerFiles {
    return openProcessFiles(this.pid, () =>
      readPids(this.#context.layout, this.#context.cgroupPath).includes(this.pid),
    );
  }

  attach(options: AttachOptions): Promise<StdioStream> {
    return this.#shim.attach(options);
  }

  start(): Promise<Started> {
    return this.#shim.start();
  }

  signal(signal: number): Promise<void> {
    return this.#shim.signal(signal);
  }

  resize(rows: number, columns: number): Promise<void> {
    return this.#shim.resize(rows, columns);
  }

  async exec(request: ExecRequest): Promise<ExecProcess> {
    return this.#shim.exec(await this.#execLaunch(request), { attach: request.attach });
  }

  async #execLaunch(request: ExecRequest): Promise<ExecLaunch> {
    const { profile, available } = this.#context;
    const user = resolveShimUser(this.#shim, {
      user: request.user === "" ? this.#request.user : request.user,
      groupAdd: this.#request.groupAdd,
    });
    const granted = capabilityMask(request.privileged ? available : profile.capabilities);
    const effective = user.uid === 0 ? granted : 0n;
    const seccompBpfPath = await this.#context.seccompPath();
    return {
      execId: request.execId,
      args: request.args,
      env: containerEnv({
        env: mergeEnv(this.#request.env, request.env),
        hostname: this.#request.hostname,
        terminal: request.terminal,
        home: user.home,
      }),
      cwd: this.#execWorkingDir(request.workingDir),
      uid: user.uid,
      gid: user.gid,
      additionalGids: user.additionalGids,
      capabilities: { bounding: granted, effective, permitted: effective, inheritable: 0n, ambient: 0n },
      noNewPrivileges: profile.noNewPrivileges,
      ...(seccompBpfPath === undefined ? {} : { seccompBpfPath }),
      ...(profile.apparmor === undefined ? {} : { apparmorProfile: profile.apparmor }),
      terminal: request.terminal,
      openStdin: request.openStdin,
      ...(request.terminalSize === undefined ? {} : { terminalSize: request.terminalSize }),
    };
  }

  // The shim holds no descriptor of the host's when it changes directory, so that a link to one cannot be followed.
  #execWorkingDir(workingDir: string): string {
    if (workingDir === "") return this.#context.workingDir;
    if (!workingDir.startsWith("/")) {
      throw new EngineError("invalid", `Cwd must be an absolute path: ${workingDir}`, { code: "exec" });
    }
    return posix.normalize(workingDir);
  }

  killAll(): Promise<void> {
    return killCgroup(this.#context.layout, this.#context.cgroupPath);
  }

  pause(): Promise<void> {
    return freezeCgroup(this.#context.layout, this.#context.cgroupPath);
  }

  async resume(): Promise<void> {
    thawCgroup(this.#context.layout, this.#context.cgroupPath);
  }

  isPaused(): boolean {
    return isFrozen(this.#context.layout, this.#context.cgroupPath);
  }

  async processes(): Promise<ContainerProcess[]> {
    return readPids(this.#context.layout, this.#context.cgroupPath).map((pid) => ({ pid }));
  }

  async update(resources: Resources): Promise<void> {
    const { layout, cgroupPath, support } = this.#context;
    const writes = applyResources(layout, cgroupPath, resources, support);
    const unit = posix.basename(cgroupPath);
    if (layout.version === "2" && unit.endsWith(".scope"))
      await setUnitProperties(unit, unitProperties(writes));
  }

  abandon(): Promise<void> {
    return this.#shim.abandon();
  }

  detach(): void {
    this.#shim.detach();
  }
}
