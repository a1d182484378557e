import { createHash } from "node:crypto";
import { closeSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";
import { ChunkSink } from "#archive/chunk-sink.ts";
import { DetectingDecompressor, detectBytes, detectFormat } from "#archive/compression.ts";
import { GzipWriter } from "#archive/gzip-write.ts";
import { openRoot } from "#sys/beneath.ts";
import { closeFd } from "#sys/files.ts";
import { BlockGzip, gzipBlockBytes } from "#sys/gzip-members.ts";
import { startWriteback } from "#sys/statfs.ts";
import { openArchive } from "./archive-format.ts";
import type { PackJob, PackOutcome } from "./layer-job.ts";
import { PackBlocks, sharedBlocks } from "./pack-blocks.ts";
import { writeTreeTar } from "./tree-tar.ts";

const writebackBytes = 8 * 1024 * 1024;

/**
 * A layer's tar, from its directory or from a file: its DiffID and length, and compressed into `output` where one is given.
 * `onWritten` is told how long that is by now. On any failure the output is gone on return.
 */
export function runPack(
  job: PackJob,
  checkAborted: () => void,
  onWritten: (bytes: number) => void,
): PackOutcome {
  const diffHash = createHash("sha256");
  let diffSizeBytes = 0;
  const packed = job.output === undefined ? undefined : new PackedFile(job.output, onWritten);
  try {
    using compressor = packed === undefined ? new NoCompressor() : compressorOf(job, packed);
    let block: Buffer;
    const sink = new ChunkSink(
      () => {
        checkAborted();
        block = compressor.next();
        return block;
      },
      (bytes) => {
        diffHash.update(block.subarray(0, bytes));
        diffSizeBytes += bytes;
        compressor.filled(bytes);
      },
    );
    readSource(job, sink);
    compressor.finish();
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

function readSource({ source }: PackJob, sink: ChunkSink): void {
  if ("directory" in source) {
    const rootFd = openRoot(source.directory);
    try {
      writeTreeTar(rootFd, sink, { below: "anything", still: true });
    } finally {
      closeFd(rootFd);
    }
    return;
  }
  const fd = openSync(source.path, "r");
  const read = (buffer: Buffer, offset: number, length: number): number =>
    readSync(fd, buffer, offset, length, null);
  try {
    const head = Buffer.alloc(detectBytes);
    const isPlain = detectFormat(head.subarray(0, readSync(fd, head, 0, detectBytes, 0))) === "none";
    if (isPlain) while (sink.fill(gzipBlockBytes, read) > 0);
    else readCompressed(fd, sink);
    sink.flush();
  } finally {
    closeSync(fd);
  }
}

/** The tar in an archive of any form that is read. */
function readCompressed(fd: number, sink: ChunkSink): void {
  using archive = new DetectingDecompressor((head) => openArchive(head, (chunk) => sink.write(chunk)));
  const buffer = Buffer.allocUnsafeSlow(gzipBlockBytes);
  for (let at = 0; ; ) {
    const size = readSync(fd, buffer, 0, buffer.length, at);
    if (size === 0) break;
    archive.push(buffer.subarray(0, size));
    at += size;
  }
  archive.finish();
}

/** Takes a layer's tar block by block: memory for the next one, then how far it was filled. */
interface Compressor extends Disposable {
  next(): Buffer;
  filled(bytes: number): void;
  finish(): void;
}

function compressorOf({ blocks }: PackJob, file: PackedFile): Compressor {
  const gzip = BlockGzip.open();
  const emit = (chunk: Uint8Array): void => file.write(chunk);
  return gzip === undefined
    ? new StreamCompressor(emit)
    : new PackBlocks(blocks ?? sharedBlocks(), gzip, emit);
}

/** For the sums alone. */
class NoCompressor implements Compressor {
  readonly #block = Buffer.allocUnsafeSlow(gzipBlockBytes);

  next(): Buffer {
    return this.#block;
  }

  filled(): void {}

  finish(): void {}

  [Symbol.dispose](): void {}
}

/** Where the system lacks libdeflate. */
class StreamCompressor implements Compressor {
  readonly #block = Buffer.allocUnsafeSlow(gzipBlockBytes);
  readonly #gzip: GzipWriter;

  constructor(emit: (chunk: Uint8Array) => void) {
    this.#gzip = new GzipWriter(emit);
  }

  next(): Buffer {
    return this.#block;
  }

  filled(bytes: number): void {
    this.#gzip.push(this.#block.subarray(0, bytes));
  }

  finish(): void {
    this.#gzip.finish();
  }

  [Symbol.dispose](): void {
    this.#gzip[Symbol.dispose]();
  }
}

class PackedFile {
  readonly #path: string;
  readonly #onWritten: (bytes: number) => void;
  readonly #fd: number;
  readonly #hash = createHash("sha256");
  #sizeBytes = 0;
  /** Of these the disk has been told. */
  #begun = 0;

  constructor(path: string, onWritten: (bytes: number) => void) {
    this.#path = path;
    this.#onWritten = onWritten;
    this.#fd = openSync(path, "wx", 0o600);
  }

  write(chunk: Uint8Array): void {
    this.#hash.update(chunk);
    let at = 0;
    while (at < chunk.length) at += writeSync(this.#fd, chunk, at, chunk.length - at);
    this.#sizeBytes += chunk.length;
    this.#onWritten(this.#sizeBytes);
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
  }
}
