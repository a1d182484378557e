import { constants } from "node:fs";
import type { ByteString } from "#base/byte-string.ts";
import { EngineError, SyscallError } from "#base/errors.ts";
import { S_IFDIR, statAt } from "#sys/file-status.ts";
import { closeFd, tryOpenNameAt } from "#sys/files.ts";
import { readDirectory } from "#sys/statfs.ts";
import { joinPath } from "./archive-path.ts";
import { isOpaque, isWhiteout } from "./layer-stack.ts";
import type { Visited } from "./tree-walk.ts";

const directoryFlags = constants.O_RDONLY | constants.O_DIRECTORY;
const none = "" as ByteString;
/**
 * One descriptor a level and layer is held, since the top layer may be a running container's, which can move directories
 * about. Twenty layers that all have directories two hundred deep stay below it; more would starve the daemon.
 */
const descriptorsMax = 4096;

interface Level {
  /** The layers' directories of this path, top first. */
  readonly fds: readonly number[];
  /** The first of `fds` is the top layer's. */
  readonly hasTop: boolean;
  readonly path: ByteString;
  /** Name, and the first of `fds` that has it; in byte order. */
  readonly names: readonly (readonly [ByteString, number])[];
  next: number;
}

export interface VisitedMerged extends Visited {
  /** It is the top layer's. */
  readonly isTop: boolean;
}

/**
 * Visits what overlayfs would show of a stack of layers, without a mount: each directory before its content, names in
 * byte order; whiteouts hide, opaque directories cut off. `rootFds` are the layers' directories, top first, and stay the
 * caller's. What vanishes meanwhile is left out; no symlink is followed (kernel, Documentation/filesystems/overlayfs.rst).
 */
export function walkMerged(rootFds: readonly number[], visit: (visited: VisitedMerged) => void): void {
  const levels: Level[] = [];
  let open = 0;
  const enter = (parents: readonly number[], withTop: boolean, name: ByteString, path: ByteString): void => {
    const { fds, hasFirst } = openDirectories(parents, name);
    const hasTop = withTop && hasFirst;
    open += fds.length;
    levels.push({ fds, hasTop, path, names: [], next: 0 });
    if (open > descriptorsMax) throw new EngineError("invalid", "directories are nested too deep");
    levels[levels.length - 1] = { fds, hasTop, path, names: namesOf(fds), next: 0 };
  };
  try {
    enter(rootFds, true, "." as ByteString, none);
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const found = level.names[level.next];
      level.next += 1;
      if (found === undefined) {
        for (const fd of level.fds) closeFd(fd);
        open -= level.fds.length;
        levels.pop();
        continue;
      }
      const [name, first] = found;
      const dirFd = level.fds[first]!;
      const stat = statAt(dirFd, name);
      if (stat === undefined || isWhiteout(stat)) continue;
      const path = joinPath(level.path, name);
      const isTop = first === 0 && level.hasTop;
      visit({ dirFd, name, path, stat, isTop });
      if (stat.type === S_IFDIR) enter(level.fds.slice(first), isTop, name, path);
    }
  } finally {
    for (const level of levels) for (const fd of level.fds) closeFd(fd);
  }
}

/**
 * The directories that are merged under a name: down to an opaque one, or to something that is no directory. `hasFirst`: the
 * first of the parents has one.
 */
function openDirectories(
  parents: readonly number[],
  name: ByteString,
): { readonly fds: number[]; readonly hasFirst: boolean } {
  const fds: number[] = [];
  let hasFirst = false;
  for (const [index, parent] of parents.entries()) {
    const fd = tryOpenNameAt(parent, name, directoryFlags);
    if (typeof fd === "number") {
      if (index === 0) hasFirst = true;
      fds.push(fd);
      if (isOpaque(fd, none)) break;
    } else if (fd === "ENOTDIR" || fd === "ELOOP") break;
    else if (fd !== "ENOENT") {
      for (const opened of fds) closeFd(opened);
      throw new SyscallError("openat", fd, name);
    }
  }
  return { fds, hasFirst };
}

function namesOf(fds: readonly number[]): (readonly [ByteString, number])[] {
  const names = new Map<ByteString, number>();
  for (const [index, fd] of fds.entries()) {
    for (const entry of readDirectory(fd)) {
      const name = entry.name as ByteString;
      if (!names.has(name)) names.set(name, index);
    }
  }
  return [...names].sort(([left], [right]) => (left < right ? -1 : 1));
}
