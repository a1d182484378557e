import { createHash, type Hash } from "node:crypto";
import { closeSync, mkdirSync, openSync, readSync } from "node:fs";
import { basename, dirname } from "node:path";
import { DetectingDecompressor, detectFormat } from "#archive/compression.ts";
import { TarReader } from "#archive/tar-read.ts";
import { bytesOfText } from "#base/byte-string.ts";
import { EngineError } from "#base/errors.ts";
import { openRoot } from "#sys/beneath.ts";
import { closeFd } from "#sys/files.ts";
import { openArchive } from "./archive-format.ts";
import { LayerApplier } from "./layer-apply.ts";
import { type ApplyJob, type ApplyOutcome, abortCheck } from "./layer-job.ts";
import { LayerStack } from "./layer-stack.ts";
import { DependsOnBelow } from "./parent-directories.ts";
import { removeTreeAt } from "./remove-tree.ts";

const chunkBytes = 1024 * 1024;
/** How long a worker sleeps before it looks again whether its job was aborted. */
const pollMs = 100;

/** Reads a file that may still be growing, in chunks of up to 1 MiB; each is valid until the next read. */
class SourceReader implements Disposable {
  readonly #fd: number;
  readonly #cells: BigInt64Array | undefined;
  readonly #checkAborted: () => void;
  readonly #buffer = Buffer.allocUnsafeSlow(chunkBytes);
  position = 0;

  constructor(job: Pick<ApplyJob, "path" | "cells">, checkAborted: () => void) {
    this.#fd = openSync(job.path, "r");
    this.#cells = job.cells === undefined ? undefined : new BigInt64Array(job.cells);
    this.#checkAborted = checkAborted;
  }

  /** The next bytes, or undefined at the end. */
  read(): Buffer | undefined {
    this.#checkAborted();
    const allowed = this.#cells === undefined ? chunkBytes : this.#waitFor(this.#cells);
    if (allowed === 0) return undefined;
    const size = readSync(this.#fd, this.#buffer, 0, Math.min(chunkBytes, allowed), this.position);
    if (size === 0) {
      if (this.#cells === undefined) return undefined;
      throw new EngineError("system", "downloaded file is shorter than announced", { code: "short-blob" });
    }
    this.position += size;
    return this.#buffer.subarray(0, size);
  }

  /** Bytes that may be read now; 0 when the file is complete and all of it was read. */
  #waitFor(cells: BigInt64Array): number {
    for (;;) {
      // The state first: what the writer stored before it said "complete" is then seen by the second load.
      const state = Atomics.load(cells, 1);
      const written = Atomics.load(cells, 0);
      const available = Number(written) - this.position;
      if (available > 0) return available;
      if (state === 1n) return 0;
      if (state === 2n) throw new EngineError("cancelled", "download failed", { code: "download-failed" });
      Atomics.wait(cells, 0, written, pollMs);
      this.#checkAborted();
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}

/**
 * The pipeline of one layer, in one thread: read → sha256 of the blob → inflate → sha256 of the tar (DiffID) → apply.
 * What differs from the expected digests is an error. On any failure the staging directory is gone on return.
 */
export function runApply(
  job: ApplyJob,
  control: Int32Array,
  onProgress: (consumedBytes: number) => void,
): ApplyOutcome {
  const parent = openRoot(dirname(job.staging));
  const name = bytesOfText(basename(job.staging));
  try {
    mkdirSync(job.staging, { mode: 0o755 });
    return applyTo(job, control, onProgress);
  } catch (error) {
    removeTreeAt(parent, name);
    if (error instanceof DependsOnBelow) return { dependsOnBelow: true };
    throw error;
  } finally {
    closeFd(parent);
  }
}

function applyTo(
  job: ApplyJob,
  control: Int32Array,
  onProgress: (consumedBytes: number) => void,
): ApplyOutcome {
  using resources = new DisposableStack();
  const rootFd = openRoot(job.staging);
  resources.defer(() => closeFd(rootFd));
  const below = job.below === undefined ? undefined : resources.use(new LayerStack(job.below));
  const applier = resources.use(new LayerApplier(rootFd, below));
  const checkAborted = abortCheck(control);
  const source = resources.use(new SourceReader(job, checkAborted));
  const tar = new TarReader(applier);
  const blobHash = createHash("sha256");
  /** A plain archive is its own tar: one digest for both. */
  let diffHash: Hash | undefined;
  const emit = (chunk: Uint8Array): void => {
    diffHash?.update(chunk);
    tar.push(chunk);
    checkAborted();
  };
  const archive = resources.use(
    new DetectingDecompressor((head) => {
      if (detectFormat(head) !== "none") diffHash = createHash("sha256");
      return openArchive(head, emit);
    }),
  );
  for (let chunk = source.read(); chunk !== undefined; chunk = source.read()) {
    blobHash.update(chunk);
    archive.push(chunk);
    onProgress(source.position);
  }
  archive.finish();
  tar.finish();
  const blobDigest = `sha256:${blobHash.digest("hex")}`;
  const diffId = diffHash === undefined ? blobDigest : `sha256:${diffHash.digest("hex")}`;
  checkDigests(job, blobDigest, diffId);
  return { dependsOnBelow: false, ...applier.complete(), blobDigest, blobSizeBytes: source.position, diffId };
}

function checkDigests(job: ApplyJob, blobDigest: string, diffId: string): void {
  if (job.expectedBlobDigest !== undefined && job.expectedBlobDigest !== blobDigest) {
    throw new EngineError(
      "invalid",
      `filesystem layer verification failed for digest ${job.expectedBlobDigest}`,
      { code: "wrong-digest" },
    );
  }
  if (job.expectedDiffId !== undefined && job.expectedDiffId !== diffId) {
    throw new EngineError("invalid", "layers from manifest don't match image configuration", {
      code: "wrong-diff-id",
    });
  }
}
