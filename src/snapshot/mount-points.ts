import { type FileStatus, S_IFDIR, S_IFLNK, S_IFREG } from "#sys/file-status.ts";

/**
 * What the start of any container leaves in its writable layer where the image lacks it: mount points of the runtime and
 * of the engine. Docker keeps them in an "init" layer of their own, so that its diff and commit do not show them.
 */
const kinds: ReadonlyMap<string, number> = new Map([
  ["dev", S_IFDIR],
  ["dev/pts", S_IFDIR],
  ["dev/shm", S_IFDIR],
  ["dev/mqueue", S_IFDIR],
  ["dev/console", S_IFREG],
  ["etc", S_IFDIR],
  ["etc/hostname", S_IFREG],
  ["etc/hosts", S_IFREG],
  ["etc/mtab", S_IFLNK],
  ["etc/resolv.conf", S_IFREG],
  ["proc", S_IFDIR],
  ["sys", S_IFDIR],
  [".dockerenv", S_IFREG],
]);

/** Whether a name that no layer below has is such a mount point, unused: of that kind, and empty where it is a file. */
export function isMountPoint(path: string, stat: FileStatus): boolean {
  return kinds.get(path) === stat.type && (stat.type !== S_IFREG || stat.sizeBytes === 0);
}
