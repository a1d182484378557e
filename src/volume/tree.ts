/**
 * Work on a volume's tree, which containers may be changing and have filled as they like: everything goes by directory
 * descriptors and single names, no link is followed, nothing recurses. For the volume worker: all of it blocks.
 */
import { chmodSync, constants, copyFileSync } from "node:fs";
import { type ByteString, bytesOfText } from "#base/byte-string.ts";
import { errnoOf } from "#base/errors.ts";
import { openBytesBeneath, RESOLVE_NO_SYMLINKS } from "#sys/beneath.ts";
import { type FileStatus, S_IFDIR, S_IFLNK, S_IFREG, S_IFSOCK, statAt } from "#sys/file-status.ts";
import {
  chmodFd,
  chownAt,
  chownFd,
  chownPathFd,
  closeFd,
  linkAt,
  makeDevice,
  mkdirAt,
  mknodAt,
  O_PATH,
  openNameAt,
  readlinkAt,
  rmdirAt,
  setTimesAt,
  setTimesFd,
  symlinkAt,
  tryOpenNameAt,
  unlinkAt,
} from "#sys/files.ts";
import { readDirectory } from "#sys/statfs.ts";
import { getXattrAt, listXattrAt, setXattrAt } from "#sys/xattr.ts";

const directoryFlags = constants.O_RDONLY | constants.O_DIRECTORY;
/** AT_FDCWD: paths given to it are absolute. */
const currentDirectory = -100;
const nothing = "" as ByteString;
const here = "." as ByteString;
const above = ".." as ByteString;
/** One descriptor a level is held while copying and counting; nothing real is nested this deep. */
const depthMax = 1024;

interface Level<Context> {
  readonly fd: number;
  readonly names: string[];
  readonly stat: FileStatus;
  readonly context: Context;
}

interface Visitor<Context> {
  /** For each name; the context for what is below, where it is a directory to be entered. */
  visit(fd: number, name: ByteString, stat: FileStatus, context: Context): Context | undefined;
  /** After everything below a directory. */
  leave?(context: Context, stat: FileStatus): void;
}

/** Depth first, each directory before its content. What vanishes meanwhile is left out. Takes `rootFd` over. */
function walk<Context>(rootFd: number, root: Context, visitor: Visitor<Context>): void {
  const levels: Level<Context>[] = [];
  const enter = (fd: number, stat: FileStatus, context: Context): void => {
    levels.push({ fd, stat, context, names: readDirectory(fd).map(({ name }) => name) });
  };
  try {
    enter(rootFd, statAt(rootFd, nothing)!, root);
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const name = level.names.pop() as ByteString | undefined;
      if (name === undefined) {
        levels.pop();
        closeFd(level.fd);
        visitor.leave?.(level.context, level.stat);
        continue;
      }
      const stat = statAt(level.fd, name);
      if (stat === undefined) continue;
      const context = visitor.visit(level.fd, name, stat, level.context);
      if (context === undefined || levels.length >= depthMax) continue;
      const child = tryOpenNameAt(level.fd, name, directoryFlags);
      if (typeof child === "number") enter(child, stat, context);
    }
  } finally {
    for (const { fd } of levels) closeFd(fd);
  }
}

/** Docker's size of a tree: regular files and links, an inode once; directories count nothing. */
export function treeBytes(path: string): number {
  const seen = new Set<string>();
  let bytes = 0;
  walk(openNameAt(currentDirectory, bytesOfText(path), directoryFlags), true, {
    visit: (_fd, _name, stat) => {
      if (stat.type === S_IFDIR) return true;
      if (stat.type !== S_IFREG && stat.type !== S_IFLNK) return undefined;
      if (stat.linkCount > 1 && seen.has(stat.identity)) return undefined;
      if (stat.linkCount > 1) seen.add(stat.identity);
      bytes += stat.sizeBytes;
      return undefined;
    },
  });
  return bytes;
}

export function isEmptyDirectory(fd: number): boolean {
  const reader = openForReading(fd);
  try {
    return readDirectory(reader).length === 0;
  } finally {
    closeFd(reader);
  }
}

/** A second descriptor with its own position: reading a directory moves it. */
function openForReading(fd: number): number {
  return openNameAt(fd, here, directoryFlags);
}

function copyXattrs(fromFd: number, from: ByteString, toFd: number, to: ByteString): void {
  for (const attribute of listXattrAt(fromFd, from)) {
    // Overlay's own marks say nothing about the file, and a copy that carried them would be read as a whiteout.
    if (attribute.startsWith("trusted.overlay.")) continue;
    const value = getXattrAt(fromFd, from, attribute);
    if (value !== undefined) setXattrAt(toFd, to, attribute, value);
  }
}

/**
 * Owner, then mode (chown clears setuid), then times. A container may have the volume mounted already and put a link in
 * the name's place: it is opened without following, looked at, and changed through the descriptor only.
 */
