import type { ByteString } from "#base/byte-string.ts";
import { SyscallError } from "#base/errors.ts";
import { check, errnoName, koffi, libc } from "./libc.ts";

/**
 * The `*at` family: every call works on a directory descriptor and one name, so that nothing is resolved again after it
 * was checked. Names are byte strings (one character a byte). All throw `SyscallError`.
 */
const cMkdirat = libc.func("int mkdirat(int fd, const void *name, unsigned int mode)");
const cSymlinkat = libc.func("int symlinkat(const void *target, int fd, const void *name)");
const cLinkat = libc.func(
  "int linkat(int oldFd, const void *oldName, int newFd, const void *newName, int flags)",
);
const cMknodat = libc.func("int mknodat(int fd, const void *name, unsigned int mode, uint64_t device)");
const cFchownat = libc.func(
  "int fchownat(int fd, const void *name, unsigned int uid, unsigned int gid, int flags)",
);
const cFchown = libc.func("int fchown(int fd, unsigned int uid, unsigned int gid)");
const cFchmod = libc.func("int fchmod(int fd, unsigned int mode)");
const cFchmodat = libc.func("int fchmodat(int fd, const void *name, unsigned int mode, int flags)");
const cUtimensat = libc.func("int utimensat(int fd, const void *name, const void *times, int flags)");
const cFutimens = libc.func("int futimens(int fd, const void *times)");
const cUnlinkat = libc.func("int unlinkat(int fd, const void *name, int flags)");
const cReadlinkat = libc.func("int64_t readlinkat(int fd, const void *name, void *buffer, size_t size)");
const cClose = libc.func("int close(int fd)");
const cOpenat = libc.func("int openat(int fd, const void *name, int flags, unsigned int mode)");

export const AT_SYMLINK_NOFOLLOW = 0x100;
export const AT_REMOVEDIR = 0x200;
export const AT_EMPTY_PATH = 0x1000;
export const O_PATH = 0o10000000;
export const O_CLOEXEC = 0o2000000;

/** PATH_MAX with its NUL; the kernel refuses longer ones with ENAMETOOLONG, and so do we before copying. */
const pathBytesMax = 4096;
// One buffer a name argument: calls are synchronous and a module is loaded once a thread, so nothing overlaps.
const firstName = Buffer.alloc(pathBytesMax);
const secondName = Buffer.alloc(pathBytesMax);
const timesBuffer = new BigInt64Array(4);
const linkBuffer = Buffer.alloc(pathBytesMax);

function encode(into: Buffer, name: string, call: string): Buffer {
  if (name.length >= pathBytesMax) throw new SyscallError(call, "ENAMETOOLONG", `${name.slice(0, 64)}…`);
  const length = into.write(name, 0, "latin1");
  into[length] = 0;
  // An embedded NUL would silently name another file.
  if (into.indexOf(0) !== length) throw new SyscallError(call, "EINVAL", name.replaceAll("\0", "\\0"));
  return into;
}

/** A byte string as the NUL-terminated C string that other calls in `sys/` take; valid until the next call of this. */
export function cString(name: string, call: string): Buffer {
  return encode(firstName, name, call);
}

export function mkdirAt(dirFd: number, name: ByteString, mode: number): void {
  check(cMkdirat(dirFd, encode(firstName, name, "mkdirat"), mode), "mkdirat", name);
}

export function symlinkAt(target: ByteString, dirFd: number, name: ByteString): void {
  const result = cSymlinkat(
    encode(firstName, target, "symlinkat"),
    dirFd,
    encode(secondName, name, "symlinkat"),
  );
  check(result, "symlinkat", name);
}

/** A hard link. Never follows a symlink in the last component of the old name. */
export function linkAt(oldDirFd: number, oldName: ByteString, newDirFd: number, newName: ByteString): void {
  const from = encode(firstName, oldName, "linkat");
  check(cLinkat(oldDirFd, from, newDirFd, encode(secondName, newName, "linkat"), 0), "linkat", newName);
}

/** A hard link to a file of the daemon's own, by its absolute path. Never follows a symlink in its last component. */
export function linkFile(path: string, newDirFd: number, newName: ByteString): void {
  const from = encode(firstName, Buffer.from(path).toString("latin1"), "linkat");
  check(cLinkat(-1, from, newDirFd, encode(secondName, newName, "linkat"), 0), "linkat", newName);
}

/** `mode` holds the type bits too; `device` is the kernel's dev_t as `makeDevice` gives it. */
export function mknodAt(dirFd: number, name: ByteString, mode: number, device: bigint): void {
  check(cMknodat(dirFd, encode(firstName, name, "mknodat"), mode, device), "mknodat", name);
}

