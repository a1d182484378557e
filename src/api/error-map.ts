import { EngineError, type ErrorKind, messageOf } from "#base/errors.ts";

/** Docker's httpstatus.FromError: the one place where an error becomes a status. */
const statusOf: Readonly<Record<ErrorKind, number>> = {
  notFound: 404,
  conflict: 409,
  invalid: 400,
  unauthorized: 401,
  forbidden: 403,
  notModified: 304,
  unavailable: 503,
  notImplemented: 501,
  cancelled: 500,
  system: 500,
};

/** Status and message for the client. What is no `EngineError` is a fault of ours: 500, and the caller logs its stack. */
export function mapError(error: unknown): { status: number; message: string; unexpected: boolean } {
  if (error instanceof EngineError) {
    return { status: statusOf[error.kind], message: error.message, unexpected: false };
  }
  return { status: 500, message: messageOf(error), unexpected: true };
}
