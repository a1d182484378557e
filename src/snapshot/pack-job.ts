import { createHash } from "node:crypto";
import { closeSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";
import { DetectingDecompressor } from "#archive/compression.ts";
import { GzipWriter } from "#archive/gzip-write.ts";
import { EngineError } from "#base/errors.ts";
import { openRoot } from "#sys/beneath.ts";
import { closeFd } from "#sys/files.ts";
import { MemberGzip } from "#sys/gzip-members.ts";
import { startWriteback } from "#sys/statfs.ts";
import { openArchive } from "./archive-format.ts";
import { controlCells, type PackJob, type PackOutcome } from "./layer-job.ts";
import { writeTreeTar } from "./tree-tar.ts";

const chunkBytes = 1024 * 1024;
const writebackBytes = 8 * 1024 * 1024;

/**
 * A layer's tar, from its directory or from a file: its DiffID and length, and compressed into `output` where one is given.
 * On any failure the output is gone on return.
 */
export function runPack(job: PackJob, control: Int32Array): PackOutcome {
  const diffHash = createHash("sha256");
  let diffSizeBytes = 0;
  const packed = job.output === undefined ? undefined : new PackedFile(job.output);
  try {
    readSource(job, (chunk) => {
      if (Atomics.load(control, controlCells.aborted) !== 0) {
        throw new EngineError("cancelled", "context canceled", { code: "aborted" });
      }
      diffHash.update(chunk);
      diffSizeBytes += chunk.length;
      packed?.gzip.push(chunk);
    });
    packed?.gzip.finish();
  } catch (error) {
    packed?.remove();
    throw error;
  } finally {
    packed?.close();
  }
  return {
    diffId: `sha256:${diffHash.digest("hex")}`,
    diffSizeBytes,
    ...(packed === undefined ? {} : packed.outcome()),
  };
}

function readSource({ source }: PackJob, take: (chunk: Uint8Array) => void): void {
  if ("directory" in source) {
    const rootFd = openRoot(source.directory);
    try {
      writeTreeTar(rootFd, take, { below: "anything" });
    } finally {
      closeFd(rootFd);
    }
    return;
  }
  const fd = openSync(source.path, "r");
  const buffer = Buffer.allocUnsafeSlow(chunkBytes);
  using archive = new DetectingDecompressor((head) => openArchive(head, take));
  try {
    for (;;) {
      const size = readSync(fd, buffer, 0, chunkBytes, null);
      if (size === 0) break;
      archive.push(buffer.subarray(0, size));
    }
    archive.finish();
  } finally {
    closeSync(fd);
  }
}

class PackedFile {
  readonly #path: string;
  readonly #fd: number;
  readonly #hash = createHash("sha256");
  readonly gzip: MemberGzip | GzipWriter;
  #sizeBytes = 0;
  /** Of these the disk has been told. */
  #begun = 0;

  constructor(path: string) {
    this.#path = path;
    this.#fd = openSync(path, "wx", 0o600);
    const emit = (chunk: Uint8Array): void => this.#write(chunk);
    this.gzip = MemberGzip.open(emit) ?? new GzipWriter(emit);
  }

  #write(chunk: Uint8Array): void {
    this.#hash.update(chunk);
    this.#sizeBytes += chunk.length;
    let at = 0;
    while (at < chunk.length) at += writeSync(this.#fd, chunk, at, chunk.length - at);
    // What waits for the flush at the end has then little left to write.
    if (this.#sizeBytes - this.#begun < writebackBytes) return;
    this.#begun = this.#sizeBytes;
    startWriteback(this.#fd);
  }

  outcome(): { blobDigest: string; blobSizeBytes: number } {
    return { blobDigest: `sha256:${this.#hash.digest("hex")}`, blobSizeBytes: this.#sizeBytes };
  }

  remove(): void {
    unlinkSync(this.#path);
  }

  close(): void {
    closeSync(this.#fd);
    this.gzip[Symbol.dispose]();
  }
}
