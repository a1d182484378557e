import type { ContainerId, ExecId } from "#base/ids.ts";
import type { ExecProcess } from "#runtime/shim.ts";

/** One exec: asked for, then running, then ended. Execs live in memory only, as Docker's. */
export interface Exec {
  readonly id: ExecId;
  readonly containerId: ContainerId;
  readonly command: readonly string[];
  readonly env: readonly string[];
  readonly workingDir: string;
  readonly user: string;
  readonly privileged: boolean;
  readonly terminal: boolean;
  readonly openStdin: boolean;
  readonly openStdout: boolean;
  readonly openStderr: boolean;
  readonly detachKeys: string;
  size: { readonly rows: number; readonly columns: number } | undefined;
  phase: "created" | "starting" | "running" | "ended";
  process: ExecProcess | undefined;
  exitCode: number | null;
  /** Resolves when the process runs or could not be started. */
  readonly started: Promise<void>;
  readonly markStarted: () => void;
}
