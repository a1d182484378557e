import { createRequire } from "node:module";
import { constants } from "node:os";
import { SyscallError } from "#base/errors.ts";

/**
 * The C library through koffi, the only place that loads it. Synchronous, short calls only: errno is read right after
 * the call, and a call that can sleep belongs in a worker or in the native helpers (docs/internals/native.md).
 * Typed wrappers live in the sibling files; no pointer leaves `sys/`.
 */
const require = createRequire(import.meta.url);
export const koffi = require("koffi") as typeof import("koffi");

export const libc = koffi.load("libc.so.6");

const errnoNames = new Map<number, string>(
  Object.entries(constants.errno).map(([name, value]) => [value, name]),
);

/** The name of an errno number: `ENOENT`. */
export function errnoName(errno: number): string {
  return errnoNames.get(errno) ?? `E${errno}`;
}

/** Returns the result of a call that gives -1 on failure, or throws `SyscallError` with the errno's name. */
export function check(result: number, call: string, path?: string): number {
  if (result < 0) throw new SyscallError(call, errnoName(koffi.errno()), path);
  return result;
}
