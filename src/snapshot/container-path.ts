import { constants, readlinkSync } from "node:fs";
import { posix } from "node:path";
import { type ByteString, bytesOfText, textOfBytes } from "#base/byte-string.ts";
import { errnoOf, SyscallError } from "#base/errors.ts";
import {
  openBytesBeneath,
  RESOLVE_IN_ROOT,
  RESOLVE_NO_MAGICLINKS,
  readlinkBeneath,
  statBeneath,
  tryOpenat2,
} from "#sys/beneath.ts";
import {
  type FileStatus,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFSOCK,
  statAt,
} from "#sys/file-status.ts";
import { closeFd, O_PATH, tryOpenNameAt } from "#sys/files.ts";
import { isKernelFileSystem } from "#sys/kernel-file-systems.ts";
import type { Visited } from "./tree-walk.ts";

/** What the archive API says about a path in a container: the header `X-Docker-Container-Path-Stat`. */
export interface PathStat {
  readonly name: string;
  readonly sizeBytes: number;
  /** Go's os.FileMode. */
  readonly mode: number;
  readonly mtimeNs: bigint;
  /** Of a symlink: where it leads in the container, without links as far as that is there. */
  readonly linkTarget: string;
}

/** A path of a request, from the container's root. */
export interface ContainerPath {
  /** Clean and absolute, without a slash at the end. */
  readonly path: string;
  /** It ended in `/` or `/.`: a directory is meant, also behind a symlink. */
  readonly asDirectory: boolean;
  /** Go's `filepath.Base` of it: `.` for `/x/.`, `/` for the root. */
  readonly name: string;
}

/** Docker's reading of a path: cleaned, but for what it ends in (`PreserveTrailingDotOrSeparator`). */
export function parseContainerPath(text: string): ContainerPath {
  const clean = posix.join("/", text).replace(/(?<=.)\/+$/, "");
  const dot = text === "." || text.endsWith("/.");
  const asDirectory = dot || text.endsWith("/");
  return { path: clean, asDirectory, name: dot ? "." : clean === "/" ? "/" : posix.basename(clean) };
}

const inRoot = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
const empty = "" as ByteString;

/** Bits of Go's os.FileMode for the kinds of files. */
const goKinds = new Map<number, number>([
  [S_IFDIR, 2 ** 31],
  [S_IFLNK, 2 ** 27],
  [S_IFBLK, 2 ** 26],
  [S_IFCHR, 2 ** 26 + 2 ** 21],
  [S_IFIFO, 2 ** 25],
  [S_IFSOCK, 2 ** 24],
]);

function goMode({ type, mode }: FileStatus): number {
  const special =
    ((mode & 0o4000) === 0 ? 0 : 2 ** 23) +
    ((mode & 0o2000) === 0 ? 0 : 2 ** 22) +
    ((mode & 0o1000) === 0 ? 0 : 2 ** 20);
  return (goKinds.get(type) ?? 0) + special + (mode & 0o777);
}

/**
 * The status of a path in a container's root; undefined where it is missing. What lies inside /proc and its like is not
 * there, as for Docker. Throws ENOTDIR where a file stands for a directory. Blocks; for workers.
 */
export function statContainerPath(rootFd: number, request: ContainerPath): PathStat | undefined {
  const fd = tryOpenPath(rootFd, request);
  if (fd === undefined) return undefined;
  try {
    const stat = statAt(fd, empty);
    if (stat === undefined || isInsideKernelTree(rootFd, fd, request.path)) return undefined;
    return {
      name: request.name,
      sizeBytes: stat.sizeBytes,
      mode: goMode(stat),
      mtimeNs: stat.mtimeNs,
      linkTarget: stat.type === S_IFLNK ? followLinks(rootFd, request.path) : "",
    };
  } finally {
    closeFd(fd);
  }
}

