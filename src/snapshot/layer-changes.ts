import { constants } from "node:fs";
import { type ByteString, textOfBytes } from "#base/byte-string.ts";
import { EngineError } from "#base/errors.ts";
import { type FileStatus, S_IFDIR, statAt } from "#sys/file-status.ts";
import { closeFd, tryOpenNameAt } from "#sys/files.ts";
import { readDirectory } from "#sys/statfs.ts";
import { getXattrAt } from "#sys/xattr.ts";
import { joinPath } from "./archive-path.ts";
import { type Found, isOpaque, isWhiteout, type LayerStack } from "./layer-stack.ts";
import { isMountPoint } from "./mount-points.ts";
import type { Change } from "./snapshotter.ts";

const modified = 0;
const added = 1;
const deleted = 2;
/** As in tree-walk.ts: one descriptor a level. */
const depthMax = 1024;
const second = 1_000_000_000n;

/**
 * What a writable layer changed, with the rules of Docker's `archive.ChangesDirs`, which compares whole trees; here only
 * the upper directory is read, and looked up below. Sorted: a directory before its content, names in byte order (Docker's
 * own order within a directory is that of a Go map). A directory is listed when something in it is.
 */
export function layerChanges(upperFd: number, below: LayerStack): Change[] {
  return new ChangeFinder(below).run(upperFd);
}

class ChangeFinder {
  readonly #below: LayerStack;
  readonly #changes: Change[] = [];
  #depth = 0;

  constructor(below: LayerStack) {
    this.#below = below;
  }

  run(upperFd: number): Change[] {
    this.#directory(upperFd, "." as ByteString, "" as ByteString, true);
    return this.#changes;
  }

  #report(path: ByteString, kind: Change["kind"]): void {
    this.#changes.push({ path: `/${textOfBytes(path)}`, kind });
  }

  /** Reports what is in a directory of the upper layer. `merged`: it lies over a directory below. */
  #directory(parentFd: number, name: ByteString, path: ByteString, merged: boolean): void {
    const fd = tryOpenNameAt(parentFd, name, constants.O_RDONLY | constants.O_DIRECTORY);
    if (typeof fd === "string") return;
    this.#depth += 1;
    if (this.#depth > depthMax) {
      throw new EngineError("invalid", `directories are nested more than ${depthMax} deep`);
    }
    try {
      const names = new Set(readDirectory(fd).map((entry) => entry.name));
      // An opaque directory hides what is below without a whiteout for each name.
      const hidden = merged && path !== "" && isOpaque(parentFd, name) ? this.#below.list(path) : [];
      for (const other of [...new Set([...names, ...hidden])].sort()) {
        const child = joinPath(path, other);
        if (names.has(other)) this.#entry(fd, other as ByteString, child, merged);
        else this.#report(child, deleted);
      }
    } finally {
      this.#depth -= 1;
      closeFd(fd);
    }
  }

  #entry(dirFd: number, name: ByteString, path: ByteString, merged: boolean): void {
    const stat = statAt(dirFd, name);
    if (stat === undefined) return;
    const old = merged ? this.#below.find(path) : undefined;
    if (isWhiteout(stat)) {
      if (old !== undefined) this.#report(path, deleted);
      return;
    }
    const at = this.#changes.length;
    const kind = this.#kindOf(dirFd, name, path, stat, old);
    if (kind !== undefined) this.#report(path, kind);
    if (stat.type !== S_IFDIR) return;
    this.#directory(dirFd, name, path, old?.stat.type === S_IFDIR);
    if (kind === undefined && this.#changes.length > at) {
      this.#changes.splice(at, 0, { path: `/${textOfBytes(path)}`, kind: modified });
    }
  }

  #kindOf(
    dirFd: number,
    name: ByteString,
    path: ByteString,
    stat: FileStatus,
    old: Found | undefined,
  ): Change["kind"] | undefined {
    if (old === undefined) return isMountPoint(path, stat) ? undefined : added;
    return differs(stat, old.stat) || this.#capabilityDiffers(dirFd, name, stat, old) ? modified : undefined;
  }

  #capabilityDiffers(dirFd: number, name: ByteString, stat: FileStatus, old: Found): boolean {
    if (stat.type === S_IFDIR) return false;
    const capability = "security.capability";
    const now = getXattrAt(dirFd, name, capability)?.toString("hex");
    return now !== this.#below.xattr(old, capability)?.toString("hex");
  }
}

/** Docker's `statDifferent`: for directories neither size nor time count. */
function differs(now: FileStatus, old: FileStatus): boolean {
  if (now.type !== old.type || now.mode !== old.mode || now.uid !== old.uid || now.gid !== old.gid)
    return true;
  if (now.deviceMajor !== old.deviceMajor || now.deviceMinor !== old.deviceMinor) return true;
  if (now.type === S_IFDIR) return false;
  return now.sizeBytes !== old.sizeBytes || !sameTime(now.mtimeNs, old.mtimeNs);
}

/** A time without a fraction may have lost it in an archive of whole seconds. */
function sameTime(a: bigint, b: bigint): boolean {
  if (a === b) return true;
  return a / second === b / second && (a % second === 0n || b % second === 0n);
}
