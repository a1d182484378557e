import { accessSync, constants, existsSync, statfsSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { describeErrno, errnoOf } from "#base/errors.ts";
import { findRuntime, noRuntime } from "#runtime/detect.ts";
import type { DaemonConfig } from "./config.ts";
import { StartupError } from "./roots.ts";

/**
 * File systems that cannot be the upper layer of an overlay mount, by their magic number (statfs(2), linux/magic.h): the
 * kernel wants whiteouts, trusted attributes, and entries that change only through itself.
 */
const unsuitable: ReadonlyMap<number, string> = new Map([
  [0x794c7630, "overlay (overlay on overlay is not possible)"],
  [0x61756673, "aufs"],
  [0x6969, "NFS"],
  [0xff534d42, "CIFS"],
  [0xfe534d42, "SMB"],
  [0x517b, "SMB"],
  [0x01021997, "9p"],
  [0x65735546, "FUSE"],
  [0x4d44, "FAT"],
  [0x2011bab0, "exFAT"],
  [0x5346544e, "NTFS"],
  [0x7366746e, "NTFS"],
  [0x00c36400, "Ceph"],
  [0xf15f, "eCryptfs"],
  [0x858458f6, "ramfs"],
  [0x73717368, "squashfs"],
  [0xe0f5e1e2, "EROFS"],
  [0x9660, "ISO 9660"],
]);

/** A new state takes a good megabyte. */
const freshBytesMin = 4 * 1024 * 1024;

interface FileSystem {
  readonly type: number;
  readonly bsize: number;
  readonly bavail: number;
  readonly ffree: number;
  readonly files: number;
}

/**
 * Looks, without changing anything, whether the data root's file system can hold what will lie there. A root that is in
 * use and full is let pass: a daemon that runs can make space. Throws `StartupError`.
 */
export function checkDataRoot(path: string, look: (path: string) => FileSystem = statfsSync): void {
  const there = nearestExisting(path);
  const status = look(there);
  // The numbers are unsigned 32 bits; Node gives a signed word on some architectures.
  const name = unsuitable.get(status.type >>> 0);
  if (name !== undefined) {
    throw new StartupError(
      `data root ${path} is on a file system that cannot hold layers: ${name}; choose a directory on ext4, xfs or btrfs with --data-root`,
    );
  }
  checkWritable(path, "data root");
  const full = status.bavail * status.bsize < freshBytesMin || (status.files > 0 && status.ffree === 0);
  if (there !== path && full) throw new StartupError(`data root ${path}: ${describeErrno("ENOSPC")}`);
}

/** As `checkDataRoot`, for any directory that is to be made. */
export function checkWritable(path: string, what: string): void {
  const there = nearestExisting(path);
  if (!statSync(there).isDirectory()) throw new StartupError(`${what} ${path}: ${there} is no directory`);
  try {
    accessSync(there, constants.W_OK);
  } catch (error) {
    throw new StartupError(`${what} ${path}: ${describeErrno(errnoOf(error) ?? "EACCES")}`);
  }
}

/** There is an OCI runtime, and those that are named exist. Whether they work is seen when they are asked their version. */
export function requireRuntime({ runtimes, defaultRuntime }: DaemonConfig): void {
  for (const [name, { path }] of runtimes) {
    if (findRuntime(path) === undefined) throw new StartupError(`runtime ${name}: ${path} not found`);
  }
  const builtIn = ["crun", "runc"].filter((name) => findRuntime(name) !== undefined);
  if (runtimes.size === 0 && builtIn.length === 0) throw new StartupError(noRuntime);
  if (defaultRuntime !== undefined && !runtimes.has(defaultRuntime) && !builtIn.includes(defaultRuntime)) {
    throw new StartupError(`specified default runtime '${defaultRuntime}' is not installed`);
  }
}

function nearestExisting(path: string): string {
  let at = path;
  while (!existsSync(at) && at !== "/") at = dirname(at);
  return at;
}
