import { closeSync, constants, openSync } from "node:fs";
import { SyscallError } from "#base/errors.ts";
import { check, libc } from "./libc.ts";

const flock = libc.func("int flock(int fd, int operation)");

/** <sys/file.h>, the same on every architecture. */
const lockExclusive = 2;
const lockNonBlocking = 4;

/**
 * Locks a directory for this process (flock(2), LOCK_EX) until it is disposed of or the process ends, however it ends.
 * Returns undefined when another process holds it. The descriptor is close-on-exec: no child keeps the lock.
 */
export function lockDirectory(path: string): Disposable | undefined {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    check(flock(fd, lockExclusive | lockNonBlocking), "flock", path);
  } catch (error) {
    closeSync(fd);
    // Two names of one number.
    if (error instanceof SyscallError && (error.errno === "EWOULDBLOCK" || error.errno === "EAGAIN")) {
      return undefined;
    }
    throw error;
  }
  return { [Symbol.dispose]: () => closeSync(fd) };
}
