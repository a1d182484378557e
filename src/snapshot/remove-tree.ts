import { constants } from "node:fs";
import type { ByteString } from "#base/byte-string.ts";
import { errnoOf } from "#base/errors.ts";
import { closeFd, openNameAt, rmdirAt, unlinkAt } from "#sys/files.ts";
import { directoryEntryTypes, readDirectory } from "#sys/statfs.ts";

const directoryFlags = constants.O_RDONLY | constants.O_DIRECTORY;

/**
 * Removes a name and all below it; missing is fine. Holds one descriptor whatever the depth, recurses nowhere, follows no
 * link: a hostile layer can be nested far beyond PATH_MAX. The tree must be ours alone (nobody moves parts of it about).
 */
export function removeTreeAt(dirFd: number, name: ByteString): void {
  try {
    unlinkAt(dirFd, name);
    return;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return;
    if (errnoOf(error) !== "EISDIR") throw error;
  }
  // Names of the directories from the top to the current one, and what is left to do in each.
  const names: ByteString[] = [];
  const pending: ByteString[][] = [];
  let current = openNameAt(dirFd, name, directoryFlags);
  try {
    names.push(name);
    pending.push(removeFiles(current));
    for (;;) {
      const next = pending.at(-1)?.pop();
      if (next !== undefined) {
        const child = openNameAt(current, next, directoryFlags);
        closeFd(current);
        current = child;
        names.push(next);
        pending.push(removeFiles(current));
        continue;
      }
      const done = names.pop() as ByteString;
      pending.pop();
      if (names.length === 0) {
        rmdirAt(dirFd, done);
        return;
      }
      const parent = openNameAt(current, ".." as ByteString, directoryFlags);
      closeFd(current);
      current = parent;
      rmdirAt(current, done);
    }
  } finally {
    closeFd(current);
  }
}

/** Unlinks all but directories and gives the directories' names. */
function removeFiles(fd: number): ByteString[] {
  const directories: ByteString[] = [];
  for (const { name, type } of readDirectory(fd)) {
    if (type === directoryEntryTypes.directory) {
      directories.push(name as ByteString);
      continue;
    }
    try {
      unlinkAt(fd, name as ByteString);
    } catch (error) {
      if (errnoOf(error) !== "EISDIR") throw error;
      directories.push(name as ByteString);
    }
  }
  return directories;
}