function finishName(fd: number, name: ByteString, wanted: FileStatus): void {
  if (wanted.type === S_IFLNK) chownAt(fd, name, wanted.uid, wanted.gid);
  else {
    const file = openNameAt(fd, name, O_PATH);
    try {
      if (statAt(file, nothing)?.type !== wanted.type) return;
      chownPathFd(file, wanted.uid, wanted.gid);
      chmodSync(`/proc/self/fd/${file}`, wanted.mode);
    } finally {
      closeFd(file);
    }
  }
  setTimesAt(fd, name, wanted.mtimeNs, wanted.mtimeNs);
}

function copyFile(fromFd: number, toFd: number, name: ByteString): void {
  const source = openNameAt(fromFd, name, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const target = openNameAt(toFd, name, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
    try {
      copyFileSync(`/proc/self/fd/${source}`, `/proc/self/fd/${target}`, constants.COPYFILE_FICLONE);
    } finally {
      closeFd(target);
    }
  } finally {
    closeFd(source);
  }
}

/**
 * Copies the content of `fromFd` into the empty directory `toFd`, with owners, modes, times, extended attributes, hard
 * links, devices and FIFOs (sockets mean nothing without their process), and gives the directory itself the source's
 * attributes. Both descriptors stay the caller's.
 */
export function copyTree(fromFd: number, toFd: number): void {
  const firstNames = new Map<string, { directory: ByteString; name: ByteString }>();
  const linkToFirst = (stat: FileStatus, to: number, name: ByteString): boolean => {
    const first = firstNames.get(stat.identity);
    if (first === undefined) return false;
    const directory = openBytesBeneath(
      toFd,
      first.directory,
      O_PATH | constants.O_DIRECTORY,
      RESOLVE_NO_SYMLINKS,
    );
    try {
      linkAt(directory, first.name, to, name);
    } finally {
      closeFd(directory);
    }
    return true;
  };
  const copyName = (fd: number, name: ByteString, stat: FileStatus, to: Target): void => {
    if (stat.type === S_IFSOCK) return;
    if (stat.linkCount > 1 && linkToFirst(stat, to.fd, name)) return;
    if (stat.type === S_IFREG) copyFile(fd, to.fd, name);
    else if (stat.type === S_IFLNK) symlinkAt(readlinkAt(fd, name), to.fd, name);
    else mknodAt(to.fd, name, stat.type | stat.mode, makeDevice(stat.deviceMajor, stat.deviceMinor));
    copyXattrs(fd, name, to.fd, name);
    finishName(to.fd, name, stat);
    if (stat.linkCount > 1) firstNames.set(stat.identity, { directory: to.path, name });
  };
  copyXattrs(fromFd, nothing, toFd, nothing);
  walk<Target>(
    openForReading(fromFd),
    { fd: openForReading(toFd), path: nothing },
    {
      visit: (fd, name, stat, to) => {
        if (stat.type !== S_IFDIR) {
          copyName(fd, name, stat, to);
          return undefined;
        }
        mkdirAt(to.fd, name, 0o700);
        copyXattrs(fd, name, to.fd, name);
        const path = (to.path === "" ? name : `${to.path}/${name}`) as ByteString;
        return { fd: openNameAt(to.fd, name, directoryFlags), path };
      },
      leave: ({ fd }, stat) => {
        chownFd(fd, stat.uid, stat.gid);
        chmodFd(fd, stat.mode);
        setTimesFd(fd, stat.mtimeNs, stat.mtimeNs);
        closeFd(fd);
      },
    },
  );
}

/** A directory of the copy: its descriptor, and its path from the copy's root. */
interface Target {
  readonly fd: number;
  readonly path: ByteString;
}

/**
 * Empties a directory, whatever its depth, holding one descriptor. The tree must be nobody else's any more: going up by
 * `..` is safe only where nothing is moved about.
 */
export function emptyDirectory(path: string): void {
  let current = openNameAt(currentDirectory, bytesOfText(path), directoryFlags);
  const names: ByteString[] = [];
  const pending = [removeFiles(current)];
  try {
    while (pending.length > 0) {
      const next = pending.at(-1)!.pop();
      const fd = openNameAt(current, next ?? above, directoryFlags);
      closeFd(current);
      current = fd;
      if (next !== undefined) {
        names.push(next);
        pending.push(removeFiles(current));
        continue;
      }
      pending.pop();
      const done = names.pop();
      if (done !== undefined) rmdirAt(current, done);
    }
  } finally {
    closeFd(current);
  }
}

/** Unlinks all but directories, and gives the directories' names. */
function removeFiles(fd: number): ByteString[] {
  const directories: ByteString[] = [];
  for (const { name } of readDirectory(fd)) {
    try {
      unlinkAt(fd, name as ByteString);
    } catch (error) {
      if (errnoOf(error) !== "EISDIR") throw error;
      directories.push(name as ByteString);
    }
  }
  return directories;
}
