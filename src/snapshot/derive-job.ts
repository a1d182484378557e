import { createHash } from "node:crypto";
import { constants, fsyncSync, mkdirSync } from "node:fs";
import { basename, dirname } from "node:path";
import { ChunkSink } from "#archive/chunk-sink.ts";
import { TarReader } from "#archive/tar-read.ts";
import { type ByteString, bytesOfText } from "#base/byte-string.ts";
import { openBytesBeneath, openRoot } from "#sys/beneath.ts";
import { S_IFDIR, S_IFREG } from "#sys/file-status.ts";
import { closeFd } from "#sys/files.ts";
import { copyDigest } from "./copy-digest.ts";
import { writeCopy, writeDirectory } from "./copy-layer.ts";
import type { CopySpec } from "./copy-spec.ts";
import { LayerApplier } from "./layer-apply.ts";
import { LayerEntries } from "./layer-entries.ts";
import { LayerOutput } from "./layer-output.ts";
import { removeTreeAt } from "./remove-tree.ts";
import { writeSquashed } from "./squash-layer.ts";
import { StackTree } from "./stack-tree.ts";
import { TarInOrder } from "./tar-in-order.ts";
import { writeTreeTar } from "./tree-tar.ts";
import { walkTree } from "./tree-walk.ts";

/** Where the files of a new layer come from. */
export type DeriveSource =
  | { readonly kind: "copy"; readonly specs: readonly CopySpec[] }
  /** A directory that is to be there, with its owner as `--chown` has it. */
  | { readonly kind: "directory"; readonly path: string; readonly chown: string; readonly mtimeNs: string }
  /** Several layers as one; their directories, top first. */
  | { readonly kind: "squash"; readonly layers: readonly string[] }
  /** A container's writable layer. `omit`: mount targets that its start made, absolute. */
  | { readonly kind: "upper"; readonly directory: string; readonly omit: readonly string[] };

/** Makes a layer of local files in one go: it is applied while it is written, and its tar is never stored. */
export interface DeriveJob {
  readonly kind: "derive";
  readonly source: DeriveSource;
  /** Made by the job, removed by it on any failure. */
  readonly staging: string;
  /** Directories of the layers below, top first. */
  readonly below: readonly string[];
  /** Later times become this one (SOURCE_DATE_EPOCH). */
  readonly mtimeNsMax?: string;
}

export interface DeriveOutcome {
  readonly diffId: string;
  readonly sizeBytes: number;
  readonly tarBytes: number;
  /** The files are only right over these layers. */
  readonly usedBelow: boolean;
  readonly isEmpty: boolean;
  /** Files and directories are on the disk, all but the name of the staging directory. */
  readonly flushed: boolean;
}

export interface CopyDigestJob {
  readonly kind: "copy-digest";
  readonly spec: CopySpec;
}

export function runDerive(job: DeriveJob, checkAborted: () => void): DeriveOutcome {
  const parent = openRoot(dirname(job.staging));
  try {
    mkdirSync(job.staging, { mode: 0o755 });
    return derive(job, checkAborted);
  } catch (error) {
    removeTreeAt(parent, bytesOfText(basename(job.staging)));
    throw error;
  } finally {
    closeFd(parent);
  }
}

export function runCopyDigest(job: CopyDigestJob, checkAborted: () => void): string {
  return copyDigest(job.spec, checkAborted);
}

function derive(job: DeriveJob, checkAborted: () => void): DeriveOutcome {
  using resources = new DisposableStack();
  const rootFd = openRoot(job.staging);
  resources.defer(() => closeFd(rootFd));
  const below = resources.use(new StackTree(job.below));
  const applier = resources.use(new LayerApplier(rootFd, below.layers));
  const mtimeNsMax = job.mtimeNsMax === undefined ? undefined : BigInt(job.mtimeNsMax);
  const work: DeriveWork = { job, rootFd, below, applier, mtimeNsMax, checkAborted };
  const written = job.source.kind === "upper" ? fromUpper(work, job.source) : fromEntries(work, job.source);
  return { ...written, flushed: flushFew(rootFd) };
}

interface DeriveWork {
  readonly job: DeriveJob;
  readonly rootFd: number;
  readonly below: StackTree;
  readonly applier: LayerApplier;
  readonly mtimeNsMax: bigint | undefined;
  readonly checkAborted: () => void;
}

type Written = Omit<DeriveOutcome, "flushed">;

