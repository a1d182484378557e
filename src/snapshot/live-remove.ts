import { constants } from "node:fs";
import type { ByteString } from "#base/byte-string.ts";
import { errnoOf, SyscallError } from "#base/errors.ts";
import {
  RESOLVE_BENEATH,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
  RESOLVE_NO_XDEV,
  tryOpenat2,
} from "#sys/beneath.ts";
import { S_IFDIR, statAt } from "#sys/file-status.ts";
import { closeFd, O_PATH, rmdirAt, unlinkAt } from "#sys/files.ts";
import { readDirectory } from "#sys/statfs.ts";

const directoryFlags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
/** Of the way down, the deepest directories are held open; those above are opened again when it comes to them. */
const heldMax = 64;
/** A container that makes names as fast as they are removed is not raced for ever. */
const roundsMax = 100;
/** Of one look-up: names are 255 bytes at most, a path 4,095. */
const lookupBytesMax = 3800;

/**
 * Removes a name and all below it in a tree that others change meanwhile (`removeTreeAt` is for trees that are ours alone):
 * it never goes up by `..`, which could lead out of a directory that was moved, and holds few descriptors whatever the
 * depth. Mount points give EBUSY. `pause` is called now and then, and may throw.
 */
export function removeLiveTree(dirFd: number, name: ByteString, pause: () => void = () => {}): void {
  for (let round = 0; round <= roundsMax; round += 1) {
    using removal = new Removal(dirFd, pause);
    if (removal.run(name)) return;
  }
  throw new SyscallError("unlinkat", "ENOTEMPTY", name);
}

/** A directory on the way down. */
interface Level {
  readonly name: ByteString;
  /** Names in it that are still to be removed. */
  readonly entries: ByteString[];
  /** How often it was found not to be empty, after all. */
  readonly round: number;
  /** Undefined while it is not held open. */
  fd: number | undefined;
}

class Removal implements Disposable {
  readonly #top: number;
  readonly #pause: () => void;
  readonly #levels: Level[] = [];
  /** All levels from this one on are held open. */
  #heldFrom = 0;

  constructor(top: number, pause: () => void) {
    this.#top = top;
    this.#pause = pause;
  }

  /** False when the way down has changed so that it cannot be found again: then it is to begin again from the top. */
  run(name: ByteString): boolean {
    this.#remove(this.#top, name, 0);
    for (let level = this.#levels.at(-1); level !== undefined; level = this.#levels.at(-1)) {
      this.#pause();
      const fd = this.#opened();
      if (fd === undefined) return false;
      const next = level.entries.pop();
      if (next !== undefined) {
        this.#remove(fd, next, 0);
        continue;
      }
      this.#levels.pop();
      closeFd(fd);
      const parent = this.#opened();
      if (parent === undefined) return false;
      if (!isGone(() => rmdirAt(parent, level.name))) this.#remove(parent, level.name, level.round + 1);
    }
    return true;
  }

  /** Unlinks a name, or goes down into the directory that it is. */
  #remove(parent: number, name: ByteString, from: number): void {
    for (let round = from; ; round += 1) {
      if (round > roundsMax) throw new SyscallError("unlinkat", "ENOTEMPTY", name);
      const stat = statAt(parent, name);
      if (stat === undefined) return;
      if (stat.type === S_IFDIR) {
        const fd = tryOpenat2(parent, name, directoryFlags, 0, RESOLVE_NO_XDEV);
        if (typeof fd === "number") {
          this.#push({ name, round, fd, entries: namesIn(fd) });
          return;
        }
        if (fd === "ENOENT") return;
        if (fd === "EXDEV") throw new SyscallError("unlinkat", "EBUSY", name);
        // A link or a file has taken the name.
        if (fd !== "ENOTDIR" && fd !== "ELOOP") throw new SyscallError("openat", fd, name);
      } else {
        // The kernel keeps a mount's place in the caller's namespace only: in a container's the mount would go with it.
        if (isMountPoint(parent, name)) throw new SyscallError("unlinkat", "EBUSY", name);
        if (isGone(() => unlinkAt(parent, name))) return;
      }
    }
  }

  #push(level: Level): void {
    this.#levels.push(level);
    if (this.#levels.length - this.#heldFrom <= heldMax) return;
    const highest = this.#levels[this.#heldFrom]!;
    closeFd(highest.fd!);
    highest.fd = undefined;
    this.#heldFrom += 1;
  }

  /** The descriptor of the deepest level; with it some of those above it are opened again. Undefined where they are gone. */
  #opened(): number | undefined {
    const last = this.#levels.at(-1);
    if (last === undefined) return this.#top;
    if (last.fd !== undefined) return last.fd;
    this.#heldFrom = Math.max(0, this.#levels.length - heldMax);
    let above = this.#lookUp(this.#heldFrom);
    if (above === undefined) return undefined;
    const from = this.#heldFrom > 0 ? above : undefined;
    try {
      for (const level of this.#levels.slice(this.#heldFrom)) {
        const fd = tryOpenat2(above, level.name, directoryFlags, 0, RESOLVE_NO_XDEV);
        if (typeof fd === "string") return undefined;
        level.fd = fd;
        above = fd;
      }
    } finally {
      if (from !== undefined) closeFd(from);
    }
    return last.fd;
  }

  /** The directory that lies `depth` levels down, opened; `#top` itself for 0. */
  #lookUp(depth: number): number | undefined {
    let fd: number | string = this.#top;
    for (let at = 0; at < depth; ) {
      let path = this.#levels[at]!.name as string;
      for (at += 1; at < depth && path.length < lookupBytesMax; at += 1) path += `/${this.#levels[at]!.name}`;
      const resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
      const next: number | string = tryOpenat2(fd, path, O_PATH | constants.O_DIRECTORY, 0, resolve);
      if (fd !== this.#top) closeFd(fd);
      if (typeof next === "string") return undefined;
      fd = next;
    }
    return fd;
  }

  [Symbol.dispose](): void {
    for (const { fd } of this.#levels) if (fd !== undefined) closeFd(fd);
  }
}

function namesIn(fd: number): ByteString[] {
  try {
    return readDirectory(fd).map(({ name }) => name as ByteString);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

function isMountPoint(dirFd: number, name: ByteString): boolean {
  const fd = tryOpenat2(dirFd, name, O_PATH | constants.O_NOFOLLOW, 0, RESOLVE_NO_XDEV);
  if (typeof fd === "number") closeFd(fd);
  return fd === "EXDEV";
}

/** False where the name has turned into something else meanwhile, or a directory is no longer empty. */
function isGone(remove: () => void): boolean {
  try {
    remove();
    return true;
  } catch (error) {
    const errno = errnoOf(error) ?? "";
    if (errno === "ENOENT") return true;
    if (!["ENOTEMPTY", "EISDIR", "ENOTDIR", "EEXIST"].includes(errno)) throw error;
    return false;
  }
}
