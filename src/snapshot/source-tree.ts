import type { EntryType } from "#archive/tar-format.ts";
import type { ByteString } from "#base/byte-string.ts";
import { SyscallError } from "#base/errors.ts";
import { parentOf } from "./archive-path.ts";

/** What a tree of files says about one name; paths are clean, "" is the root. */
export interface TreeNode {
  readonly type: EntryType;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly mtimeNs: bigint;
  /** Target of a symlink. */
  readonly linkPath: ByteString;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  readonly xattrs?: ReadonlyMap<string, Buffer>;
  /** The same for names that are one file; undefined for a file with one name. */
  readonly identity?: string;
  /** sha256 of a file's content in hex, where it is known without reading. */
  readonly contentHash?: string;
}

/** A tree that files are copied from: a build context or the layers of an image. All calls block; for workers. */
export interface SourceTree extends Disposable {
  /** The name itself: no symlink is followed, so the directories in front must be real ones. */
  stat(path: ByteString): TreeNode | undefined;
  /** Names in a directory, in byte order. */
  list(path: ByteString): ByteString[];
  /** The content of a file; chunks are valid only during the call. */
  read(path: ByteString, write: (chunk: Uint8Array) => void): void;
  /**
   * Gives a file away where the tree can spare it: the path of a file that holds just this content and is given to nobody
   * else. Its mode, owner and times may be changed, its bytes may not: the tree still reads it.
   */
  take?(path: ByteString): string | undefined;
}

/** The kernel's own bound on symlinks in one resolution. */
const linkHopsMax = 40;

export interface Resolved {
  /** Where it is, or would be: without symlinks as far as the tree goes. */
  readonly path: ByteString;
  readonly node: TreeNode | undefined;
}

/**
 * Resolves a path in a tree as a process chrooted there would: symlinks stay inside. What is missing at the end is taken as
 * it is spelled. Throws ELOOP, and ENOTDIR where a file stands in the way.
 */
export function resolveIn(tree: SourceTree, path: string, followLast = true): Resolved {
  const left = path.split("/").reverse();
  const names: string[] = [];
  let hops = 0;
  let missing = false;
  let node: TreeNode | undefined = tree.stat("" as ByteString);
  while (left.length > 0) {
    const name = left.pop() as string;
    if (name === "" || name === ".") continue;
    if (name === "..") {
      names.pop();
      missing = false;
      node = tree.stat(names.join("/") as ByteString);
      continue;
    }
    if (!missing && node !== undefined && node.type !== "directory") {
      throw new SyscallError("open", "ENOTDIR", names.join("/"));
    }
    names.push(name);
    if (missing) continue;
    const at = names.join("/") as ByteString;
    node = tree.stat(at);
    if (node === undefined) {
      missing = true;
      continue;
    }
    const isLast = left.every((rest) => rest === "" || rest === ".");
    if (node.type !== "symlink" || (isLast && !followLast)) continue;
    hops += 1;
    if (hops > linkHopsMax) throw new SyscallError("open", "ELOOP", at);
    names.pop();
    if (node.linkPath.startsWith("/")) names.length = 0;
    left.push(...node.linkPath.split("/").reverse());
    node = tree.stat(names.join("/") as ByteString);
  }
  const clean = names.join("/") as ByteString;
  return { path: clean, node: missing ? undefined : node };
}

/** A whole small file, or undefined where there is none. Throws `EFBIG` beyond the bound. */
export function readSmallFile(tree: SourceTree, path: string, bytesMax: number): Buffer | undefined {
  const found = resolveIn(tree, path);
  if (found.node?.type !== "file") return undefined;
  if (found.node.sizeBytes > bytesMax) throw new SyscallError("read", "EFBIG", path);
  const chunks: Buffer[] = [];
  tree.read(found.path, (chunk) => chunks.push(Buffer.from(chunk)));
  return Buffer.concat(chunks);
}

/** A directory that a tree only implies. */
export const impliedDirectory: TreeNode = {
  type: "directory",
  mode: 0o755,
  uid: 0,
  gid: 0,
  sizeBytes: 0,
  mtimeNs: 0n,
  linkPath: "" as ByteString,
  deviceMajor: 0,
  deviceMinor: 0,
};

/** A tree in memory, by path. */
export class PathMap<Node> {
  readonly #nodes = new Map<string, Node>();
  readonly #names = new Map<string, Set<string>>([["", new Set()]]);

  get size(): number {
    return this.#nodes.size;
  }

  get(path: string): Node | undefined {
    return this.#nodes.get(path);
  }

  /** Sets a node; directories in front of it must have been made. */
  set(path: ByteString, node: Node): void {
    this.#nodes.set(path, node);
    const parent = parentOf(path);
    const names = this.#names.get(parent) ?? new Set();
    names.add(path.slice(parent === "" ? 0 : parent.length + 1));
    this.#names.set(parent, names);
  }

  list(path: string): ByteString[] {
    return [...(this.#names.get(path) ?? [])].sort() as ByteString[];
  }

  /** Takes a name away with all below it. */
  remove(path: ByteString): void {
    for (const name of this.#names.get(path) ?? []) this.remove(`${path}/${name}` as ByteString);
    this.#names.delete(path);
    this.#nodes.delete(path);
    const parent = parentOf(path);
    this.#names.get(parent)?.delete(path.slice(parent === "" ? 0 : parent.length + 1));
  }

  entries(): IterableIterator<[string, Node]> {
    return this.#nodes.entries();
  }
}