function tryOpenPath(rootFd: number, { path, asDirectory }: ContainerPath): number | undefined {
  // The directory in front is resolved with the rest: only the last name is taken as it is.
  const flags = O_PATH | (asDirectory ? constants.O_DIRECTORY : constants.O_NOFOLLOW);
  const fd = tryOpenat2(rootFd, bytesOfText(path), flags, 0, inRoot);
  if (typeof fd === "number") return fd;
  if (fd === "ENOENT") return undefined;
  throw new SyscallError("lstat", fd, asDirectory ? `${path}/` : path);
}

/** The mount point itself is there, as a directory of the image would be. */
function isInsideKernelTree(rootFd: number, fd: number, path: string): boolean {
  if (!isKernelFileSystem(fd)) return false;
  const parent = tryOpenat2(rootFd, bytesOfText(posix.dirname(path)), O_PATH, 0, inRoot);
  if (typeof parent === "string") return true;
  try {
    return isKernelFileSystem(parent);
  } finally {
    closeFd(parent);
  }
}

/** The kernel's own bound on symlinks in one resolution. */
const linkHopsMax = 40;

/** Where a path leads in the end, as text; the part that is missing stays as it is spelled. */
function followLinks(rootFd: number, path: string): string {
  const left = path.split("/").reverse();
  let names: string[] = [];
  for (let hops = 0; left.length > 0; ) {
    const name = left.pop() as string;
    if (name === "" || name === ".") continue;
    if (name === "..") {
      names.pop();
      continue;
    }
    const at = [...names, name].join("/");
    const target = readLink(rootFd, at);
    if (target === undefined) {
      names.push(name);
      continue;
    }
    hops += 1;
    if (hops > linkHopsMax) throw new SyscallError("lstat", "ELOOP", path);
    if (target.startsWith("/")) names = [];
    left.push(...target.split("/").reverse());
  }
  return `/${names.join("/")}`;
}

function readLink(rootFd: number, path: string): string | undefined {
  try {
    const stat = statBeneath(rootFd, path, { noFollow: true });
    if (stat === undefined || (Number(stat.mode) & 0o170000) !== S_IFLNK) return undefined;
    return readlinkBeneath(rootFd, path);
  } catch (error) {
    // The link may be gone or something else by now.
    const errno = errnoOf(error);
    if (errno === "ENOENT" || errno === "EINVAL" || errno === "ENOTDIR" || errno === "ELOOP")
      return undefined;
    throw error;
  }
}

/** An open directory that things are to be put into, and where it is in the container, without links. */
export function openExtractionPoint(
  rootFd: number,
  path: string,
): { readonly fd: number; readonly canonical: ByteString; readonly isDirectory: boolean } {
  let fd: number;
  try {
    fd = openBytesBeneath(rootFd, bytesOfText(path), O_PATH);
  } catch (error) {
    throw new SyscallError("lstat", errnoOf(error) ?? "EIO", path);
  }
  const root = readlinkSync(`/proc/self/fd/${rootFd}`, "latin1").replace(/\/$/, "");
  const full = readlinkSync(`/proc/self/fd/${fd}`, "latin1");
  const inside = full === root || full.startsWith(`${root}/`);
  const canonical = (inside ? full.slice(root.length + 1) : bytesOfText(path).slice(1)) as ByteString;
  return { fd, canonical, isDirectory: statAt(fd, empty)?.type === S_IFDIR };
}

/** For messages. */
export function showPath(path: string): string {
  return JSON.stringify(textOfBytes(path));
}

const rootDevices = /^\/?(?:\.\/)?dev$/;

/** Content that no copy of a directory above takes along: the kernel's own file systems, and the devices in `/dev`. */
export function isLeftOut({ dirFd, name, path, stat }: Visited): boolean {
  const above = statAt(dirFd, empty)?.identity ?? "";
  // Only a mount can be of another kind than what it is in.
  if (deviceOf(above) === deviceOf(stat.identity)) return false;
  if (rootDevices.test(path)) return true;
  const fd = tryOpenNameAt(dirFd, name, O_PATH);
  if (typeof fd === "string") return false;
  try {
    return isKernelFileSystem(fd);
  } finally {
    closeFd(fd);
  }
}

function deviceOf(identity: string): string {
  return identity.slice(0, identity.lastIndexOf(":"));
}
