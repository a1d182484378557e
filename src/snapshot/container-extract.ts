import { chmodSync, constants, ftruncateSync, writeSync } from "node:fs";
import { posix } from "node:path";
import type { TarEntry } from "#archive/tar-format.ts";
import type { TarSink } from "#archive/tar-read.ts";
import type { ByteString } from "#base/byte-string.ts";
import { bytesOfText, textOfBytes } from "#base/byte-string.ts";
import { EngineError, errnoOf, SyscallError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, statAt } from "#sys/file-status.ts";
import {
  chmodFd,
  chownAt,
  chownFd,
  closeFd,
  linkAt,
  makeDevice,
  mkdirAt,
  mknodAt,
  O_PATH,
  openNameAt,
  setTimesAt,
  setTimesFd,
  symlinkAt,
  unlinkAt,
} from "#sys/files.ts";
import { setXattrFd } from "#sys/xattr.ts";
import { baseOf, cleanPath, joinPath, parentOf } from "./archive-path.ts";
import { showPath } from "./container-path.ts";
import { DirectoryFinish } from "./directory-finish.ts";
import { LiveParents } from "./live-parents.ts";
import { removeLiveTree } from "./live-remove.ts";
import { isOverlayAttribute } from "./parent-directories.ts";
import { isHole } from "./zero-holes.ts";

export interface ExtractOptions {
  /** Where it goes, in the root, without links: "" is the root. */
  readonly target: ByteString;
  /** Neither a directory nor what is none replaces the other. */
  readonly noOverwriteDirNonDir: boolean;
  /** Throws when the client is gone: a container may have nested directories without end. */
  readonly checkAborted: () => void;
  /** Everything gets this owner instead of the archive's. */
  readonly owner?: { readonly uid: number; readonly gid: number };
}

/** Go's names of the calls, which Docker's messages have. */
const goCalls: Readonly<Record<string, string>> = {
  openat: "open",
  mkdirat: "mkdir",
  symlinkat: "symlink",
  mknodat: "mknod",
  linkat: "link",
  fchownat: "lchown",
  fchown: "lchown",
  fchmod: "chmod",
  utimensat: "lchtimes",
  futimens: "chtimes",
};

const createFlags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
const empty = "" as ByteString;
const defaultAcl = "system.posix_acl_default";

/**
 * Entries of an archive into a directory of a container, which may run and change everything meanwhile. Each step works on
 * an open directory and one name in it, and what was made is changed by its own descriptor, so that nothing outside the
 * container's root is ever touched, whatever is swapped for whatever. Otherwise as Docker's `archive.Untar`.
 */
export class ContainerExtractor implements TarSink, Disposable {
  readonly #options: ExtractOptions;
  readonly #parents: LiveParents;
  readonly #finish = new DirectoryFinish();
  #entries = 0;
  #file:
    | { readonly fd: number; readonly entry: TarEntry; readonly path: ByteString; holes: boolean }
    | undefined;

  constructor(rootFd: number, options: ExtractOptions) {
    this.#options = options;
    this.#parents = new LiveParents(rootFd, options.target);
  }

  entry(entry: TarEntry): void {
    const path = this.#pathOf(entry);
    // The extraction point itself is left as it is.
    if (path === "") return;
    this.#entries += 1;
    if (this.#entries > limits.archiveEntriesMax) {
      throw new EngineError("invalid", "archive has too many entries", { code: "archive-limit" });
    }
    this.#named(path, () => this.#place(this.#owned(entry), path));
  }

  #pathOf(entry: TarEntry): ByteString {
    try {
      return cleanPath(entry.path);
    } catch (error) {
      if (!(error instanceof EngineError) || error.code !== "archive-breakout") throw error;
      throw failed(`${showPath(entry.path)} is outside of ${showPath(`/${this.#options.target}`)}`);
    }
  }

  /** As messages name it. */
  #full(path: ByteString): string {
    return `/${joinPath(this.#options.target, path)}`;
  }

