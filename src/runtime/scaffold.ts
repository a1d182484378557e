import { chmodSync, existsSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";

/**
 * A layer of its own below every image's layers: the directories and empty files that mounting needs. Where an image has
 * them, its own win; where it has not, nothing is written into the container's layer, so that `diff` and `commit` see only
 * what the container did, and a start makes no files. (Docker writes them into an init layer per container.)
 *
 * The directory never changes once it is there: overlayfs allows no change below a mount. Another content is another name.
 */
const version = "scaffold-1";

const directories = ["dev", "etc", "proc", "sys"];
const files: readonly (readonly [string, number])[] = [
  [".dockerenv", 0o755],
  ["etc/hostname", 0o644],
  ["etc/hosts", 0o644],
  ["etc/resolv.conf", 0o644],
];

/**
 * Makes it below `parent`, which must be on the file system of the image layers (overlayfs gives consistent inode numbers
 * only then), and returns its path. Blocks: for the daemon's start.
 */
export function makeScaffold(parent: string): string {
  const path = `${parent}/${version}`;
  if (existsSync(path)) return path;
  const temporary = `${path}.${process.pid}`;
  rmSync(temporary, { recursive: true, force: true });
  mkdirSync(temporary, { recursive: true });
  for (const name of directories) {
    mkdirSync(`${temporary}/${name}`);
    chmodSync(`${temporary}/${name}`, 0o755);
  }
  for (const [name, mode] of files) {
    writeFileSync(`${temporary}/${name}`, "");
    chmodSync(`${temporary}/${name}`, mode);
  }
  symlinkSync("/proc/mounts", `${temporary}/etc/mtab`);
  chmodSync(temporary, 0o755);
  renameSync(temporary, path);
  return path;
}
