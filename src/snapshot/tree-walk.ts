import { constants } from "node:fs";
import type { ByteString } from "#base/byte-string.ts";
import { EngineError } from "#base/errors.ts";
import { type FileStatus, S_IFDIR, S_IFLNK, S_IFREG, statAt } from "#sys/file-status.ts";
import { closeFd, openNameAt, tryOpenNameAt } from "#sys/files.ts";
import { readDirectory } from "#sys/statfs.ts";
import { joinPath } from "./archive-path.ts";

export interface Visited {
  /** Open directory that holds the name; valid during the visit. */
  readonly dirFd: number;
  readonly name: ByteString;
  /** From the root of the walk, without a leading slash. */
  readonly path: ByteString;
  readonly stat: FileStatus;
}

const directoryFlags = constants.O_RDONLY | constants.O_DIRECTORY;
/**
 * One descriptor a level is held: the tree may be a running container's, which can move directories about, so going up by
 * `..` could leave the root. Nothing real is nested this deep.
 */
const depthMax = 1024;

/**
 * Visits every name below a directory, each directory before its content, names in byte order. What vanishes meanwhile is
 * left out; no symlink is followed. A visitor that gives `false` for a directory skips its content, `stop` ends the walk.
 */
export function walkTree(rootFd: number, visit: (visited: Visited) => boolean | "stop" | undefined): void {
  interface Level {
    readonly fd: number;
    readonly path: ByteString;
    readonly names: string[];
    next: number;
  }
  const levels: Level[] = [];
  const enter = (parentFd: number, name: ByteString, path: ByteString): void => {
    if (levels.length >= depthMax) {
      throw new EngineError("invalid", `directories are nested more than ${depthMax} deep`);
    }
    const fd = tryOpenNameAt(parentFd, name, directoryFlags);
    if (typeof fd === "string") {
      if (fd === "ENOENT" || fd === "ENOTDIR" || fd === "ELOOP") return;
      openNameAt(parentFd, name, directoryFlags);
      return;
    }
    levels.push({ fd, path, names: [], next: 0 });
    const names = readDirectory(fd).map((entry) => entry.name);
    levels.at(-1)?.names.push(...names.sort());
  };
  try {
    enter(rootFd, "." as ByteString, "" as ByteString);
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const name = level.names[level.next] as ByteString | undefined;
      level.next += 1;
      if (name === undefined) {
        closeFd(level.fd);
        levels.pop();
        continue;
      }
      const stat = statAt(level.fd, name);
      if (stat === undefined) continue;
      const path = joinPath(level.path, name);
      const wanted = visit({ dirFd: level.fd, name, path, stat });
      if (wanted === "stop") return;
      if (stat.type === S_IFDIR && wanted !== false) enter(level.fd, name, path);
    }
  } finally {
    for (const level of levels) closeFd(level.fd);
  }
}

/** Docker's size of a tree: regular files and symlink targets, each inode once; directories count nothing. */
export function treeSizeBytes(rootFd: number): number {
  const seen = new Set<string>();
  let sum = 0;
  walkTree(rootFd, ({ stat }) => {
    const counts = stat.type === S_IFREG || stat.type === S_IFLNK;
    if (!counts || seen.has(stat.identity)) return undefined;
    if (stat.linkCount > 1) seen.add(stat.identity);
    sum += stat.sizeBytes;
    return undefined;
  });
  return sum;
}
