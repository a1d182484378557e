import { execFileSync } from "node:child_process";

/** Runs something with the kernel's own view of layers mounted at a directory. */
export function withOverlay<Result>(mountPoint: string, options: string, use: () => Result): Result {
  execFileSync("mount", ["-t", "overlay", "-o", options, "overlay", mountPoint]);
  try {
    return use();
  } finally {
    execFileSync("umount", [mountPoint]);
  }
}
