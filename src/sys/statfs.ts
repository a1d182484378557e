import { check, libc } from "./libc.ts";

const cSyncfs = libc.func("int syncfs(int fd)");
const cSyncFileRange = libc.func(
  "int sync_file_range(int fd, int64_t offset, int64_t length, unsigned int flags)",
);
const cGetdents64 = libc.func("int64_t getdents64(int fd, void *buffer, size_t size)");

/** syncfs(2): everything written to the file system of `fd` is on the disk. Sleeps: workers only. */
export function syncFileSystem(fd: number): void {
  check(cSyncfs(fd), "syncfs");
}

const writeOnly = 2;

/** sync_file_range(2): begins to write a file's data to the disk without waiting for it. A hint: errors do not matter. */
export function startWriteback(fd: number): void {
  cSyncFileRange(fd, 0, 0, writeOnly);
}

/** d_type of getdents64(2). */
export const directoryEntryTypes = {
  unknown: 0,
  fifo: 1,
  char: 2,
  directory: 4,
  block: 6,
  file: 8,
  symlink: 10,
  socket: 12,
} as const;

export interface DirectoryEntry {
  /** One byte a character. */
  readonly name: string;
  readonly type: number;
}

const listing = Buffer.alloc(64 * 1024);

/**
 * Entries of an open directory (not O_PATH) in the kernel's order, without `.` and `..`, from its current position.
 * Names come as bytes, which Node's readdir of a descriptor cannot give.
 */
export function readDirectory(fd: number): DirectoryEntry[] {
  const entries: DirectoryEntry[] = [];
  for (;;) {
    const size = check(Number(cGetdents64(fd, listing, listing.length)), "getdents64");
    if (size === 0) return entries;
    for (let at = 0; at < size; ) {
      const length = listing.readUInt16LE(at + 16);
      const type = listing[at + 18] ?? 0;
      const end = listing.indexOf(0, at + 19);
      const name = listing.toString("latin1", at + 19, end);
      if (name !== "." && name !== "..") entries.push({ name, type });
      at += length;
    }
  }
}
