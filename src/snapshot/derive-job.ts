import { createHash } from "node:crypto";
import { constants, fsyncSync, mkdirSync } from "node:fs";
import { basename, dirname } from "node:path";
import { TarReader } from "#archive/tar-read.ts";
import { TarWriter } from "#archive/tar-write.ts";
import { type ByteString, bytesOfText } from "#base/byte-string.ts";
import { EngineError } from "#base/errors.ts";
import { openBytesBeneath, openRoot } from "#sys/beneath.ts";
import { S_IFDIR, S_IFREG } from "#sys/file-status.ts";
import { closeFd } from "#sys/files.ts";
import { copyDigest } from "./copy-digest.ts";
import { writeCopy, writeDirectory } from "./copy-layer.ts";
import type { CopySpec } from "./copy-spec.ts";
import { LayerApplier } from "./layer-apply.ts";
import { LayerEntries } from "./layer-entries.ts";
import { removeTreeAt } from "./remove-tree.ts";
import { writeSquashed } from "./squash-layer.ts";
import { StackTree } from "./stack-tree.ts";
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
  const tar = new TarReader(applier);
  const hash = createHash("sha256");
  const { source } = job;
  let tarBytes = 0;
  const write = (chunk: Uint8Array): void => {
    checkAborted();
    // A writable layer's tar is what packing the layer again gives; what a COPY writes has an order of its own.
    if (source.kind === "upper") hash.update(chunk);
    tarBytes += chunk.length;
    tar.push(chunk);
  };
  const mtimeNsMax = job.mtimeNsMax === undefined ? undefined : BigInt(job.mtimeNsMax);
  if (source.kind === "upper") {
    const upperFd = openRoot(source.directory);
    resources.defer(() => closeFd(upperFd));
    writeTreeTar(upperFd, write, {
      below: below.layers,
      ...(mtimeNsMax === undefined ? {} : { mtimeNsMax }),
      omit: new Set(source.omit.map((path) => bytesOfText(path.replace(/^\/+/, "")))),
    });
  } else {
    const writer = new TarWriter(write);
    const entries = new LayerEntries(writer, below, mtimeNsMax);
    if (source.kind === "copy") for (const spec of source.specs) writeCopy(spec, entries, checkAborted);
    else if (source.kind === "squash") writeSquashed(source.layers, job.below, entries, checkAborted);
    else writeDirectory(source.path, source.chown, BigInt(source.mtimeNs), entries);
    writer.finish();
  }
  tar.finish();
  const { sizeBytes, usedBelow } = applier.complete();
  let length = tarBytes;
  if (source.kind !== "upper") {
    length = 0;
    writeTreeTar(
      rootFd,
      (chunk) => {
        checkAborted();
        hash.update(chunk);
        length += chunk.length;
      },
      { below: "anything" },
    );
  }
  const diffId = `sha256:${hash.digest("hex")}`;
  // Packed from its directory, the layer names every parent itself. Two blocks of zeros: nothing was written.
  return {
    diffId,
    sizeBytes,
    tarBytes: length,
    usedBelow: usedBelow && source.kind === "upper",
    isEmpty: tarBytes <= 1024,
    flushed: flushFew(rootFd),
  };
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
    return names.length <= flushedNamesMax;
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

/** What a job calls now and then. */
export function abortCheck(control: Int32Array): () => void {
  return () => {
    if (Atomics.load(control, 0) !== 0)
      throw new EngineError("cancelled", "context canceled", { code: "aborted" });
  };
}
