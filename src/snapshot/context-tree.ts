import { closeSync, fstatSync, openSync, readFileSync, readSync, renameSync } from "node:fs";
import type { EntryType } from "#archive/tar-format.ts";
import type { ByteString } from "#base/byte-string.ts";
import { bytesOfText } from "#base/byte-string.ts";
import { errnoOf, SyscallError } from "#base/errors.ts";
import { impliedDirectory, PathMap, type SourceTree, type TreeNode } from "./source-tree.ts";

/** Where a piece of a file's data lies: offset in the file, position in the data file, length. */
export type Piece = readonly [offset: number, position: number, length: number];

/** One name of a context, as a line of its index holds it. */
export interface ContextEntry {
  readonly path: string;
  readonly type: EntryType;
  readonly mode: number;
  readonly sizeBytes: number;
  readonly mtimeNs: string;
  readonly linkPath: string;
  readonly pieces: readonly Piece[];
  readonly contentHash: string;
  /** The data lies in this file, which holds nothing else, and not in the one for all. */
  readonly ownFile?: string;
  /** Names and base64 values. */
  readonly xattrs?: readonly (readonly [string, string])[];
}

/** A file that stands by itself: a heredoc, a download. */
export interface LooseFile {
  readonly name: string;
  /** Where its content lies. */
  readonly path: string;
  readonly mode: number;
  readonly mtimeNs: string;
  readonly contentHash: string;
}

const chunkBytes = 1024 * 1024;
interface Stored extends TreeNode {
  readonly file: string;
  readonly pieces: readonly Piece[];
  readonly isOwn: boolean;
}

/** Added to the name of an own file that was given away. */
const takenSuffix = ".taken";

/**
 * A build context as it came: an index of names over the data of its archive. Nothing of it is ever made on the disk under
 * its own name, so no link of it can lead anywhere. Everything belongs to root, as in Docker.
 */
export class ContextTree implements SourceTree {
  readonly #nodes = new PathMap<Stored>();
  readonly #open = new Map<string, number>();
  readonly #buffer = Buffer.allocUnsafe(chunkBytes);

  /** Reads an index file: first a line with the data file's path, then an entry a line. */
  static load(indexPath: string): ContextTree {
    const tree = new ContextTree();
    const [dataPath = "", ...lines] = readFileSync(indexPath, "utf8").split("\n");
    for (const line of lines) if (line !== "") tree.#add(JSON.parse(line) as ContextEntry, dataPath);
    return tree;
  }

  static ofFiles(files: readonly LooseFile[]): ContextTree {
    const tree = new ContextTree();
    for (const { name, path, mode, mtimeNs, contentHash } of files) {
      const fd = openSync(path, "r");
      tree.#open.set(path, fd);
      const sizeBytes = fstatSync(fd).size;
      const pieces: Piece[] = [[0, 0, sizeBytes]];
      const entry = {
        path: bytesOfText(name),
        type: "file",
        mode,
        sizeBytes,
        mtimeNs,
        linkPath: "",
        pieces,
        contentHash,
      } as const;
      tree.#add(entry, path);
    }
    return tree;
  }

  #add(entry: ContextEntry, file: string): void {
    const xattrs = entry.xattrs?.map(([name, value]) => [name, Buffer.from(value, "base64")] as const);
    this.#nodes.set(entry.path as ByteString, {
      type: entry.type,
      mode: entry.mode,
      uid: 0,
      gid: 0,
      sizeBytes: entry.sizeBytes,
      mtimeNs: BigInt(entry.mtimeNs),
      linkPath: entry.linkPath as ByteString,
      deviceMajor: 0,
      deviceMinor: 0,
      ...(xattrs === undefined ? {} : { xattrs: new Map(xattrs) }),
      ...(entry.contentHash === "" ? {} : { contentHash: entry.contentHash }),
      file: entry.ownFile ?? file,
      pieces: entry.pieces,
      isOwn: entry.ownFile !== undefined,
    });
  }

  stat(path: ByteString): TreeNode | undefined {
    return path === "" ? impliedDirectory : this.#nodes.get(path);
  }

  list(path: ByteString): ByteString[] {
    return this.#nodes.list(path);
  }

  read(path: ByteString, write: (chunk: Uint8Array) => void): void {
    const node = this.#nodes.get(path);
    if (node?.type !== "file") throw new SyscallError("open", "ENOENT", path);
    let at = 0;
    for (const [offset, position, length] of node.pieces) {
      this.#zeros(offset - at, write);
      this.#copy(node.file, position, length, write);
      at = offset + length;
    }
    this.#zeros(node.sizeBytes - at, write);
  }

  /** Of several that ask, in whatever thread, one gets it: the renaming decides. */
  take(path: ByteString): string | undefined {
    const node = this.#nodes.get(path);
    if (node?.isOwn !== true) return undefined;
    const taken = `${node.file}${takenSuffix}`;
    try {
      renameSync(node.file, taken);
      return taken;
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  #zeros(length: number, write: (chunk: Uint8Array) => void): void {
    if (length <= 0) return;
    this.#buffer.fill(0);
    for (let left = length; left > 0; left -= chunkBytes)
      write(this.#buffer.subarray(0, Math.min(left, chunkBytes)));
  }

  #copy(file: string, position: number, length: number, write: (chunk: Uint8Array) => void): void {
    let fd = this.#open.get(file);
    if (fd === undefined) {
      fd = openOrTaken(file);
      this.#open.set(file, fd);
    }
    for (let done = 0; done < length; ) {
      const size = readSync(fd, this.#buffer, 0, Math.min(chunkBytes, length - done), position + done);
      if (size === 0) throw new SyscallError("read", "EIO", file);
      write(this.#buffer.subarray(0, size));
      done += size;
    }
  }

  [Symbol.dispose](): void {
    for (const fd of this.#open.values()) closeSync(fd);
    this.#open.clear();
  }
}

function openOrTaken(file: string): number {
  try {
    return openSync(file, "r");
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    return openSync(`${file}${takenSuffix}`, "r");
  }
}
