import { constants } from "node:fs";
import type { ByteString } from "#base/byte-string.ts";
import { SyscallError } from "#base/errors.ts";
import {
  openRoot,
  RESOLVE_BENEATH,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
  tryOpenat2,
} from "#sys/beneath.ts";
import { type FileStatus, S_IFCHR, statAt } from "#sys/file-status.ts";
import { closeFd, O_PATH, readlinkAt } from "#sys/files.ts";
import { readDirectory } from "#sys/statfs.ts";
import { getXattrAt } from "#sys/xattr.ts";
import { baseOf, joinPath, parentOf } from "./archive-path.ts";

const strict = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
const none = "" as ByteString;
export const opaqueAttribute = "trusted.overlay.opaque";

export interface Found {
  /** Root of the layer that holds it. */
  readonly rootFd: number;
  readonly path: ByteString;
  readonly stat: FileStatus;
}

/** An overlay whiteout: a character device 0:0 (kernel, Documentation/filesystems/overlayfs.rst). */
export function isWhiteout(stat: FileStatus): boolean {
  return stat.type === S_IFCHR && stat.deviceMajor === 0 && stat.deviceMinor === 0;
}

/** Whether a directory hides what lies below it. */
export function isOpaque(dirFd: number, name: ByteString): boolean {
  return getXattrAt(dirFd, name, opaqueAttribute)?.toString() === "y";
}

/**
 * The merged view of finished layers without a mount: what the kernel would show at a path. Paths are taken name by
 * name, no symlink is followed, so a path must be canonical in the merged tree.
 */
export class LayerStack implements Disposable {
  readonly #roots: number[] = [];

  /** Directories of the layers, top first. */
  constructor(directories: readonly string[]) {
    try {
      for (const directory of directories) this.#roots.push(openRoot(directory));
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  get isEmpty(): boolean {
    return this.#roots.length === 0;
  }

  find(path: ByteString): Found | undefined {
    for (const rootFd of this.#roots) {
      const fd = tryOpenat2(rootFd, path, O_PATH | constants.O_NOFOLLOW, 0, strict);
      if (typeof fd === "number") {
        try {
          const stat = statAt(fd, none);
          return stat === undefined || isWhiteout(stat) ? undefined : { rootFd, path, stat };
        } finally {
          closeFd(fd);
        }
      }
      // Something that is no directory (a whiteout, a file, a link) stands where a parent would be: all below is hidden.
      if (fd === "ENOTDIR" || fd === "ELOOP") return undefined;
      if (fd !== "ENOENT") throw new SyscallError("openat2", fd, path);
      if (this.#hidesBelow(rootFd, path)) return undefined;
    }
    return undefined;
  }

  /** Names that the merged view has in a directory, unsorted. */
  list(path: ByteString): string[] {
    const names = new Set<string>();
    for (const rootFd of this.#roots) {
      const fd = tryOpenat2(rootFd, path, constants.O_RDONLY | constants.O_DIRECTORY, 0, strict);
      if (typeof fd === "number") {
        try {
          for (const entry of readDirectory(fd)) names.add(entry.name);
          if (isOpaque(fd, none)) break;
        } finally {
          closeFd(fd);
        }
      } else if (fd !== "ENOENT") break;
      if (this.#hidesBelow(rootFd, path)) break;
    }
    return [...names].filter((name) => this.find(joinPath(path, name)) !== undefined);
  }

  /** Value of an attribute of what was found. */
  xattr(found: Found, attribute: string): Buffer | undefined {
    const fd = this.openParent(found);
    try {
      return getXattrAt(fd, baseOf(found.path), attribute);
    } finally {
      closeFd(fd);
    }
  }

  /** Opens what was found, again without following a link. */
  openFound(found: Found, flags: number): number {
    const fd = tryOpenat2(found.rootFd, found.path, flags | constants.O_NOFOLLOW, 0, strict);
    if (typeof fd === "string") throw new SyscallError("openat2", fd, found.path);
    return fd;
  }

  /** Opens the directory that holds what was found. */
  openParent(found: Found): number {
    const fd = tryOpenat2(found.rootFd, parentOf(found.path), O_PATH | constants.O_DIRECTORY, 0, strict);
    if (typeof fd === "string") throw new SyscallError("openat2", fd, found.path);
    return fd;
  }

  /** Target of a found symlink. */
  readLink(found: Found): ByteString {
    const fd = this.openFound(found, O_PATH);
    try {
      return readlinkAt(fd, none);
    } finally {
      closeFd(fd);
    }
  }

  /** True when a parent that this layer has is opaque. */
  #hidesBelow(rootFd: number, path: ByteString): boolean {
    for (let parent = parentOf(path); parent !== ""; parent = parentOf(parent)) {
      const fd = tryOpenat2(rootFd, parent, O_PATH | constants.O_DIRECTORY, 0, strict);
      if (typeof fd === "string") continue;
      const opaque = isOpaque(fd, none);
      closeFd(fd);
      if (opaque) return true;
    }
    return false;
  }

  [Symbol.dispose](): void {
    for (const fd of this.#roots.splice(0)) closeFd(fd);
  }
}