  #owned(entry: TarEntry): TarEntry {
    const { owner } = this.#options;
    return owner === undefined ? entry : { ...entry, ...owner };
  }

  /** System calls know a name only: users are told the path. */
  #named<Result>(path: ByteString, act: () => Result): Result {
    try {
      return act();
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      const where = error.path?.startsWith("/") === true ? error.path : textOfBytes(this.#full(path));
      throw new SyscallError(goCalls[error.call] ?? error.call, error.errno, where);
    }
  }

  #place(entry: TarEntry, path: ByteString): void {
    const name = baseOf(path);
    const parentFd = this.#parents.make(parentOf(path));
    const isDirectory = this.#makeRoom(entry, path, parentFd, name);
    if (entry.type !== "directory") this.#finish.drop(path);
    switch (entry.type) {
      case "file":
        this.#file = {
          fd: openNameAt(parentFd, name, createFlags, 0o600),
          entry,
          path,
          holes: entry.sparse !== undefined,
        };
        break;
      case "directory":
        if (!isDirectory) mkdirAt(parentFd, name, 0o700);
        this.#directory(entry, path, parentFd, name);
        break;
      case "symlink":
        this.#checkLink("symlink", path, posix.join(posix.dirname(this.#full(path)), entry.linkPath), entry);
        symlinkAt(entry.linkPath, parentFd, name);
        chownAt(parentFd, name, entry.uid, entry.gid);
        setTimesAt(parentFd, name, entry.mtimeNs, entry.mtimeNs);
        break;
      case "link":
        this.#hardlink(entry, path, parentFd, name);
        break;
      default:
        this.#special(entry, parentFd, name);
    }
  }

  /** What has the name goes, unless it is a directory and is to be one. Gives whether a directory is there. */
  #makeRoom(entry: TarEntry, path: ByteString, parentFd: number, name: ByteString): boolean {
    const old = statAt(parentFd, name);
    if (old === undefined) return false;
    const wasDirectory = old.type === S_IFDIR;
    const isDirectory = entry.type === "directory";
    if (this.#options.noOverwriteDirNonDir && wasDirectory !== isDirectory) {
      const [before, after] = wasDirectory ? ["directory", "non-directory"] : ["non-directory", "directory"];
      const target = showPath(`/${this.#options.target}`);
      throw failed(`cannot overwrite ${before} ${showPath(this.#full(path))} with ${after} ${target}`);
    }
    if (wasDirectory && isDirectory) return true;
    removeLiveTree(parentFd, name, this.#options.checkAborted);
    if (wasDirectory) this.#finish.dropBelow(path);
    return false;
  }

  #directory(entry: TarEntry, path: ByteString, parentFd: number, name: ByteString): void {
    const fd = openNameAt(parentFd, name, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      // `proc` and `sys` of another container's export: the mounts here stay as the runtime made them.
      if (this.#parents.isOfKernel(fd)) return;
      chownFd(fd, entry.uid, entry.gid);
      this.#setXattrs(entry, fd);
      chmodFd(fd, entry.mode);
    } finally {
      closeFd(fd);
    }
    const acl = entry.xattrs?.get(defaultAcl);
    this.#finish.set(path, { mtimeNs: entry.mtimeNs, ...(acl === undefined ? {} : { defaultAcl: acl }) });
  }

  #special(entry: TarEntry, parentFd: number, name: ByteString): void {
    const kind = entry.type === "char" ? S_IFCHR : entry.type === "block" ? S_IFBLK : S_IFIFO;
    const device = makeDevice(entry.deviceMajor, entry.deviceMinor);
    mknodAt(parentFd, name, kind | 0o600, kind === S_IFIFO ? 0n : device);
    chownAt(parentFd, name, entry.uid, entry.gid);
    // Nothing is opened but the name's place, and only what is still such a file gets the mode.
    const fd = openNameAt(parentFd, name, O_PATH);
    try {
      if (statAt(fd, empty)?.type === kind) chmodSync(`/proc/self/fd/${fd}`, entry.mode);
    } finally {
      closeFd(fd);
    }
    setTimesAt(parentFd, name, entry.mtimeNs, entry.mtimeNs);
  }

  /** Docker's rule, by name alone: a link's target lies below the extraction point. */
  #checkLink(kind: "symlink" | "hardlink", path: ByteString, target: string, entry: TarEntry): void {
    const root = `/${this.#options.target}`;
    if (root === "/" || target === root || target.startsWith(`${root}/`)) return;
    const shown = kind === "symlink" ? this.#full(path) : target;
    throw failed(`invalid ${kind} ${showPath(shown)} -> ${showPath(entry.linkPath)}`);
  }

  #hardlink(entry: TarEntry, path: ByteString, parentFd: number, name: ByteString): void {
    const root = `/${this.#options.target}`;
    const full = posix.join(root, entry.linkPath) as ByteString;
    this.#checkLink("hardlink", path, full, entry);
    const target = (root === "/" ? full.slice(1) : full.slice(root.length + 1)) as ByteString;
    const missing = (errno: string): SyscallError =>
      new SyscallError("link", errno, textOfBytes(`${full} ${this.#full(path)}`));
    const targetFd = this.#parents.find(parentOf(target));
    if (targetFd === undefined) throw missing("ENOENT");
    try {
      linkAt(targetFd, baseOf(target), parentFd, name);
    } catch (error) {
      throw missing(errnoOf(error) ?? "EIO");
    } finally {
      closeFd(targetFd);
    }
  }

  #setXattrs(entry: TarEntry, fd: number): void {
    for (const [attribute, value] of entry.xattrs ?? []) {
      if (isOverlayAttribute(attribute) || attribute === defaultAcl) continue;
      try {
        setXattrFd(fd, attribute, value);
      } catch (error) {
        // Docker's rule: what the file system or the kind of file cannot hold is left out.
        const errno = errnoOf(error);
        if (errno !== "EOPNOTSUPP" && errno !== "ENOTSUP" && errno !== "EPERM") throw error;
      }
    }
  }

  data(chunk: Uint8Array, offset: number): void {
    const file = this.#file;
    if (file === undefined) return;
    if (isHole(chunk)) {
      file.holes = true;
      return;
    }
    this.#named(file.path, () => {
      for (let at = 0; at < chunk.length; ) {
        try {
          at += writeSync(file.fd, chunk, at, chunk.length - at, offset + at);
        } catch (error) {
          throw new SyscallError("write", errnoOf(error) ?? "EIO");
        }
      }
    });
  }

  end(): void {
    const file = this.#file;
    if (file === undefined) return;
    const { fd, entry, path, holes } = file;
    this.#named(path, () => {
      if (holes) ftruncateSync(fd, entry.sizeBytes);
      // Owner first: it clears setuid bits and file capabilities. Times last: writes change them.
      chownFd(fd, entry.uid, entry.gid);
      this.#setXattrs(entry, fd);
      chmodFd(fd, entry.mode);
      setTimesFd(fd, entry.mtimeNs, entry.mtimeNs);
    });
    this.#file = undefined;
    closeFd(fd);
  }

  /** After the last entry: what new names in directories would have changed. */
  complete(): void {
    const opened: number[] = [];
    try {
      this.#finish.apply((path) => {
        const fd = this.#parents.find(path);
        if (fd !== undefined) opened.push(fd);
        // One is used at a time: the one before is done with.
        if (opened.length > 1) closeFd(opened.shift() as number);
        return fd;
      });
    } finally {
      for (const fd of opened) closeFd(fd);
    }
  }

  /** A file that is not whole does not stay. */
  [Symbol.dispose](): void {
    const file = this.#file;
    this.#file = undefined;
    if (file !== undefined) {
      const made = statAt(file.fd, empty)?.identity;
      closeFd(file.fd);
      try {
        const parentFd = this.#parents.make(parentOf(file.path));
        const name = baseOf(file.path);
        if (statAt(parentFd, name)?.identity === made) unlinkAt(parentFd, name);
      } catch (error) {
        if (!(error instanceof EngineError)) throw error;
      }
    }
    this.#parents[Symbol.dispose]();
  }
}

/** Docker answers 500 to whatever goes wrong while it unpacks. */
function failed(message: string): EngineError {
  return new EngineError("system", message, { code: "extract" });
}

/** Which mount of a container a canonical path lies in, for Docker's words about read-only ones. */
export function checkWritable(
  canonical: ByteString,
  mounts: readonly { readonly destination: string; readonly readOnly: boolean }[],
  readonlyRoot: boolean,
): void {
  const path = `/${canonical}`;
  let holding: { readonly destination: string; readonly readOnly: boolean } | undefined;
  for (const mount of mounts) {
    const destination = bytesOfText(posix.normalize(mount.destination).replace(/(?<=.)\/$/, ""));
    if (path !== destination && !path.startsWith(`${destination}/`)) continue;
    if (holding === undefined || holding.destination.length < mount.destination.length) holding = mount;
  }
  if (holding?.readOnly === true) throw failed("mounted volume is marked read-only");
  if (holding === undefined && readonlyRoot) throw failed("container rootfs is marked read-only");
}
