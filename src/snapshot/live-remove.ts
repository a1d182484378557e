import { constants } from "node:fs";
import type { ByteString } from "#base/byte-string.ts";
import { EngineError, errnoOf, SyscallError } from "#base/errors.ts";
import { RESOLVE_NO_XDEV, tryOpenat2 } from "#sys/beneath.ts";
import { S_IFDIR, statAt } from "#sys/file-status.ts";
import { closeFd, O_PATH, rmdirAt, tryOpenNameAt, unlinkAt } from "#sys/files.ts";
import { readDirectory } from "#sys/statfs.ts";

const directoryFlags = constants.O_RDONLY | constants.O_DIRECTORY;
/** One descriptor a level is held; nothing real is nested this deep. */
const depthMax = 1024;
/** A container that makes names as fast as they are removed is not raced for ever. */
const roundsMax = 100;

/**
 * Removes a name and all below it in a tree that others change meanwhile (`removeTreeAt` is for trees that are ours alone):
 * it never goes up by `..`, which could lead out of a directory that was moved. Mount points give EBUSY.
 */
export function removeLiveTree(dirFd: number, name: ByteString, depth = 0): void {
  if (depth >= depthMax) {
    throw new EngineError("invalid", `directories are nested more than ${depthMax} deep`);
  }
  for (let round = 0; ; round += 1) {
    const stat = statAt(dirFd, name);
    if (stat === undefined) return;
    // The kernel keeps a mount's place in the caller's namespace only: in a container's the mount would go with it.
    if (isMountPoint(dirFd, name)) throw new SyscallError("unlinkat", "EBUSY", name);
    try {
      if (stat.type !== S_IFDIR) {
        unlinkAt(dirFd, name);
        return;
      }
      empty(dirFd, name, depth);
      rmdirAt(dirFd, name);
      return;
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === "ENOENT") return;
      const changed =
        errno === "ENOTEMPTY" || errno === "EISDIR" || errno === "ENOTDIR" || errno === "EEXIST";
      if (!changed || round >= roundsMax) throw error;
    }
  }
}

function isMountPoint(dirFd: number, name: ByteString): boolean {
  const fd = tryOpenat2(dirFd, name, O_PATH | constants.O_NOFOLLOW, 0, RESOLVE_NO_XDEV);
  if (typeof fd === "number") closeFd(fd);
  return fd === "EXDEV";
}

function empty(dirFd: number, name: ByteString, depth: number): void {
  const fd = tryOpenNameAt(dirFd, name, directoryFlags);
  // Something else by now: the caller looks again.
  if (typeof fd === "string") return;
  try {
    for (const entry of readDirectory(fd)) removeLiveTree(fd, entry.name as ByteString, depth + 1);
  } finally {
    closeFd(fd);
  }
}
