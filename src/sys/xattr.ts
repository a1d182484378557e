import type { ByteString } from "#base/byte-string.ts";
import { SyscallError } from "#base/errors.ts";
import { cString } from "./files.ts";
import { check, errnoName, koffi, libc } from "./libc.ts";

/**
 * Extended attributes of a name below a directory descriptor, never following a symlink in the name. The kernel had no
 * `*at` calls for them before 6.13: `/proc/self/fd/<dir>/<name>` is resolved from the descriptor, which is the same.
 */
const cSet = libc.func(
  "int lsetxattr(const void *path, const char *name, const void *value, size_t size, int flags)",
);
const cGet = libc.func("int64_t lgetxattr(const void *path, const char *name, void *value, size_t size)");
const cList = libc.func("int64_t llistxattr(const void *path, void *list, size_t size)");
const cGetFd = libc.func("int64_t fgetxattr(int fd, const char *name, void *value, size_t size)");
const cListFd = libc.func("int64_t flistxattr(int fd, void *list, size_t size)");
const cSetFd = libc.func(
  "int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)",
);

/** XATTR_SIZE_MAX and XATTR_LIST_MAX of the kernel. */
const valueBytesMax = 65536;
const buffer = Buffer.alloc(valueBytesMax);

function pathOf(dirFd: number, name: string): Buffer {
  return cString(`/proc/self/fd/${dirFd}/${name === "" ? "." : name}`, "xattr");
}

/** Sets an attribute; an empty `name` means the directory itself. */
export function setXattrAt(dirFd: number, name: ByteString, attribute: string, value: Uint8Array): void {
  const result = cSet(pathOf(dirFd, name), attribute, value, value.length, 0);
  check(result, "lsetxattr", `${name} (${attribute})`);
}

/** Sets an attribute of an open file (not O_PATH). */
export function setXattrFd(fd: number, attribute: string, value: Uint8Array): void {
  check(cSetFd(fd, attribute, value, value.length, 0), "fsetxattr", attribute);
}

/** Value of an attribute, or undefined where it is not set or the file system has none. */
export function getXattrAt(dirFd: number, name: ByteString, attribute: string): Buffer | undefined {
  const size = cGet(pathOf(dirFd, name), attribute, buffer, buffer.length);
  return xattrValue(Number(size), "lgetxattr", name, attribute);
}

/** As `getXattrAt`, of an open file (not O_PATH). */
export function getXattrFd(fd: number, attribute: string): Buffer | undefined {
  return xattrValue(Number(cGetFd(fd, attribute, buffer, buffer.length)), "fgetxattr", "", attribute);
}

function xattrValue(size: number, call: string, name: string, attribute: string): Buffer | undefined {
  if (size >= 0) return Buffer.from(buffer.subarray(0, size));
  const errno = errnoName(koffi.errno());
  if (errno === "ENODATA" || errno === "EOPNOTSUPP" || errno === "ENOTSUP") return undefined;
  throw new SyscallError(call, errno, `${name} (${attribute})`);
}

/** Names of the attributes that are set, in the file system's order. */
export function listXattrAt(dirFd: number, name: ByteString): string[] {
  return namesOf(Number(cList(pathOf(dirFd, name), buffer, buffer.length)), "llistxattr", name);
}

/** As `listXattrAt`, of an open file (not O_PATH): a fifth of the time, since no path is resolved. */
export function listXattrFd(fd: number): string[] {
  return namesOf(Number(cListFd(fd, buffer, buffer.length)), "flistxattr", "");
}

function namesOf(size: number, call: string, name: string): string[] {
  if (size > 0) return buffer.toString("utf8", 0, size - 1).split("\0");
  if (size === 0) return [];
  const errno = errnoName(koffi.errno());
  if (errno === "EOPNOTSUPP" || errno === "ENOTSUP") return [];
  throw new SyscallError(call, errno, name);
}
