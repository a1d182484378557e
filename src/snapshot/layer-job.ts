import {
  EngineError,
  type EngineErrorOptions,
  type ErrorKind,
  errorKinds,
  SyscallError,
} from "#base/errors.ts";
import type { ExtractJob, PathStatJob } from "./container-jobs.ts";
import type { PathStat } from "./container-path.ts";
import type { ContextJob, ContextOutcome } from "./context-job.ts";
import type { CopyDigestJob, DeriveJob, DeriveOutcome } from "./derive-job.ts";
import type { BundleMember, Change } from "./snapshotter.ts";

/** What the worker threads are asked to do. Everything in a job can be posted to a thread. */
export type LayerJob =
  | ApplyJob
  | RemoveJob
  | { readonly kind: "sync"; readonly directory: string }
  | { readonly kind: "usage"; readonly directory: string }
  | { readonly kind: "changes"; readonly upper: string; readonly below: readonly string[] }
  | BundleJob
  | PackJob
  | PackHelpJob
  | ContextJob
  | CopyDigestJob
  | DeriveJob
  | PathStatJob
  | ExtractJob
  | TarJob;

/** Jobs that leave a thread the context it has in memory: they may be of the same build. */
export function readsContext(job: LayerJob): job is CopyDigestJob | DeriveJob {
  return job.kind === "copy-digest" || job.kind === "derive";
}

/** A name in a directory, and all below it. */
interface RemoveJob {
  readonly kind: "remove";
  readonly directory: string;
  readonly name: string;
  /** A container may still change the tree (live-remove.ts). */
  readonly live?: true;
}

/** A finished layer as a tar, measured and perhaps compressed (pack-job.ts). */
export interface PackJob {
  readonly kind: "pack";
  /** A layer's directory, or an archive in any of the forms that are read. */
  readonly source: { readonly directory: string } | { readonly path: string };
  /** File to be made, gzip compressed; undefined: only the sums. */
  readonly output?: string;
  /** Memory through which other threads may help to compress (pack-blocks.ts). */
  readonly blocks?: SharedArrayBuffer;
}

/** Compresses what another thread packs, until that is done. */
export interface PackHelpJob {
  readonly kind: "pack-help";
  readonly blocks: SharedArrayBuffer;
}

/** An archive of images, taken apart (bundle-job.ts). */
export interface BundleJob {
  readonly kind: "bundle";
  /** A ring (byte-ring.ts) through which the archive comes. */
  readonly ring: SharedArrayBuffer;
  /** Empty and ours. */
  readonly directory: string;
}

export interface PackOutcome {
  readonly diffId: string;
  readonly diffSizeBytes: number;
  readonly blobDigest?: string;
  readonly blobSizeBytes?: number;
}

export interface ApplyJob {
  readonly kind: "apply";
  readonly path: string;
  /** Cells of a file that still grows (content-store.ts, `GrowingFile`). */
  readonly cells?: SharedArrayBuffer;
  /** Made by the job, removed by it on any failure. */
  readonly staging: string;
  /** Directories of the layers below, top first; undefined: apply on its own. */
  readonly below?: readonly string[];
  readonly expectedBlobDigest?: string;
  readonly expectedDiffId?: string;
}

/** A directory tree as a tar stream, in chunks (tree-tar.ts). */
export interface TarJob {
  readonly kind: "tar";
  readonly directory: string;
  /** Set for a writable layer: 0:0 devices and opaque directories become `.wh.` entries, by what these hold. */
  readonly below?: readonly string[];
  /** A finished layer: its marks become `.wh.` entries whatever lies below. */
  readonly layer?: true;
  /** Layers below the directory, top first: the archive is of what a mount of all would show. */
  readonly merge?: readonly string[];
  /** Path inside the directory to start at (resolved beneath it), and the name it gets in the archive. */
  readonly from?: string;
  readonly as?: string;
  /** The directory is a container's root: the kernel's file systems in it and its devices are left out. */
  readonly container?: true;
}

export type ApplyOutcome =
  | { readonly dependsOnBelow: true }
  | {
      readonly dependsOnBelow: false;
      readonly usedBelow: boolean;
      readonly sizeBytes: number;
      readonly blobDigest: string;
      readonly blobSizeBytes: number;
      readonly diffId: string;
    };

export interface JobResults {
  context: ContextOutcome;
  "copy-digest": string;
  derive: DeriveOutcome;
  apply: ApplyOutcome;
  remove: undefined;
  sync: undefined;
  usage: number;
  changes: readonly Change[];
  bundle: readonly BundleMember[];
  pack: PackOutcome;
  "pack-help": undefined;
  "path-stat": PathStat | undefined;
  extract: undefined;
  tar: undefined;
}

export interface JobMessage {
  readonly id: number;
  readonly job: LayerJob;
  readonly control: SharedArrayBuffer;
}

/** Cells of a job's control block (Int32). */
export const controlCells = { aborted: 0, credits: 1 } as const;

/** What a job calls now and then. */
export function abortCheck(control: Int32Array): () => void {
  return () => {
    if (Atomics.load(control, controlCells.aborted) !== 0)
      throw new EngineError("cancelled", "context canceled", { code: "aborted" });
  };
}

/** Chunks of a stream that may be on their way to a slow reader. */
export const streamCredits = 4;

export type JobReply =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly failure: Failure }
  | { readonly id: number; readonly progress: number }
  | { readonly id: number; readonly chunk: Uint8Array<ArrayBuffer> };

/** An error as it crosses threads: structured cloning would lose the class and its fields. */
export interface Failure {
  readonly kind: string;
  readonly code: string;
  readonly message: string;
  readonly stack?: string;
  readonly call?: string;
  readonly errno?: string;
  readonly path?: string;
}

export function toFailure(error: unknown): Failure {
  if (error instanceof SyscallError) {
    return {
      kind: error.kind,
      code: error.code,
      message: error.message,
      call: error.call,
      errno: error.errno,
      ...(error.path === undefined ? {} : { path: error.path }),
    };
  }
  if (error instanceof EngineError) return { kind: error.kind, code: error.code, message: error.message };
  const failure = error instanceof Error ? error : new Error(String(error));
  const code = "code" in failure && typeof failure.code === "string" ? failure.code : "worker";
  // Node's own file errors carry an errno: a full disk must read the same wherever it was met.
  if (/^E[A-Z0-9]+$/.test(code)) {
    const call = "syscall" in failure ? String(failure.syscall) : "file";
    return toFailure(new SyscallError(call, code));
  }
  return {
    kind: "system",
    code,
    message: failure.message,
    ...(failure.stack === undefined ? {} : { stack: failure.stack }),
  };
}

export function fromFailure(failure: Failure): EngineError {
  if (failure.call !== undefined && failure.errno !== undefined) {
    return new SyscallError(failure.call, failure.errno, failure.path);
  }
  const kind = errorKinds.find((known) => known === failure.kind) ?? ("system" satisfies ErrorKind);
  const options: EngineErrorOptions = { code: failure.code };
  return new EngineError(
    kind,
    failure.message,
    failure.stack === undefined ? options : { ...options, cause: failure.stack },
  );
}
