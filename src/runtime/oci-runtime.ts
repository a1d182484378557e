import { copyFileSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { posix } from "node:path";
import { EngineError } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import { openRoot } from "#sys/beneath.ts";
import {
  type CgroupLayout,
  hasCgroup,
  makeCgroupParent,
  readCgroupLayout,
  removeCgroupParent,
} from "#sys/cgroup.ts";
import { closeFd } from "#sys/files.ts";
import { type HostInfo, readHostInfo } from "#sys/hostinfo.ts";
import type { OciDevice, OciDeviceRule, OciRlimit } from "#wire/oci-runtime.ts";
import { loadApparmorProfile } from "./apparmor.ts";
import { checkBindPropagation } from "./bind-propagation.ts";
import { capabilitiesOf } from "./capabilities.ts";
import {
  type CgroupDriver,
  type CgroupDriverName,
  type CgroupPlace,
  createCgroupDriver,
  defaultCgroupDriver,
} from "./cgroup-driver.ts";
import { shimFiles } from "./container-files.ts";
import { type DetectedRuntime, detectRuntimes, type RuntimeConfig } from "./detect.ts";
import { customDevices, hostDevices, parseDeviceRule } from "./devices.ts";
import { OciSandbox, type SandboxContext, shimRootPath } from "./oci-sandbox.ts";
import { preflight } from "./preflight.ts";
import { checkResources, probeResourceSupport, type ResourceSupport } from "./resources.ts";
import type { ContainerFiles, Runtime, Sandbox, SandboxMount, SandboxRequest } from "./runtime.ts";
import { makeScaffold } from "./scaffold.ts";
import { createSeccompCompiler, type SeccompCompiler } from "./seccomp.ts";
import { type SecurityProfile, SecurityProfiles } from "./security-profile.ts";
import type { ExitRecord, Shim, ShimHost, ShimLaunch } from "./shim.ts";
import { readRemains } from "./shim-remains.ts";
import { buildSpec, processOomScore, type SpecInput } from "./spec.ts";
import { planMounts } from "./spec-mounts.ts";
import { checkSysctls } from "./sysctls.ts";
import { ociRlimits, resolveUlimits, type Ulimit } from "./ulimits.ts";
import { resolveUser } from "./user.ts";

export interface OciRuntimeOptions {
  readonly shimHost: ShimHost;
  /** `/run/skiff`: a tmpfs. */
  readonly execRoot: string;
  /** `--exec-opt native.cgroupdriver`; undefined: the host's choice. */
  readonly cgroupDriver?: CgroupDriverName;
  /**
   * `--cgroup-parent`. With cgroupfs a path in each cgroup tree, as in `/skiff`; made here, removed on dispose when it is
   * empty. With systemd a slice's name.
   */
  readonly cgroupParent?: string;
  /** `--add-runtime`. */
  readonly runtimes: readonly RuntimeConfig[];
  readonly defaultRuntime?: string;
  readonly defaultUlimits: readonly Ulimit[];
  /** The daemon's `--no-new-privileges`. */
  readonly noNewPrivileges: boolean;
  readonly log: Log;
  /** `native/build/skiff-native`: copied for `--init`. */
  readonly nativeBinary: string;
  /**
   * A directory on the file system of the image layers, for the layer below all images (`makeScaffold`). Without it, mount
   * targets that an image lacks are made in the container's own layer.
   */
  readonly scaffoldParent?: string;
}

/** Mounts may be made read-only with all below them since Linux 5.12 (mount_setattr). */
const recursiveReadOnlyKernel = 5012;

interface Plan {
  readonly runtime: DetectedRuntime;
  readonly profile: SecurityProfile;
  readonly cgroup: CgroupPlace;
  readonly devices: readonly OciDevice[];
  readonly deviceRules: readonly OciDeviceRule[];
  readonly rlimits: readonly OciRlimit[];
}

/** What was learnt about the host when the daemon started. */
interface Findings {
  readonly host: HostInfo;
  readonly layout: CgroupLayout;
  readonly cgroups: CgroupDriver;
  readonly runtimes: readonly DetectedRuntime[];
  readonly apparmorLoaded: boolean;
}

class OciRuntime implements Runtime {
  runtimes: readonly DetectedRuntime[];
  readonly cgroupVersion: "1" | "2";
  readonly #cgroups: CgroupDriver;
  readonly warnings: readonly string[];
  readonly #options: OciRuntimeOptions;
  readonly #layout: CgroupLayout;
  readonly #host: HostInfo;
  readonly #support: ResourceSupport;
  readonly #profiles: SecurityProfiles;
  readonly #seccomp: SeccompCompiler;
  readonly #initBinary: string;
  readonly #scaffold: string | undefined;

  constructor(options: OciRuntimeOptions, found: Findings) {
    const { layout, runtimes } = found;
    this.#options = options;
    this.runtimes = runtimes;
    this.#layout = layout;
    this.cgroupVersion = layout.version;
    this.#cgroups = found.cgroups;
    this.#host = found.host;
    this.#support = probeResourceSupport(layout, found.cgroups.parentPath);
    this.#profiles = new SecurityProfiles(this.#host, options.noNewPrivileges, found.apparmorLoaded);
    this.#seccomp = createSeccompCompiler(`${options.execRoot}/seccomp`);
    this.#initBinary = copyInit(options.nativeBinary, options.execRoot);
    const { scaffoldParent } = options;
    this.#scaffold = scaffoldParent === undefined ? undefined : makeScaffold(scaffoldParent);
    this.warnings = hostWarnings(this.#support, this.#host);
    this.#makeRuntimeRoots(this.runtimes);
  }

  #makeRuntimeRoots(runtimes: readonly DetectedRuntime[]): void {
    for (const runtime of runtimes) {
      mkdirSync(this.#runtimeRoot(runtime), { recursive: true, mode: 0o700 });
    }
  }

  get cgroupDriver(): CgroupDriverName {
    return this.#cgroups.name;
  }

  async useRuntimes(configured: readonly RuntimeConfig[], defaultRuntime: string | undefined): Promise<void> {
    const found = await detectRuntimes(configured, defaultRuntime, this.#options.log);
    this.#makeRuntimeRoots(found);
    this.runtimes = found;
  }

  /** Compiles the filter that nearly every container uses. */
  async warm(): Promise<void> {
    if (!this.#host.seccomp) return;
    const { capabilities } = this.#profiles.decide({
      privileged: false,
      capAdd: [],
      capDrop: [],
      securityOpt: [],
    });
    await this.#seccomp.compile(this.#profiles.defaultSeccomp(capabilities));
  }

  validate(request: Parameters<Runtime["validate"]>[0]): string[] {
    this.#runtimeOf(request.runtimeName);
    this.#cgroups.place("", request.cgroupParent || undefined);
    checkSysctls(request.sysctls, { network: request.network, ipc: request.ipcNamespace });
    resolveUlimits(this.#options.defaultUlimits, request.ulimits, this.#host);
    const profile = this.#profiles.decide(request);
    return [...profile.warnings, ...checkResources(request.resources, this.#support)];
  }

  announce(): void {
    this.#options.shimHost.announce?.();
  }

  get baseLayers(): readonly string[] {
    return this.#scaffold === undefined ? [] : [this.#scaffold];
  }

  async prepare(request: SandboxRequest, options: { signal?: AbortSignal } = {}): Promise<Sandbox> {
    const plan = this.#plan(request);
    const mounts = planMounts(request, {
      initBinary: this.#initBinary,
      recursiveReadOnly: this.#host.kernelVersion >= recursiveReadOnlyKernel,
    });
    const seccomp = await this.#seccompFor(plan);
    await checkBindPropagation(request.mounts);
    const shim = await this.#options.shimHost.launch(this.#launchOf(request, plan), options);
    try {
      const rootFd = openRoot(shimRootPath(shim));
      let workingDir: string;
      try {
        const user = resolveUser(rootFd, request);
        const checked = preflight(rootFd, mounts, request.workingDir);
        workingDir = checked.workingDir;
        const spec = buildSpec({
          request,
          ...plan,
          user,
          mounts: checked.mounts,
          workingDir,
          host: this.#host,
          support: this.#support,
          cgroupVersion: this.cgroupVersion,
          rootfsPath: shim.rootfsPath,
          cgroupsPath: plan.cgroup.specPath,
          annotations: this.#annotations(plan.runtime),
          seccomp,
        });
        writeFileSync(`${request.runDir}/config.json`, JSON.stringify(spec), { mode: 0o600 });
      } finally {
        closeFd(rootFd);
      }
      return new OciSandbox(shim, request, this.#context(plan.profile, plan.cgroup.path, workingDir));
    } catch (error) {
      await shim.abandon();
      throw error;
    }
  }

  async mountFiles(request: SandboxRequest): Promise<ContainerFiles> {
    const { runDir } = request;
    const shim = await this.#options.shimHost.launch({
      ...this.#shimPlace(request),
      // Nothing is started: no pipes, no log, no sight of cgroups is needed.
      runtime: { path: "/nonexistent", kind: "runc", root: runDir, args: [] },
      terminal: true,
      openStdin: false,
      stdinOnce: false,
      log: { driver: "none", path: "", maxBytes: 0, maxFiles: 0, attrsJson: "" },
      ports: [],
      cgroupPath: this.#cgroupOf(request).path,
      systemdCgroup: this.cgroupDriver === "systemd",
      filesOnly: {
        binds: request.mounts.filter(({ type }) => type === "bind").map(viewBind),
        readonlyRoot: request.readonlyRootfs,
      },
    });
    return shimFiles(shim);
  }

  userIn(files: ContainerFiles, user: string): { uid: number; gid: number } {
    const rootFd = openRoot(files.path);
    try {
      const { uid, gid } = resolveUser(rootFd, { user, groupAdd: [] });
      return { uid, gid };
    } finally {
      closeFd(rootFd);
    }
  }

  async recover(request: SandboxRequest): Promise<{ sandbox: Sandbox } | { exit: ExitRecord } | undefined> {
    const found = await this.#options.shimHost.recover(request.id, request.runDir, request.stateDir);
    if (found === undefined || "exit" in found) return found;
    // Where it was put then: the driver may be another one by now.
    const remains = await readRemains(request.runDir);
    return { sandbox: this.#recovered(found.shim, request, remains?.cgroupPath) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.cgroupDriver === "cgroupfs") removeCgroupParent(this.#layout, this.#cgroups.parentPath);
  }

  // Devices and limits are the running container's by now: only what an exec needs is decided again.
  #recovered(shim: Shim, request: SandboxRequest, cgroupPath: string | undefined): Sandbox {
    const profile = this.#profiles.decide(request);
    const path = cgroupPath ?? this.#cgroupOf(request).path;
    return new OciSandbox(shim, request, this.#context(profile, path, request.workingDir || "/"));
  }

  #runtimeOf(name: string | undefined): DetectedRuntime {
    if (name === undefined || name === "") return this.runtimes[0]!;
    const found = this.runtimes.find((runtime) => runtime.name === name);
    if (found !== undefined) return found;
    throw new EngineError("invalid", `Unknown runtime specified ${name}`, { code: "runtime" });
  }

  #runtimeRoot(runtime: DetectedRuntime): string {
    return `${this.#options.execRoot}/runtime-${runtime.name.replaceAll("/", "_")}`;
  }

  #cgroupOf(request: SandboxRequest): CgroupPlace {
    return this.#cgroups.place(request.id, request.cgroupParent || undefined);
  }

  /** crun puts processes one level deeper on version 2, where neither execs nor limits of ours would look. */
  #annotations({ kind }: DetectedRuntime): Readonly<Record<string, string>> {
    return kind === "crun" && this.cgroupDriver === "systemd" ? { "run.oci.systemd.subgroup": "" } : {};
  }

  #plan(request: SandboxRequest): Plan {
    checkSysctls(request.sysctls, { network: request.network, ipc: request.ipcNamespace });
    checkResources(request.resources, this.#support);
    const custom = customDevices(request.devices);
    const cgroup = this.#cgroupOf(request);
    // Another daemon that shares the parent removes it when it ends. Slices are systemd's to make.
    const parent = posix.dirname(cgroup.path);
    if (this.cgroupDriver === "cgroupfs" && !hasCgroup(this.#layout, parent)) {
      makeCgroupParent(this.#layout, parent);
    }
    return {
      runtime: this.#runtimeOf(request.runtimeName),
      profile: this.#profiles.decide(request),
      cgroup,
      devices: request.privileged ? uniqueByPath([...hostDevices(), ...custom.devices]) : custom.devices,
      deviceRules: request.privileged
        ? []
        : [...custom.rules, ...request.deviceCgroupRules.map(parseDeviceRule)],
      rlimits: ociRlimits(resolveUlimits(this.#options.defaultUlimits, request.ulimits, this.#host)),
    };
  }

  async #seccompFor(plan: Plan): Promise<SpecInput["seccomp"]> {
    const { seccomp } = plan.profile;
    if (seccomp === undefined) return undefined;
    if (!plan.runtime.takesCompiledSeccomp) return { rules: seccomp };
    return { bpfBase64: (await this.#seccomp.compile(seccomp)).base64 };
  }

  #shimPlace(
    request: SandboxRequest,
  ): Pick<ShimLaunch, "id" | "runDir" | "stateDir" | "lowerDirs" | "upperDir" | "workDir" | "volatile"> {
    return {
      id: request.id,
      runDir: request.runDir,
      stateDir: request.stateDir,
      lowerDirs: this.#scaffold === undefined ? request.lowerDirs : [...request.lowerDirs, this.#scaffold],
      upperDir: request.upperDir,
      workDir: request.workDir,
      volatile: request.volatile,
    };
  }

  #launchOf(request: SandboxRequest, plan: Plan): Parameters<ShimHost["launch"]>[0] {
    const { runtime } = plan;
    return {
      ...this.#shimPlace(request),
      runtime: {
        path: runtime.path,
        kind: runtime.kind,
        root: this.#runtimeRoot(runtime),
        args: [...runtime.args, ...this.#cgroups.runtimeArguments],
      },
      terminal: request.terminal,
      openStdin: request.openStdin,
      stdinOnce: request.stdinOnce,
      log: request.log,
      ports: request.ports,
      cgroupPath: plan.cgroup.path,
      systemdCgroup: this.cgroupDriver === "systemd",
      oomScoreAdj: processOomScore(request, this.#host),
    };
  }

  #context(profile: SecurityProfile, cgroupPath: string, workingDir: string): SandboxContext {
    const { seccomp } = profile;
    return {
      layout: this.#layout,
      support: this.#support,
      available: capabilitiesOf(this.#host.capabilities),
      profile,
      cgroupPath,
      workingDir,
      seccompPath: async () =>
        seccomp === undefined ? undefined : (await this.#seccomp.compile(seccomp)).path,
    };
  }
}

function viewBind(mount: SandboxMount): NonNullable<ShimLaunch["filesOnly"]>["binds"][number] {
  const { source, target, readOnly, nonRecursive } = mount;
  return { source, target: posix.normalize(target), readOnly, recursive: !nonRecursive };
}

function uniqueByPath(devices: readonly OciDevice[]): OciDevice[] {
  return [...new Map(devices.map((device) => [device.path, device])).values()];
}

/** A copy of its own: the program that shims run from is never visible in a container. */
function copyInit(nativeBinary: string, execRoot: string): string {
  const path = `${execRoot}/docker-init`;
  const temporary = `${path}.${process.pid}`;
  copyFileSync(nativeBinary, temporary);
  renameSync(temporary, path);
  return path;
}

/** Docker's lines at the end of `docker info`. */
function hostWarnings(support: ResourceSupport, host: HostInfo): string[] {
  const lines: (readonly [boolean, string])[] = [
    [support.memory, "WARNING: No memory limit support"],
    [support.swap, "WARNING: No swap limit support"],
    [support.cpuShares, "WARNING: No cpu shares support"],
    [support.cpuQuota, "WARNING: No cpu cfs quota support"],
    [support.cpuset, "WARNING: No cpuset support"],
    [support.pids, "WARNING: No pids limit support"],
    [host.seccomp, "WARNING: No seccomp support"],
  ];
  return lines.filter(([supported]) => !supported).map(([, line]) => line);
}

/**
 * The Runtime on OCI runtimes and shims. Looks at the host once (runtimes' versions, cgroups, capabilities), makes the
 * parent cgroup and compiles the default filter; after this nothing is spawned on a request's path.
 * Throws `system` without a runtime or cgroups, `invalid` for a bad configuration.
 */
export async function createOciRuntime(options: OciRuntimeOptions): Promise<Runtime> {
  const host = readHostInfo();
  const layout = readCgroupLayout();
  mkdirSync(options.execRoot, { recursive: true, mode: 0o711 });
  const [runtimes, apparmorLoaded] = await Promise.all([
    detectRuntimes(options.runtimes, options.defaultRuntime, options.log),
    host.apparmor ? loadApparmorProfile(options.execRoot, options.log) : false,
  ]);
  const driver = options.cgroupDriver ?? defaultCgroupDriver(layout.version, options.cgroupParent);
  const cgroups = createCgroupDriver(driver, options.cgroupParent);
  if (driver === "cgroupfs") makeCgroupParent(layout, cgroups.parentPath);
  const runtime = new OciRuntime(options, { host, layout, cgroups, runtimes, apparmorLoaded });
  await runtime.warm();
  return runtime;
}
