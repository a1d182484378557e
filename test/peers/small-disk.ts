import { execFileSync } from "node:child_process";
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** An ext4 of its own on a loop device: full when we say so. Disposal unmounts it, which also detaches the device. */
export interface SmallDisk extends Disposable {
  readonly path: string;
  freeBytes(): number;
  /** Writes until nothing fits any more; the returned object gives the space back. */
  fill(): Disposable;
}

export function smallDisk(megabytes: number): SmallDisk {
  const folder = mkdtempSync(join(tmpdir(), "skiff-disk-"));
  const file = join(folder, "image");
  const path = join(folder, "mount");
  writeFileSync(file, "");
  truncateSync(file, megabytes * 1024 * 1024);
  mkdirSync(path);
  execFileSync("mkfs.ext4", ["-q", "-F", "-m", "0", file]);
  execFileSync("mount", ["-o", "loop", file, path]);
  const freeBytes = (): number => {
    const { bavail, bsize } = statfsSync(path);
    return bavail * bsize;
  };
  return {
    path,
    freeBytes,
    fill: () => {
      const filler = join(path, "filler");
      fillFile(filler);
      return { [Symbol.dispose]: () => rmSync(filler, { force: true }) };
    },
    [Symbol.dispose]: () => {
      execFileSync("umount", [path]);
      rmSync(folder, { recursive: true });
    },
  };
}

/** Large writes first, then smaller ones, down to a block: not a byte stays. */
function fillFile(path: string): void {
  const fd = openSync(path, "w");
  try {
    for (let size = 1024 * 1024; size >= 4096; ) {
      try {
        writeSync(fd, Buffer.alloc(size, 1));
        fsyncSync(fd);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
        size /= 4;
      }
    }
  } finally {
    closeSync(fd);
  }
}