/** A writable layer's tar is what packing the layer again gives: hashed while it is applied. */
function fromUpper(
  { below, applier, mtimeNsMax, checkAborted }: DeriveWork,
  source: Extract<DeriveSource, { kind: "upper" }>,
): Written {
  const tar = new TarReader(applier);
  const sums = new TarSums(checkAborted);
  const upperFd = openRoot(source.directory);
  try {
    const options = {
      below: below.layers,
      ...(mtimeNsMax === undefined ? {} : { mtimeNsMax }),
      omit: new Set(source.omit.map((path) => bytesOfText(path.replace(/^\/+/, "")))),
    };
    const sink = sinkOf((chunk) => {
      sums.add(chunk);
      tar.push(chunk);
    });
    writeTreeTar(upperFd, sink, options);
  } finally {
    closeFd(upperFd);
  }
  tar.finish();
  const { sizeBytes, usedBelow } = applier.complete();
  // Two blocks of zeros: nothing was written.
  return { ...sums.result(), sizeBytes, usedBelow, isEmpty: sums.tarBytes <= 1024 };
}

/**
 * A layer of entries made here. They name every parent themselves. Its tar is hashed while it is made, or, where they come in
 * another order than the tar's, when it is whole.
 */
function fromEntries(
  { job, rootFd, below, applier, mtimeNsMax, checkAborted }: DeriveWork,
  source: Exclude<DeriveSource, { kind: "upper" }>,
): Written {
  const sums = new TarSums(checkAborted);
  const sink = sinkOf((chunk) => sums.add(chunk));
  const tar = new TarInOrder((chunk) => {
    if (chunk.length < chunkBytes / 8) return sink.write(chunk);
    sink.flush();
    sums.add(chunk);
  });
  const output = new LayerOutput(applier, tar, checkAborted);
  const entries = new LayerEntries(output, below, mtimeNsMax);
  if (source.kind === "copy") for (const spec of source.specs) writeCopy(spec, entries, checkAborted);
  else if (source.kind === "squash") writeSquashed(source.layers, job.below, entries, checkAborted);
  else writeDirectory(source.path, source.chown, BigInt(source.mtimeNs), entries);
  const { sizeBytes } = applier.complete();
  const rest = { sizeBytes, usedBelow: false, isEmpty: output.isEmpty };
  if (!tar.finish(rootFd)) return { ...packedSums(rootFd, checkAborted), ...rest };
  sink.flush();
  return { ...sums.result(), ...rest };
}

function packedSums(rootFd: number, checkAborted: () => void): ReturnType<TarSums["result"]> {
  const sums = new TarSums(checkAborted);
  const sink = sinkOf((chunk) => sums.add(chunk));
  writeTreeTar(rootFd, sink, { below: "anything", still: true });
  return sums.result();
}

const chunkBytes = 1024 * 1024;

/** `take` gets chunks that are valid only during the call. */
function sinkOf(take: (chunk: Buffer) => void): ChunkSink {
  const chunk = Buffer.allocUnsafeSlow(chunkBytes);
  return new ChunkSink(
    () => chunk,
    (bytes) => take(chunk.subarray(0, bytes)),
  );
}

class TarSums {
  readonly #hash = createHash("sha256");
  readonly #checkAborted: () => void;
  tarBytes = 0;

  constructor(checkAborted: () => void) {
    this.#checkAborted = checkAborted;
  }

  add(chunk: Uint8Array): void {
    this.#checkAborted();
    this.#hash.update(chunk);
    this.tarBytes += chunk.length;
  }

  result(): { diffId: string; tarBytes: number } {
    return { diffId: `sha256:${this.#hash.digest("hex")}`, tarBytes: this.tarBytes };
  }
}

/** More names than this are flushed sooner by one syncfs. */
const flushedNamesMax = 24;

/**
 * Flushes a layer of few files by itself: a syncfs would also wait for all that others have written, and for the build's
 * context, which is thrown away. False for a layer of more files.
 */
function flushFew(rootFd: number): boolean {
  const names: { readonly dirFd: number; readonly path: ByteString }[] = [];
  walkTree(rootFd, ({ path, stat }) => {
    if (stat.type === S_IFREG || stat.type === S_IFDIR) names.push({ dirFd: rootFd, path });
    return names.length > flushedNamesMax ? "stop" : undefined;
  });
  if (names.length > flushedNamesMax) return false;
  for (const { dirFd, path } of [...names, { dirFd: rootFd, path: "." as ByteString }]) {
    const fd = openBytesBeneath(
      dirFd,
      path,
      constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW,
    );
    try {
      fsyncSync(fd);
    } finally {
      closeFd(fd);
    }
  }
  return true;
}
