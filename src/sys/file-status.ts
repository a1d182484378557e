import type { ByteString } from "#base/byte-string.ts";
import { SyscallError } from "#base/errors.ts";
import { AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, cString } from "./files.ts";
import { errnoName, koffi, libc } from "./libc.ts";

const cStatx = libc.func("int statx(int fd, const void *name, int flags, unsigned int mask, void *buffer)");
const basicMask = 0x7ff;
// struct statx of the kernel's ABI, the same on every architecture: 256 bytes.
const buffer = Buffer.alloc(256);
const second = 1_000_000_000n;

export const S_IFMT = 0o170000;
export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;
export const S_IFLNK = 0o120000;
export const S_IFCHR = 0o020000;
export const S_IFBLK = 0o060000;
export const S_IFIFO = 0o010000;
export const S_IFSOCK = 0o140000;

export interface FileStatus {
  /** One of the S_IF… values. */
  readonly type: number;
  /** Permissions with setuid, setgid, sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly mtimeNs: bigint;
  readonly linkCount: number;
  /** Device and inode as one key: equal for names of one file. */
  readonly identity: string;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
}

/** Status of a name itself (no link followed), or of the descriptor where the name is empty; undefined if missing. */
export function statAt(dirFd: number, name: ByteString): FileStatus | undefined {
  const flags = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH;
  if ((cStatx(dirFd, cString(name, "statx"), flags, basicMask, buffer) as number) < 0) {
    const errno = errnoName(koffi.errno());
    if (errno === "ENOENT") return undefined;
    throw new SyscallError("statx", errno, name);
  }
  const mode = buffer.readUInt16LE(28);
  return {
    type: mode & S_IFMT,
    mode: mode & 0o7777,
    uid: buffer.readUInt32LE(20),
    gid: buffer.readUInt32LE(24),
    sizeBytes: Number(buffer.readBigUInt64LE(40)),
    mtimeNs: buffer.readBigInt64LE(112) * second + BigInt(buffer.readUInt32LE(120)),
    linkCount: buffer.readUInt32LE(16),
    identity: `${buffer.readUInt32LE(136)}:${buffer.readUInt32LE(140)}:${buffer.readBigUInt64LE(32)}`,
    deviceMajor: buffer.readUInt32LE(128),
    deviceMinor: buffer.readUInt32LE(132),
  };
}
