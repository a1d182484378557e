/**
 * The runtime: from a container's description to an isolated set of processes, whatever OCI runtime does it.
 *
 * Vocabulary: a *sandbox* is a container's root filesystem, mounted and ready, with its (one) first process not yet
 * started, running or exited.
 *
 * 1. `prepare` has no effect on the host outside the shim's own mount namespace, its cgroups and its run directory.
 * 2. Mount targets, WORKDIR and the passwd files are resolved beneath the root filesystem before any runtime sees them;
 *    a target below a symbolic link that leaves the root, or `/dev`, `/proc`, `/sys` being links, is refused.
 * 3. What the profile promises (capabilities, seccomp, masks, devices) holds for the first process and for every exec.
 */
import type { ContainerId, ExecId } from "#base/ids.ts";
import type {
  AttachOptions,
  ExecProcess,
  ExitRecord,
  PortReservation,
  ShimLogConfig,
  Started,
  StdioStream,
} from "./shim.ts";

export interface SandboxMount {
  readonly type: "bind" | "tmpfs";
  /** Absolute host path for a bind. */
  readonly source: string;
  /** Absolute path in the container. */
  readonly target: string;
  readonly readOnly: boolean;
  readonly propagation: "rprivate" | "private" | "rshared" | "shared" | "rslave" | "slave";
  /** Bind only this mount, not those below it. */
  readonly nonRecursive: boolean;
  /** tmpfs options, as in `size=64m,mode=1770,noexec`. */
  readonly tmpfsOptions?: string;
}

export interface SandboxDevice {
  readonly hostPath: string;
  readonly containerPath: string;
  /** Letters of `rwm`. */
  readonly permissions: string;
}

export type NamespaceMode =
  | { readonly kind: "private" }
  | { readonly kind: "host" }
  /** `/proc/<pid>/fd/<n>` of a pooled namespace or `/proc/<pid>/ns/<type>` of another container. */
  | { readonly kind: "path"; readonly path: string };

export interface Resources {
  readonly memoryBytes?: number;
  /** Memory and swap together; -1 unlimited swap. */
  readonly memorySwapBytes?: number;
  readonly memoryReservationBytes?: number;
  readonly memorySwappiness?: number;
  readonly oomKillDisable?: boolean;
  readonly cpuShares?: number;
  readonly cpuQuotaUs?: number;
  readonly cpuPeriodUs?: number;
  readonly cpusetCpus?: string;
  readonly cpusetMems?: string;
  readonly pidsMax?: number;
  readonly blkioWeight?: number;
}

/** All that describes a container to the runtime: resolved values, image defaults already merged in by the engine. */
export interface SandboxRequest {
  readonly id: ContainerId;
  readonly runDir: string;
  readonly stateDir: string;
  /** Top first. */
  readonly lowerDirs: readonly string[];
  readonly upperDir: string;
  readonly workDir: string;
  readonly volatile: boolean;
  /** Name of a configured runtime (`runc`, `crun`, …), or undefined for the default. */
  readonly runtimeName?: string;

  readonly args: readonly string[];
  /** `KEY=value`, in order; HOME, PATH, HOSTNAME and TERM are added by the runtime side where they are missing. */
  readonly env: readonly string[];
  readonly workingDir: string;
  /** As the user wrote it: "", name, uid, name:group, uid:gid. */
  readonly user: string;
  readonly groupAdd: readonly string[];
  readonly hostname: string;
  readonly domainname: string;
  readonly terminal: boolean;
  readonly terminalSize?: { readonly rows: number; readonly columns: number };
  readonly openStdin: boolean;
  readonly stdinOnce: boolean;

  readonly readonlyRootfs: boolean;
  readonly mounts: readonly SandboxMount[];
  readonly shmSizeBytes: number;
  readonly privileged: boolean;
  readonly capAdd: readonly string[];
  readonly capDrop: readonly string[];
  /** As `--security-opt`: `seccomp=unconfined`, `seccomp=<json text>`, `apparmor=…`, `no-new-privileges`, `label=…`, `systempaths=unconfined`. */
  readonly securityOpt: readonly string[];
  /** undefined: the default lists. */
  readonly maskedPaths?: readonly string[];
  readonly readonlyPaths?: readonly string[];
  readonly devices: readonly SandboxDevice[];
  readonly deviceCgroupRules: readonly string[];
  readonly sysctls: ReadonlyMap<string, string>;
  readonly ulimits: readonly { readonly name: string; readonly soft: number; readonly hard: number }[];
  readonly resources: Resources;
  readonly cgroupParent?: string;
  readonly oomScoreAdj: number;
  readonly init: boolean;

  readonly network: NamespaceMode;
  readonly pidNamespace: NamespaceMode;
  readonly ipcNamespace: NamespaceMode;
  readonly utsNamespace: NamespaceMode;
  readonly cgroupNamespace: NamespaceMode;
  readonly ports: readonly PortReservation[];
  readonly log: ShimLogConfig;
}

