import { constants, readSync } from "node:fs";
import type { ByteString } from "#base/byte-string.ts";
import { SyscallError } from "#base/errors.ts";
import { S_IFREG, statAt } from "#sys/file-status.ts";
import { closeFd } from "#sys/files.ts";
import { baseOf } from "./archive-path.ts";
import { type Found, LayerStack } from "./layer-stack.ts";
import { impliedDirectory, type SourceTree, type TreeNode } from "./source-tree.ts";
import { entryTypes, readXattrs } from "./tree-tar.ts";

const none = "" as ByteString;
const chunkBytes = 1024 * 1024;

/** The merged layers of an image, without a mount. */
export class StackTree implements SourceTree {
  readonly #stack: LayerStack;
  readonly #buffer = Buffer.allocUnsafe(chunkBytes);

  /** Directories of the layers, top first. */
  constructor(directories: readonly string[]) {
    this.#stack = new LayerStack(directories);
  }

  get layers(): LayerStack {
    return this.#stack;
  }

  stat(path: ByteString): TreeNode | undefined {
    if (path === "") return impliedDirectory;
    const found = this.#stack.find(path);
    return found === undefined ? undefined : this.#node(found);
  }

  #node(found: Found): TreeNode | undefined {
    const { stat } = found;
    const type = entryTypes.get(stat.type);
    // Sockets: no archive holds them.
    if (type === undefined) return undefined;
    const isDevice = type === "char" || type === "block";
    const xattrs = this.#xattrs(found);
    return {
      type,
      mode: stat.mode,
      uid: stat.uid,
      gid: stat.gid,
      sizeBytes: type === "file" ? stat.sizeBytes : 0,
      mtimeNs: stat.mtimeNs,
      linkPath: type === "symlink" ? this.#stack.readLink(found) : none,
      deviceMajor: isDevice ? stat.deviceMajor : 0,
      deviceMinor: isDevice ? stat.deviceMinor : 0,
      ...(xattrs === undefined ? {} : { xattrs }),
      ...(type === "file" && stat.linkCount > 1 ? { identity: stat.identity } : {}),
    };
  }

  #xattrs(found: Found): ReadonlyMap<string, Buffer> | undefined {
    const parentFd = this.#stack.openParent(found);
    try {
      return readXattrs(parentFd, baseOf(found.path));
    } finally {
      closeFd(parentFd);
    }
  }

  list(path: ByteString): ByteString[] {
    return this.#stack.list(path).sort() as ByteString[];
  }

  read(path: ByteString, write: (chunk: Uint8Array) => void): void {
    const found = this.#stack.find(path);
    if (found?.stat.type !== S_IFREG) throw new SyscallError("open", "ENOENT", path);
    const fd = this.#stack.openFound(found, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const left = statAt(fd, none)?.sizeBytes ?? 0;
      for (let done = 0; done < left; ) {
        const size = readSync(fd, this.#buffer, 0, Math.min(chunkBytes, left - done), done);
        if (size === 0) throw new SyscallError("read", "EIO", path);
        write(this.#buffer.subarray(0, size));
        done += size;
      }
    } finally {
      closeFd(fd);
    }
  }

  [Symbol.dispose](): void {
    this.#stack[Symbol.dispose]();
  }
}
