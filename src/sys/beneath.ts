import { type BigIntStats, constants, fstatSync } from "node:fs";
import { type ByteString, bytesOfText, textOfBytes } from "#base/byte-string.ts";
import { errnoOf, SyscallError } from "#base/errors.ts";
import { chmodAt, chownAt, closeFd, cString, mkdirAt, O_CLOEXEC, O_PATH, readlinkAt } from "./files.ts";
import { errnoName, koffi, libc } from "./libc.ts";

/**
 * Path resolution inside a root that somebody hostile may have filled: openat2(2). Absolute symlinks and `..` stay in the
 * root as they would after a chroot, and magic links (`/proc/<pid>/fd/<n>`) are refused.
 */
const openat2Number = 437;
// Not declared variadic: syscall(2) takes its arguments in the same registers either way, and koffi is faster so.
const cSyscall = libc.func(
  "long syscall(long number, int fd, const void *path, const void *how, size_t size)",
);
const how = new BigUint64Array(3);

export const RESOLVE_NO_XDEV = 0x01;
export const RESOLVE_NO_MAGICLINKS = 0x02;
export const RESOLVE_NO_SYMLINKS = 0x04;
export const RESOLVE_BENEATH = 0x08;
export const RESOLVE_IN_ROOT = 0x10;

/** The kernel gives EAGAIN when a rename raced with a `..`; it does not happen thousands of times by chance. */
const raceRetriesMax = 128;

/** openat2(2) with the `resolve` flags given; the descriptor, or the errno's name. The path is a byte string. */
export function tryOpenat2(
  dirFd: number,
  path: string,
  flags: number,
  mode: number,
  resolve: number,
): number | string {
  how[0] = BigInt(flags | O_CLOEXEC);
  how[1] = BigInt(mode);
  how[2] = BigInt(resolve);
  for (let attempt = 0; ; attempt += 1) {
    const fd = Number(cSyscall(openat2Number, dirFd, cString(path === "" ? "." : path, "openat2"), how, 24));
    if (fd >= 0) return fd;
    const errno = errnoName(koffi.errno());
    if (errno !== "EAGAIN" && errno !== "EINTR") return errno;
    if (attempt >= raceRetriesMax) return errno;
  }
}

/** Opens a trusted directory (ours, not the image's) as a root for the calls below. Close it with `closeFd`. */
export function openRoot(path: string): number {
  const result = tryOpenat2(-100, bytesOfText(path), O_PATH | constants.O_DIRECTORY, 0, 0);
  if (typeof result === "string") throw new SyscallError("open", result, path);
  return result;
}

/**
 * Opens a path of the tree below `rootFd`, as a process chrooted there would see it, and gives the descriptor.
 * `flags` are open(2)'s (O_CLOEXEC is added; add O_NOFOLLOW to get a symlink itself), `mode` only with O_CREAT. A hostile
 * tree may hold FIFOs and devices: readers add O_NONBLOCK and fstat before they read.
 */
export function openBeneath(rootFd: number, path: string, flags: number, mode = 0): number {
  const resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const result = tryOpenat2(rootFd, bytesOfText(path), flags, mode, resolve);
  if (typeof result === "string") throw new SyscallError("openat2", result, path);
  return result;
}

/** As `openBeneath` for a byte string path, with extra `resolve` flags (RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV). */
export function openBytesBeneath(rootFd: number, path: ByteString, flags: number, extraResolve = 0): number {
  const resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | extraResolve;
  const result = tryOpenat2(rootFd, path, flags, 0, resolve);
  if (typeof result === "string") throw new SyscallError("openat2", result, textOfBytes(path));
  return result;
}

/**
 * Status of a path below the root, or undefined where it does not exist. Follows a symlink in the last component
 * unless `noFollow` is set; opens nothing (O_PATH), so a FIFO or device is safe to ask about.
 */
export function statBeneath(
  rootFd: number,
  path: string,
  options: { noFollow?: boolean } = {},
): BigIntStats | undefined {
  const flags = O_PATH | (options.noFollow === true ? constants.O_NOFOLLOW : 0);
  const resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const fd = tryOpenat2(rootFd, bytesOfText(path), flags, 0, resolve);
  if (typeof fd === "string") {
    if (fd === "ENOENT" || fd === "ENOTDIR") return undefined;
    throw new SyscallError("stat", fd, path);
  }
  try {
    return fstatSync(fd, { bigint: true });
  } finally {
    closeFd(fd);
  }
}

/** Target text of a symlink below the root; EINVAL when it is something else. */
export function readlinkBeneath(rootFd: number, path: string): string {
  const fd = openBeneath(rootFd, path, O_PATH | constants.O_NOFOLLOW);
  try {
    return textOfBytes(readlinkAt(fd, "" as ByteString));
  } catch (error) {
    // readlinkat of an empty name reports ENOENT for a descriptor that is no symlink.
    throw errnoOf(error) === "ENOENT" ? new SyscallError("readlink", "EINVAL", path) : error;
  } finally {
    closeFd(fd);
  }
}

/**
 * mkdir -p below the root: symlinks on the way resolve inside it, missing directories get `mode` and the owner. What
 * exists is left as it is; a component that is no directory gives ENOTDIR.
 */
export function mkdirAllBeneath(rootFd: number, path: string, mode: number, uid: number, gid: number): void {
  const names = path.split("/").filter((name) => name !== "" && name !== ".");
  let walked = "";
  for (const name of names) {
    const parent = walked;
    walked = walked === "" ? name : `${walked}/${name}`;
    const fd = tryOpenat2(
      rootFd,
      bytesOfText(walked),
      O_PATH | constants.O_DIRECTORY,
      0,
      RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    );
    if (typeof fd === "number") closeFd(fd);
    else if (fd === "ENOENT") makeDirectory(rootFd, parent, name, mode, uid, gid);
    else throw new SyscallError("mkdir", fd, path);
  }
}

function makeDirectory(
  rootFd: number,
  parent: string,
  name: string,
  mode: number,
  uid: number,
  gid: number,
): void {
  const parentFd = openBeneath(rootFd, parent, O_PATH | constants.O_DIRECTORY);
  try {
    const bytes = bytesOfText(name);
    try {
      mkdirAt(parentFd, bytes, 0o700);
    } catch (error) {
      // A dangling symlink: it resolves to nothing, yet its name is taken.
      if (errnoOf(error) === "EEXIST") throw new SyscallError("mkdir", "ENOTDIR", name);
      throw error;
    }
    chownAt(parentFd, bytes, uid, gid);
    chmodAt(parentFd, bytes, mode);
  } finally {
    closeFd(parentFd);
  }
}
