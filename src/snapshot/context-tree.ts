import { closeSync, fstatSync, openSync, readFileSync, readSync, renameSync, writeFileSync } from "node:fs";
import type { EntryType } from "#archive/tar-format.ts";
import type { ByteString } from "#base/byte-string.ts";
import { bytesOfText } from "#base/byte-string.ts";
import { errnoOf, SyscallError } from "#base/errors.ts";
import { impliedDirectory, PathMap, type SourceTree, type TreeNode } from "./source-tree.ts";

/** Where a piece of a file's data lies: offset in the file, position in the data file, length. */
export type Piece = readonly [offset: number, position: number, length: number];

/** One name of a context. */
export interface ContextNode extends TreeNode {
  readonly pieces: readonly Piece[];
  /** The data lies in this file, which holds nothing else, and not in the one for all. */
  readonly ownFile?: string;
  /** The file cannot be given away. */
  readonly isKept?: true;
}

/** A node as a line of the index holds it; big numbers in decimal, bytes in base64. */
type Line = readonly [
  path: string,
  type: EntryType,
  mode: number,
  sizeBytes: number,
  mtimeNs: string,
  linkPath: string,
  contentHash: string,
  pieces: readonly number[],
  ownFile: string,
  xattrs: readonly (readonly [string, string])[],
];

function lineOf(path: string, node: ContextNode): string {
  const { type, mode, sizeBytes, mtimeNs, linkPath, contentHash = "", pieces, ownFile = "", xattrs } = node;
  const values = [...(xattrs ?? [])].map(([name, value]) => [name, value.toString("base64")] as const);
  const numbers = pieces.flat();
  const time = String(mtimeNs);
  const line: Line = [path, type, mode, sizeBytes, time, linkPath, contentHash, numbers, ownFile, values];
  return JSON.stringify(line);
}

function nodeOf(line: Line): ContextNode {
  const [, type, mode, sizeBytes, mtimeNs, linkPath, contentHash, numbers, ownFile, xattrs] = line;
  const pieces: Piece[] = [];
  for (let at = 0; at < numbers.length; at += 3) {
    pieces.push([numbers[at] as number, numbers[at + 1] as number, numbers[at + 2] as number]);
  }
  const values = xattrs.map(([name, value]) => [name, Buffer.from(value, "base64")] as const);
  return {
    ...plainNode,
    type,
    mode,
    sizeBytes,
    mtimeNs: BigInt(mtimeNs),
    linkPath: linkPath as ByteString,
    pieces,
    ...(contentHash === "" ? {} : { contentHash }),
    ...(ownFile === "" ? {} : { ownFile }),
    ...(values.length === 0 ? {} : { xattrs: new Map(values) }),
  };
}

/** Everything in a context belongs to root, as in Docker. */
export const plainNode = { uid: 0, gid: 0, deviceMajor: 0, deviceMinor: 0 } as const;

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
/** Added to the name of an own file that was given away. */
const takenSuffix = ".taken";

/**
 * A build context as it came: an index of names over the data of its archive. Nothing of it is ever made on the disk under
 * its own name, so no link of it can lead anywhere.
 */
export class ContextTree implements SourceTree {
  readonly #nodes: PathMap<ContextNode>;
  readonly #dataPath: string;
  readonly #open = new Map<string, number>();
  readonly #buffer = Buffer.allocUnsafe(chunkBytes);

  constructor(nodes: PathMap<ContextNode>, dataPath: string) {
    this.#nodes = nodes;
    this.#dataPath = dataPath;
  }

  get size(): number {
    return this.#nodes.size;
  }

  /** Writes an index file, for threads that do not have the tree: a line with the data file's path, then a node a line. */
  save(indexPath: string): void {
    const lines = [...this.#nodes.entries()].map(([path, node]) => lineOf(path, node));
    writeFileSync(indexPath, [this.#dataPath, ...lines].join("\n"), { mode: 0o600 });
  }

  static load(indexPath: string): ContextTree {
    const [dataPath = "", ...lines] = readFileSync(indexPath, "utf8").split("\n");
    const nodes = new PathMap<ContextNode>();
    for (const text of lines) {
      const line = JSON.parse(text) as Line;
      nodes.set(line[0] as ByteString, nodeOf(line));
    }
    return new ContextTree(nodes, dataPath);
  }

  static ofFiles(files: readonly LooseFile[]): ContextTree {
    const nodes = new PathMap<ContextNode>();
    const tree = new ContextTree(nodes, "");
    for (const { name, path, mode, mtimeNs, contentHash } of files) {
      const fd = openSync(path, "r");
      tree.#open.set(path, fd);
      const sizeBytes = fstatSync(fd).size;
      nodes.set(bytesOfText(name), {
        ...plainNode,
        type: "file",
        mode,
        sizeBytes,
        mtimeNs: BigInt(mtimeNs),
        linkPath: "" as ByteString,
        contentHash,
        pieces: [[0, 0, sizeBytes]],
        ownFile: path,
        isKept: true,
      });
    }
    return tree;
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
      this.#copy(node.ownFile ?? this.#dataPath, position, length, write);
      at = offset + length;
    }
    this.#zeros(node.sizeBytes - at, write);
  }

  /** Of several that ask, in whatever thread, one gets it: the renaming decides. */
  take(path: ByteString): string | undefined {
    const node = this.#nodes.get(path);
    if (node?.ownFile === undefined || node.isKept === true) return undefined;
    const taken = `${node.ownFile}${takenSuffix}`;
    try {
      renameSync(node.ownFile, taken);
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

/** Contexts of more names are read from their index again: this much memory is not kept for them. */
const heldNamesMax = 200_000;
let held: { readonly indexPath: string; readonly tree: ContextTree } | undefined;

/** Keeps the tree that this thread has made, for the jobs of the same build that the thread is then given. */
export function holdContext(indexPath: string, tree: ContextTree): void {
  held = tree.size > heldNamesMax ? undefined : { indexPath, tree };
}

/** The thread has other work now. */
export function releaseContext(): void {
  held = undefined;
}

export function openContext(indexPath: string): ContextTree {
  return held?.indexPath === indexPath ? held.tree : ContextTree.load(indexPath);
}

function openOrTaken(file: string): number {
  try {
    return openSync(file, "r");
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    return openSync(`${file}${takenSuffix}`, "r");
  }
}
