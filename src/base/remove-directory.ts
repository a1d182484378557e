import { readdir, rm, rmdir, unlink } from "node:fs/promises";
import { join } from "node:path";

/**
 * Removes a directory of the daemon's own with all in it; nothing happens where there is none. Half the calls of Node's
 * recursive `rm`, which looks at each name before and tries directories as files: it was a third of the daemon's CPU for
 * a container's life. Rejects with the errors of unlink(2) and rmdir(2).
 */
export async function removeDirectory(path: string): Promise<void> {
  try {
    for (const entry of await readdir(path, { withFileTypes: true })) {
      const child = join(path, entry.name);
      if (entry.isDirectory()) await removeDirectory(child);
      else await unlink(child);
    }
    await rmdir(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Somebody else adds or removes in it, or it is no directory: the thorough way.
    if (code !== "ENOENT" && code !== "ENOTEMPTY" && code !== "EEXIST" && code !== "ENOTDIR") throw error;
    await rm(path, { recursive: true, force: true });
  }
}
