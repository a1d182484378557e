import { constants, readlinkSync } from "node:fs";
import type { ByteString } from "#base/byte-string.ts";
import { textOfBytes } from "#base/byte-string.ts";
import { EngineError, SyscallError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import {
  RESOLVE_BENEATH,
  RESOLVE_IN_ROOT,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
  RESOLVE_NO_XDEV,
  tryOpenat2,
} from "#sys/beneath.ts";
import { S_IFDIR, S_IFLNK, statAt } from "#sys/file-status.ts";
import { chmodAt, chownAt, closeFd, mkdirAt, O_PATH, openNameAt, readlinkAt, unlinkAt } from "#sys/files.ts";
import { getXattrAt, listXattrAt, setXattrAt } from "#sys/xattr.ts";
import { parentOf } from "./archive-path.ts";
import { type Found, isOpaque, isWhiteout, type LayerStack, opaqueAttribute } from "./layer-stack.ts";

const inRoot = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
const strict = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
const directory = O_PATH | constants.O_DIRECTORY;

/** Open parents kept at a time: enough for the locality of archives, far below `ulimit -n` even with four workers. */
const cachedMax = 256;
/** The kernel's own bound on symlinks in one resolution. */
const linkHopsMax = 40;
/** Names in one resolution: as many as the kernel would take through that many links. */
const stepsMax = linkHopsMax * (limits.archivePathBytesMax / 2);

/** The layer cannot be applied on its own: it needs what the layers below say (snapshotter.ts, invariant 2). */
export class DependsOnBelow extends EngineError {
  constructor(path: ByteString) {
    super("conflict", `${JSON.stringify(textOfBytes(path))} depends on the layers below`, {
      code: "depends-on-below",
    });
  }
}

/** Attributes that an archive may not set and a copy does not take: the overlay driver's own. */
export function isOverlayAttribute(attribute: string): boolean {
  return attribute.startsWith("trusted.overlay.") || attribute.startsWith("user.overlay.");
}

/**
 * Descriptors of the directories that entries go into. Symlinks on the way resolve inside the root, as in Docker's chroot.
 * A directory that no entry made is an *implied* one: without the layers below it throws `DependsOnBelow`; with them it
 * takes its mode, owner and attributes from there.
 */
export class ParentDirectories implements Disposable {
  readonly #rootFd: number;
  readonly #below: LayerStack | undefined;
  readonly #onImplied: (path: ByteString, mtimeNs: bigint | undefined) => void;
  readonly #open = new Map<ByteString, number>();
  #lastPath: ByteString = "" as ByteString;
  #lastFd: number;

  constructor(
    rootFd: number,
    below: LayerStack | undefined,
    onImplied: (path: ByteString, mtimeNs: bigint | undefined) => void,
  ) {
    this.#rootFd = rootFd;
    this.#lastFd = rootFd;
    this.#below = below;
    this.#onImplied = onImplied;
  }

  /** Valid until the next but one call, or `forget`. */
  fdOf(path: ByteString): number {
    if (path === this.#lastPath) return this.#lastFd;
    if (path === "") return this.#rootFd;
    let fd = this.#open.get(path);
    if (fd !== undefined) this.#open.delete(path);
    else fd = this.#resolve(path);
    this.#remember(path, fd);
    return fd;
  }

  /** As `fdOf`, or undefined where the directory is missing: makes nothing. */
  find(path: ByteString): number | undefined {
    if (path === "") return this.#rootFd;
    const known = this.#open.get(path);
    if (known !== undefined) return known;
    const fd = tryOpenat2(this.#rootFd, path, directory, 0, inRoot);
    if (typeof fd === "string") {
      if (fd === "ENOENT" || fd === "ENOTDIR") return undefined;
      throw new SyscallError("openat2", fd, textOfBytes(path));
    }
    this.#remember(path, fd);
    return fd;
  }

  /** Where a directory really lies in the layer, with no symlink in it. */
  canonicalOf(path: ByteString): ByteString {
    const root = readlinkSync(`/proc/self/fd/${this.#rootFd}`, "latin1");
    const full = readlinkSync(`/proc/self/fd/${this.fdOf(path)}`, "latin1");
    return full.slice(root.length + 1) as ByteString;
  }

  #remember(path: ByteString, fd: number): void {
    this.#open.set(path, fd);
    this.#lastPath = path;
    this.#lastFd = fd;
    if (this.#open.size <= cachedMax) return;
    for (const [oldest, oldFd] of this.#open) {
      this.#open.delete(oldest);
      closeFd(oldFd);
      return;
    }
  }

  /** A directory or symlink was removed: what was resolved through it is no longer true. */
  forget(): void {
    for (const fd of this.#open.values()) closeFd(fd);
    this.#open.clear();
    this.#lastPath = "" as ByteString;
    this.#lastFd = this.#rootFd;
  }

  #resolve(path: ByteString): number {
    const fd = tryOpenat2(this.#rootFd, path, directory, 0, inRoot);
    if (typeof fd === "number") return fd;
    // ENOTDIR may be a whiteout that an entry below now replaces.
    if (fd !== "ENOENT" && fd !== "ENOTDIR") throw new SyscallError("openat2", fd, textOfBytes(path));
    if (this.#below === undefined && fd === "ENOENT") throw new DependsOnBelow(path);
    return this.#makeImplied(path);
  }

  /**
   * Walks the merged view name by name, making what only the layers below have; gives the open directory. It goes down by
   * descriptor, so that a step costs the same at any depth; only `..` and absolute links resolve a path again.
   */
  #makeImplied(path: ByteString): number {
    const left = path.split("/").reverse();
    const names: ByteString[] = [];
    let hops = 0;
    let steps = 0;
    let fd = this.#reopen(names);
    try {
      while (left.length > 0) {
        const name = left.pop() as ByteString;
        steps += 1;
        if (name === "" || name === ".") continue;
        if (name === "..") {
          names.pop();
          fd = this.#move(fd, this.#reopen(names));
          continue;
        }
        const target = this.#enter(fd, names, name);
        if (target === undefined) {
          names.push(name);
          fd = this.#move(fd, openNameAt(fd, name, directory));
          continue;
        }
        hops += 1;
        if (hops > linkHopsMax || steps > stepsMax)
          throw new SyscallError("openat2", "ELOOP", textOfBytes(path));
        if (target.startsWith("/")) {
          names.length = 0;
          fd = this.#move(fd, this.#reopen(names));
        }
        left.push(...target.split("/").reverse());
      }
      return fd;
    } catch (error) {
      closeFd(fd);
      throw error;
    }
  }

  #move(from: number, to: number): number {
    closeFd(from);
    return to;
  }

  #reopen(names: readonly ByteString[]): number {
    const fd = tryOpenat2(this.#rootFd, names.join("/"), directory, 0, strict);
    if (typeof fd === "string") throw new SyscallError("openat2", fd, textOfBytes(names.join("/")));
    return fd;
  }

  /** Makes sure that a name is a directory of this layer, or gives the target of the symlink it is. */
  #enter(parentFd: number, parent: readonly ByteString[], name: ByteString): ByteString | undefined {
    const own = statAt(parentFd, name);
    if (own?.type === S_IFDIR) return undefined;
    if (own?.type === S_IFLNK) return readlinkAt(parentFd, name);
    const path = [...parent, name].join("/") as ByteString;
    if (own !== undefined) {
      if (!isWhiteout(own)) throw new SyscallError("mkdir", "ENOTDIR", textOfBytes(path));
      unlinkAt(parentFd, name);
      this.#makeDirectory(parentFd, name, path, undefined);
      setXattrAt(parentFd, name, opaqueAttribute, Buffer.from("y"));
      return undefined;
    }
    if (this.#below === undefined) throw new DependsOnBelow(path);
    const found = this.#ownHides(parentOf(path)) ? undefined : this.#below.find(path);
    if (found?.stat.type === S_IFLNK) return this.#below.readLink(found);
    this.#makeDirectory(parentFd, name, path, found?.stat.type === S_IFDIR ? found : undefined);
    return undefined;
  }

  /** Whether this layer itself hides what lies below a directory. */
  #ownHides(path: ByteString): boolean {
    if (this.#below?.isEmpty === true) return false;
    for (let at = path; at !== ""; at = parentOf(at)) {
      const fd = tryOpenat2(this.#rootFd, at, directory, 0, strict);
      if (typeof fd === "string") continue;
      const opaque = isOpaque(fd, "" as ByteString);
      closeFd(fd);
      if (opaque) return true;
    }
    return false;
  }

  #makeDirectory(parentFd: number, name: ByteString, path: ByteString, like: Found | undefined): void {
    mkdirAt(parentFd, name, 0o700);
    chownAt(parentFd, name, like?.stat.uid ?? 0, like?.stat.gid ?? 0);
    chmodAt(parentFd, name, like?.stat.mode ?? 0o755);
    this.#onImplied(path, like?.stat.mtimeNs);
    if (like === undefined || this.#below === undefined) return;
    const likeFd = this.#below.openFound(like, O_PATH);
    try {
      copyAttributes(likeFd, "" as ByteString, parentFd, name);
    } finally {
      closeFd(likeFd);
    }
  }

  [Symbol.dispose](): void {
    this.forget();
  }
}

/** Copies all attributes but the overlay driver's own from one name to another. */
export function copyAttributes(fromFd: number, fromName: ByteString, toFd: number, toName: ByteString): void {
  for (const attribute of listXattrAt(fromFd, fromName)) {
    if (isOverlayAttribute(attribute)) continue;
    const value = getXattrAt(fromFd, fromName, attribute);
    if (value !== undefined) setXattrAt(toFd, toName, attribute, value);
  }
}
