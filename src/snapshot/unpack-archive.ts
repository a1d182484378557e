import type { Decompressor } from "#archive/compression.ts";
import { blockBytes, checksumMatches, type TarEntry } from "#archive/tar-format.ts";
import { TarReader, type TarSink } from "#archive/tar-read.ts";
import type { ByteString } from "#base/byte-string.ts";
import { EngineError } from "#base/errors.ts";
import { openArchive } from "./archive-format.ts";
import { cleanPath, joinPath } from "./archive-path.ts";
import type { Selected } from "./copy-spec.ts";
import { checkNoWhiteout, type LayerEntries } from "./layer-entries.ts";
import type { SourceTree, TreeNode } from "./source-tree.ts";

interface UnpackOptions {
  readonly entries: LayerEntries;
  readonly target: ByteString;
  readonly own: (node: TreeNode) => TreeNode;
  /** A directory that has to be made. */
  readonly fresh: TreeNode;
  readonly checkAborted: () => void;
}

/** Ends the reading of a file whose first bytes are enough. */
class Enough extends Error {}

/** Unpacks a local archive for ADD. False for a file that is none: it is copied as it is. */
export function unpackInto(tree: SourceTree, source: Selected, options: UnpackOptions): boolean {
  if (source.node.type !== "file" || !isArchive(tree, source.path)) return false;
  const { entries, target, fresh } = options;
  if (target !== "") entries.directory(target, fresh);
  const tar = new TarReader(new Relocated(options));
  decompress(tree, source.path, (chunk) => {
    options.checkAborted();
    tar.push(chunk);
  });
  tar.finish();
  return true;
}

function decompress(tree: SourceTree, path: ByteString, emit: (chunk: Uint8Array) => void): void {
  let decompressor: Decompressor | undefined;
  try {
    tree.read(path, (chunk) => {
      decompressor ??= openArchive(chunk, emit);
      decompressor.push(chunk);
    });
    decompressor?.finish();
  } finally {
    decompressor?.close();
  }
}

/** By content, as Docker tells: a tar header at the front, plain or compressed. */
function isArchive(tree: SourceTree, path: ByteString): boolean {
  let head = Buffer.alloc(0);
  try {
    decompress(tree, path, (chunk) => {
      head = Buffer.concat([head, chunk.subarray(0, blockBytes - head.length)]);
      if (head.length >= blockBytes) throw new Enough();
    });
  } catch (error) {
    // A library that is not there is told; anything else is a file like any other, whatever its first bytes say.
    if (error instanceof EngineError && error.kind === "notImplemented") throw error;
    if (!(error instanceof Enough)) return false;
  }
  return head.length >= blockBytes && head[0] !== 0 && checksumMatches(head);
}

/** An archive's entries on their way into a layer, below the target. */
class Relocated implements TarSink {
  readonly #options: UnpackOptions;
  #left = 0;
  #at = 0;
  #active = false;

  constructor(options: UnpackOptions) {
    this.#options = options;
  }

  entry(entry: TarEntry): void {
    const { entries, target, own } = this.#options;
    const inner = cleanPath(entry.path);
    this.#active = false;
    if (inner === "") return;
    const path = joinPath(target, inner);
    checkNoWhiteout(path);
    const owned = own({ ...entry, xattrs: entry.xattrs ?? new Map() });
    entries.output.entry({
      ...entry,
      path,
      mode: owned.mode,
      uid: owned.uid,
      gid: owned.gid,
      mtimeNs: entries.clamp(entry.mtimeNs),
      linkPath: entry.type === "link" ? joinPath(target, cleanPath(entry.linkPath)) : entry.linkPath,
    });
    this.#active = entry.type === "file";
    this.#left = entry.type === "file" ? entry.sizeBytes : 0;
    this.#at = 0;
  }

  data(chunk: Uint8Array, offset: number): void {
    if (!this.#active) return;
    this.#fill(offset);
    this.#options.entries.output.data(chunk);
    this.#at = offset + chunk.length;
  }

  end(): void {
    if (this.#active) this.#fill(this.#left);
    this.#active = false;
  }

  /** Holes of a sparse file. */
  #fill(upTo: number): void {
    while (this.#at < upTo) {
      const length = Math.min(zeros.length, upTo - this.#at);
      this.#options.entries.output.data(zeros.subarray(0, length));
      this.#at += length;
    }
  }
}

const zeros = Buffer.alloc(1024 * 1024);
