/**
 * The one error class of the engine. `kind` is a closed set that `api/error-map.ts` maps to an HTTP status
 * once; `message` is the text a client sees, so it is Docker's wording wherever Docker has one.
 */
export const errorKinds = [
  "notFound",
  "conflict",
  "invalid",
  "unauthorized",
  "forbidden",
  "notModified",
  "unavailable",
  "notImplemented",
  "cancelled",
  "system",
] as const;

export type ErrorKind = (typeof errorKinds)[number];

export interface EngineErrorOptions {
  /** A short stable name for programs and tests, for example `name-in-use`. */
  readonly code?: string;
  readonly cause?: unknown;
}

export class EngineError extends Error {
  readonly kind: ErrorKind;
  readonly code: string;

  constructor(kind: ErrorKind, message: string, options: EngineErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "EngineError";
    this.kind = kind;
    this.code = options.code ?? kind;
  }
}

/** A system call that failed: carries the call, the errno name (`ENOENT`) and the path it was about. */
export class SyscallError extends EngineError {
  readonly call: string;
  readonly errno: string;
  readonly path: string | undefined;

  constructor(call: string, errno: string, path?: string) {
    const where = path === undefined ? "" : ` ${path}`;
    super(
      errno === "ENOSPC" || errno === "EDQUOT" ? "unavailable" : "system",
      `${call}${where}: ${describeErrno(errno)}`,
      {
        code: errno,
      },
    );
    this.name = "SyscallError";
    this.call = call;
    this.errno = errno;
    this.path = path;
  }
}

/** Go's text for the errno names that reach users (Docker's clients match on some of them). */
const errnoTexts: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EBUSY: "device or resource busy",
  EEXIST: "file exists",
  EINVAL: "invalid argument",
  EIO: "input/output error",
  EISDIR: "is a directory",
  ELOOP: "too many levels of symbolic links",
  EMFILE: "too many open files",
  ENAMETOOLONG: "file name too long",
  ENOENT: "no such file or directory",
  ENOMEM: "cannot allocate memory",
  ENOSPC: "no space left on device",
  ENOTDIR: "not a directory",
  ENOTEMPTY: "directory not empty",
  ENXIO: "no such device or address",
  EPERM: "operation not permitted",
  EROFS: "read-only file system",
  ESRCH: "no such process",
  EXDEV: "invalid cross-device link",
};

export function describeErrno(errno: string): string {
  return errnoTexts[errno] ?? errno;
}

/** The errno name of a Node or syscall error, or undefined for anything else. */
export function errnoOf(error: unknown): string | undefined {
  if (error instanceof SyscallError) return error.errno;
  if (
    error instanceof Error &&
    "code" in error &&
    typeof error.code === "string" &&
    /^E[A-Z0-9]+$/.test(error.code)
  ) {
    return error.code;
  }
  return undefined;
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
