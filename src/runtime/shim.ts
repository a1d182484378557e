/**
 * The shim as the daemon sees it: one small native process per container that owns the root filesystem's mount, the
 * terminal or pipes, the log file and the exit record, and that outlives the daemon.
 * Wire protocol: docs/internals/shim-protocol.md.
 *
 * 1. launch → (attach)* → start → exited, in this order; `exited` resolves exactly once, also when the shim dies.
 * 2. Output is written to the log before an attached client sees it; a client that does not read never blocks the
 *    container: its own connection drops output with a marker after a bounded stall.
 * 3. The exit record is durable before `exited` resolves.
 * 4. Mounts, sockets and cgroups of a container go with its shim; nothing shows in the host's mount table.
 */
import type { Duplex } from "node:stream";
import type { ContainerId, ExecId } from "#base/ids.ts";

export interface PortReservation {
  readonly protocol: "tcp" | "udp";
  readonly address: string;
  readonly port: number;
}

export interface ShimLogConfig {
  /** `json-file`, or `none`: nothing is written. */
  readonly driver: "json-file" | "none";
  readonly path: string;
  /** Rotation as Docker's max-size and max-file; 0: never. */
  readonly maxBytes: number;
  readonly maxFiles: number;
  /** The `attrs` member of each line, ready as JSON text, or "". */
  readonly attrsJson: string;
}

export interface ShimLaunch {
  readonly id: ContainerId;
  /** `<exec-root>/containers/<id>`, made by the caller, mode 0700: bundle (config.json), sockets, pid files. */
  readonly runDir: string;
  /** `<data-root>/containers/<id>`: log, exit record. */
  readonly stateDir: string;
  /** Lower directories, top first. Empty: the upper directory is bind-mounted alone. */
  readonly lowerDirs: readonly string[];
  readonly upperDir: string;
  readonly workDir: string;
  /** Overlay `volatile`: only for containers whose upper layer is thrown away (`--rm`). */
  readonly volatile: boolean;
  /** Absolute path and kind of the OCI runtime. crun needs `/sys/fs/cgroup/unified` unmounted on hybrid hosts. */
  readonly runtime: {
    readonly path: string;
    readonly kind: "crun" | "runc";
    readonly root: string;
    readonly args: readonly string[];
  };
  readonly terminal: boolean;
  /** Keep stdin open; false: the process reads /dev/null. */
  readonly openStdin: boolean;
  /** Docker's StdinOnce: when the first attached client ends its input, stdin closes. */
  readonly stdinOnce: boolean;
  readonly log: ShimLogConfig;
  /** Held bound and listening for the container's life, so that nobody else gets the port. */
  readonly ports: readonly PortReservation[];
  /** cgroup paths below each hierarchy's mount, as in the spec (`cgroupsPath`): removed by the shim after exit. */
  readonly cgroupPath: string;
  /** systemd makes the cgroups, the slices above them, too. */
  readonly systemdCgroup?: boolean;
  readonly oomScoreAdj?: number;
  /** Set for a shim that only mounts the files of a container which does not run: it is never started. */
  readonly filesOnly?: {
    /** Mounted in this order; missing targets are made. */
    readonly binds: readonly {
      readonly source: string;
      readonly target: string;
      readonly readOnly: boolean;
      readonly recursive: boolean;
    }[];
    readonly readonlyRoot: boolean;
  };
}

export interface ExitRecord {
  readonly exitCode: number;
  /** RFC 3339 with nanoseconds. */
  readonly finishedAt: string;
  readonly startedAt: string;
  readonly oomKilled: boolean;
  /** Set when there is no real exit code: the shim itself was killed, or the machine went down. */
  readonly lost?: string;
  /** Log lines dropped because the disk was full. */
  readonly droppedLogLines?: number;
}

export interface Started {
  readonly pid: number;
  readonly startedAt: string;
}

export interface AttachOptions {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
}

/**
 * One attached client. Readable side: raw bytes with a terminal, Docker's 8-byte frames without (the shim frames, the
 * daemon passes through). Writable side: stdin; ending it closes the container's stdin (pipe) and nothing else.
 */
export type StdioStream = Duplex;

export interface ExecLaunch {
  readonly execId: ExecId;
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly cwd: string;
  readonly uid: number;
  readonly gid: number;
  readonly additionalGids: readonly number[];
  /** 64-bit capability masks. */
  readonly capabilities: {
    readonly bounding: bigint;
    readonly effective: bigint;
    readonly permitted: bigint;
    readonly inheritable: bigint;
    readonly ambient: bigint;
  };
  readonly noNewPrivileges: boolean;
  /** File with the raw `struct sock_filter` array, or undefined for unconfined. */
  readonly seccompBpfPath?: string;
  readonly apparmorProfile?: string;
  readonly terminal: boolean;
  readonly openStdin: boolean;
  readonly terminalSize?: { readonly rows: number; readonly columns: number };
}

export interface ExecProcess {
  readonly pid: number;
  /** Undefined when the exec was started detached. Frames as for attach. */
  readonly stdio: StdioStream | undefined;
  readonly exited: Promise<{ readonly exitCode: number }>;
  resize(rows: number, columns: number): Promise<void>;
}

export interface Shim {
  readonly id: ContainerId;
  /** pid of the shim: the daemon reaches the root filesystem through `/proc/<pid>/root<rootfsPath>`. */
  readonly shimPid: number;
  /** Mount point of the root filesystem inside the shim's mount namespace. */
  readonly rootfsPath: string;
  /** Of the container's first process; 0 before start. */
  readonly pid: number;
  readonly exited: Promise<ExitRecord>;
  attach(options: AttachOptions): Promise<StdioStream>;
  /**
   * Runs the OCI runtime on `<runDir>/config.json`. Rejects with `RuntimeStartError` carrying the runtime's own words
   * when the process could not start; the shim then ends and leaves nothing behind.
   */
  start(): Promise<Started>;
  signal(signal: number): Promise<void>;
  resize(rows: number, columns: number): Promise<void>;
  /** Throws `RuntimeStartError` (errno text and exit code 126 or 127) when the program cannot be executed. */
  exec(launch: ExecLaunch, options: { attach: AttachOptions | undefined }): Promise<ExecProcess>;
  /** Ends a shim whose container was never started. */
  abandon(): Promise<void>;
  /** Closes the daemon's connections and leaves the container running (graceful stop of the daemon). */
  detach(): void;
}

export interface ShimHost extends AsyncDisposable {
  /**
   * A start or an exec is likely within the next milliseconds (its create request is being worked on): lets the kernel
   * do what the first process of it would have to wait for. Cheap, without effect, never fails.
   */
  announce?(): void;
  /** Starts the launcher when it is not there, forks a shim, mounts the root filesystem, reserves the ports. */
  launch(launch: ShimLaunch, options?: { signal?: AbortSignal }): Promise<Shim>;
  /**
   * After a restart of the daemon: the living shim of a container, or the exit record it left, or undefined when there
   * is neither (then the container's processes, if any, have been killed before this returns).
   */
  recover(
    id: ContainerId,
    runDir: string,
    stateDir: string,
  ): Promise<{ shim: Shim } | { exit: ExitRecord } | undefined>;
}
