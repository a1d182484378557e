import { constants } from "node:fs";
import type { ByteString } from "#base/byte-string.ts";
import { textOfBytes } from "#base/byte-string.ts";
import { errnoOf, SyscallError } from "#base/errors.ts";
import { RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, tryOpenat2 } from "#sys/beneath.ts";
import { statAt } from "#sys/file-status.ts";
import { chmodFd, chownFd, closeFd, mkdirAt, O_PATH, openNameAt } from "#sys/files.ts";
import { isKernelFileSystem } from "#sys/kernel-file-systems.ts";
import { joinPath } from "./archive-path.ts";

const inRoot = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
const directory = O_PATH | constants.O_DIRECTORY;

/**
 * Directories below an extraction point in a root that others change meanwhile. Links on the way resolve inside the root, as
 * in Docker's chroot; mounts are crossed, but for the kernel's own file systems.
 */
export class LiveParents implements Disposable {
  readonly #rootFd: number;
  readonly #target: ByteString;
  readonly #checked = new Set<string>();
  #last: { readonly path: ByteString; readonly fd: number } | undefined;

  constructor(rootFd: number, target: ByteString) {
    this.#rootFd = rootFd;
    this.#target = target;
  }

  /** The open directory, made with those in front of it where they are missing. Valid until the next call. */
  make(path: ByteString): number {
    const last = this.#last;
    if (last?.path === path && this.#isThere(last.fd)) return last.fd;
    this.#forget();
    const fd = this.#open(path) ?? this.#makeAll(path);
    this.#last = { path, fd };
    return fd;
  }

  /** An open directory, the caller's to close, or undefined where it is missing. */
  find(path: ByteString): number | undefined {
    return this.#open(path);
  }

  /** A directory that was removed has no links any more: nothing can be made in it. */
  #isThere(fd: number): boolean {
    return (statAt(fd, "" as ByteString)?.linkCount ?? 0) > 0;
  }

  #open(path: ByteString): number | undefined {
    const full = joinPath(this.#target, path);
    const fd = tryOpenat2(this.#rootFd, full, directory, 0, inRoot);
    if (typeof fd === "string") {
      if (fd === "ENOENT") return undefined;
      throw new SyscallError("mkdir", fd, textOfBytes(`/${full}`));
    }
    try {
      this.#check(fd, full);
      return fd;
    } catch (error) {
      closeFd(fd);
      throw error;
    }
  }

  #check(fd: number, full: ByteString): void {
    if (this.isOfKernel(fd)) throw new SyscallError("open", "EPERM", textOfBytes(`/${full}`));
  }

  /** Whether an open directory lies on one of the kernel's own file systems, which nothing is to change. */
  isOfKernel(fd: number): boolean {
    const identity = statAt(fd, "" as ByteString)?.identity ?? "";
    const device = identity.slice(0, identity.lastIndexOf(":"));
    if (this.#checked.has(device)) return false;
    if (isKernelFileSystem(fd)) return true;
    this.#checked.add(device);
    return false;
  }

  #makeAll(path: ByteString): number {
    const names = path.split("/");
    let fd = this.#open("" as ByteString);
    if (fd === undefined) throw new SyscallError("mkdir", "ENOENT", textOfBytes(`/${this.#target}`));
    let walked = "" as ByteString;
    for (const name of names as ByteString[]) {
      walked = joinPath(walked, name);
      let next = this.#open(walked);
      try {
        next ??= this.#makeOne(fd, name);
      } finally {
        closeFd(fd);
      }
      fd = next;
    }
    return fd;
  }

  #makeOne(parentFd: number, name: ByteString): number {
    try {
      mkdirAt(parentFd, name, 0o755);
    } catch (error) {
      // A dangling symlink has the name, or the container was faster.
      if (errnoOf(error) !== "EEXIST") throw error;
    }
    const fd = openNameAt(parentFd, name, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      chownFd(fd, 0, 0);
      chmodFd(fd, 0o755);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
    return fd;
  }

  #forget(): void {
    if (this.#last !== undefined) closeFd(this.#last.fd);
    this.#last = undefined;
  }

  [Symbol.dispose](): void {
    this.#forget();
  }
}