/** dev_t of a major and minor number, glibc's `makedev`. */
export function makeDevice(major: number, minor: number): bigint {
  const ma = BigInt(major >>> 0);
  const mi = BigInt(minor >>> 0);
  return ((ma & 0xfffn) << 8n) | ((ma & ~0xfffn) << 32n) | (mi & 0xffn) | ((mi & ~0xffn) << 12n);
}

/** Major and minor number of a dev_t as `fs.stat` reports it in `rdev`. */
export function splitDevice(device: bigint): { major: number; minor: number } {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn & 0xffffffffn);
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn & 0xffffffffn);
  return { major: Number(major), minor: Number(minor) };
}

/** Owner of a name itself: a symlink is not followed. */
export function chownAt(dirFd: number, name: ByteString, uid: number, gid: number): void {
  const result = cFchownat(dirFd, encode(firstName, name, "fchownat"), uid, gid, AT_SYMLINK_NOFOLLOW);
  check(result, "fchownat", name);
}

export function chownFd(fd: number, uid: number, gid: number): void {
  check(cFchown(fd, uid, gid), "fchown");
}

/** Owner of what an O_PATH descriptor stands for. */
export function chownPathFd(fd: number, uid: number, gid: number): void {
  check(cFchownat(fd, encode(firstName, "", "fchownat"), uid, gid, AT_EMPTY_PATH), "fchownat");
}

export function chmodFd(fd: number, mode: number): void {
  check(cFchmod(fd, mode), "fchmod");
}

/**
 * Mode of a name. Follows a symlink in the last component (fchmodat has no flag for it in older C libraries): only for
 * names the caller has just made, or in trees nobody else can write.
 */
export function chmodAt(dirFd: number, name: ByteString, mode: number): void {
  check(cFchmodat(dirFd, encode(firstName, name, "fchmodat"), mode, 0), "fchmodat", name);
}

const second = 1_000_000_000n;

/** struct timespec twice. Floor division: a time before 1970 has a negative second and a positive fraction. */
function encodeTimes(atimeNs: bigint, mtimeNs: bigint): BigInt64Array {
  const atimeFraction = ((atimeNs % second) + second) % second;
  const mtimeFraction = ((mtimeNs % second) + second) % second;
  timesBuffer[0] = (atimeNs - atimeFraction) / second;
  timesBuffer[1] = atimeFraction;
  timesBuffer[2] = (mtimeNs - mtimeFraction) / second;
  timesBuffer[3] = mtimeFraction;
  return timesBuffer;
}

/** Access and modification time (ns since the epoch) of a name itself: a symlink is not followed. */
export function setTimesAt(dirFd: number, name: ByteString, atimeNs: bigint, mtimeNs: bigint): void {
  const encoded = encode(firstName, name, "utimensat");
  const times = encodeTimes(atimeNs, mtimeNs);
  check(cUtimensat(dirFd, encoded, times, AT_SYMLINK_NOFOLLOW), "utimensat", name);
}

export function setTimesFd(fd: number, atimeNs: bigint, mtimeNs: bigint): void {
  check(cFutimens(fd, encodeTimes(atimeNs, mtimeNs)), "futimens");
}

export function unlinkAt(dirFd: number, name: ByteString): void {
  check(cUnlinkat(dirFd, encode(firstName, name, "unlinkat"), 0), "unlinkat", name);
}

export function rmdirAt(dirFd: number, name: ByteString): void {
  check(cUnlinkat(dirFd, encode(firstName, name, "unlinkat"), AT_REMOVEDIR), "rmdir", name);
}

/** Target of a symlink; with an empty name, of the O_PATH|O_NOFOLLOW descriptor itself. */
export function readlinkAt(dirFd: number, name: ByteString): ByteString {
  const size = cReadlinkat(dirFd, encode(firstName, name, "readlinkat"), linkBuffer, linkBuffer.length);
  return linkBuffer.toString("latin1", 0, check(Number(size), "readlinkat", name)) as ByteString;
}

/** openat(2) of one name below a directory that the caller resolved; adds O_NOFOLLOW and O_CLOEXEC. */
export function openNameAt(dirFd: number, name: ByteString, flags: number, mode = 0): number {
  const all = flags | O_CLOEXEC | 0o400000;
  return check(cOpenat(dirFd, encode(firstName, name, "openat"), all, mode), "openat", name);
}

/** As `openNameAt`, but gives the errno's name instead of throwing: for probes on hot paths. */
export function tryOpenNameAt(dirFd: number, name: ByteString, flags: number, mode = 0): number | string {
  const fd = cOpenat(dirFd, encode(firstName, name, "openat"), flags | O_CLOEXEC | 0o400000, mode) as number;
  return fd < 0 ? errnoName(koffi.errno()) : fd;
}

/** close(2). Errors are not reported: nothing can be done about them, and data was checked by the writes. */
export function closeFd(fd: number): void {
  cClose(fd);
}