export interface ExecRequest {
  readonly execId: ExecId;
  readonly args: readonly string[];
  readonly env: readonly string[];
  /** "" : the container's. */
  readonly workingDir: string;
  readonly user: string;
  readonly privileged: boolean;
  readonly terminal: boolean;
  readonly openStdin: boolean;
  readonly terminalSize?: { readonly rows: number; readonly columns: number };
  readonly attach: AttachOptions | undefined;
}

/**
 * A container's files as its processes see them, volumes, binds and tmpfs included. `path` leads to the root (a descriptor
 * that is held): resolve beneath it only. What is mounted there stays until this is disposed of, whatever the container does.
 */
export interface ContainerFiles extends AsyncDisposable {
  readonly path: string;
}

export interface ContainerProcess {
  readonly pid: number;
}

export interface Sandbox {
  readonly id: ContainerId;
  /** Of the first process; 0 before start. */
  readonly pid: number;
  readonly exited: Promise<ExitRecord>;
  /** Path through which the daemon (root) reaches the root filesystem with volumes once started; resolve beneath it only. */
  readonly rootPath: string;
  /** The files of a started container. Throws `conflict` when its first process has ended. */
  openFiles(): ContainerFiles;
  attach(options: AttachOptions): Promise<StdioStream>;
  start(): Promise<Started>;
  signal(signal: number): Promise<void>;
  /** SIGKILL to everything in the container's cgroup. */
  killAll(): Promise<void>;
  resize(rows: number, columns: number): Promise<void>;
  exec(request: ExecRequest): Promise<ExecProcess>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Pids in the container's cgroup, in the daemon's pid namespace. */
  processes(): Promise<ContainerProcess[]>;
  update(resources: Resources): Promise<void>;
  /** What the kernel's freezer says: the truth about `paused` after a restart of the daemon. */
  isPaused(): boolean;
  /** For a sandbox that was prepared and never started. */
  abandon(): Promise<void>;
  detach(): void;
}

export interface RuntimeInfo {
  readonly name: string;
  readonly path: string;
  readonly kind: "crun" | "runc";
  readonly version: string;
}

/** Disposing removes what the runtime made for all containers together (its parent cgroup, when nothing is left in it). */
export interface Runtime extends AsyncDisposable {
  /** Configured runtimes; the first is the default. */
  readonly runtimes: readonly RuntimeInfo[];
  readonly cgroupVersion: "1" | "2";
  readonly cgroupDriver: "cgroupfs" | "systemd";
  /** Directories that lie below every image's layers, top first; never changed. */
  readonly baseLayers: readonly string[];
  /** Lines for `docker info` about what this host cannot do. */
  readonly warnings: readonly string[];
  /** Warnings for one create request (`No swap limit support`, …); throws `invalid` for what can never work. */
  validate(
    request: Pick<
      SandboxRequest,
      | "capAdd"
      | "capDrop"
      | "securityOpt"
      | "sysctls"
      | "resources"
      | "ulimits"
      | "devices"
      | "runtimeName"
      | "privileged"
      | "network"
      | "ipcNamespace"
      | "cgroupParent"
    >,
  ): string[];
  prepare(request: SandboxRequest, options?: { signal?: AbortSignal }): Promise<Sandbox>;
  /**
   * Mounts the files of a container that does not run: root filesystem, volumes and binds, in a mount namespace of their
   * own. The run directory is the caller's to make and remove. Nothing may be prepared for the container meanwhile.
   */
  mountFiles(request: SandboxRequest): Promise<ContainerFiles>;
  /** The uid and gid that a container's configured user has in its files. Throws in Docker's words. */
  userIn(files: ContainerFiles, user: string): { readonly uid: number; readonly gid: number };
  /** An exec or start will follow soon: the kernel's waits that it meets may begin now (`ShimHost.announce`). Never waits. */
  announce(): void;
  /**
   * Other OCI runtimes from now on (`--add-runtime`, `--default-runtime`); containers that run keep theirs. Throws
   * `invalid` and changes nothing when one does not work.
   */
  useRuntimes(
    configured: readonly {
      readonly name: string;
      readonly path: string;
      readonly args?: readonly string[];
    }[],
    defaultRuntime: string | undefined,
  ): Promise<void>;
  /** Recovery: a living sandbox, the exit record of a dead one, or undefined. `request` as it was prepared with. */
  recover(request: SandboxRequest): Promise<{ sandbox: Sandbox } | { exit: ExitRecord } | undefined>;
}

/**
 * A process that could not be started. `message` is Docker's wording
 * (`failed to create task for container: … exec: "x": executable file not found in $PATH: unknown`);
 * `exitCode` is 127 not found, 126 not executable, 128 else: what the container's State.ExitCode becomes.
 */
export interface RuntimeStartFailure {
  readonly exitCode: 126 | 127 | 128;
}
