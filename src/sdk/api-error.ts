import { EngineError, type ErrorKind } from "#base/errors.ts";

const kindByStatus: Readonly<Record<number, ErrorKind>> = {
  304: "notModified",
  400: "invalid",
  401: "unauthorized",
  403: "forbidden",
  404: "notFound",
  409: "conflict",
  501: "notImplemented",
  503: "unavailable",
};

/** An answer of the daemon with status 400 or more: `message` is the daemon's own text. */
export class ApiError extends EngineError {
  readonly status: number;

  constructor(status: number, message: string) {
    super(kindByStatus[status] ?? "system", message, { code: `http-${status}` });
    this.name = "ApiError";
    this.status = status;
  }
}

/** No daemon answered: nothing listens, no permission, or the connection broke before an answer. */
export class ConnectionError extends EngineError {
  /** What went wrong, without what was attempted: `EOF`. Set where the request was not told in the message. */
  readonly reason: string | undefined;

  constructor(message: string, options: { code?: string; cause?: unknown; reason?: string } = {}) {
    super("unavailable", message, options);
    this.name = "ConnectionError";
    this.reason = options.reason;
  }
}

/** The text of an error body: Docker's `{"message": …}`, else the body itself, else the status line. */
export function errorMessageOf(status: number, reason: string, body: string): string {
  const text = body.trim();
  if (text === "") return `request returned ${status} ${reason}`;
  if (text.startsWith("{")) {
    try {
      const parsed: unknown = JSON.parse(text);
      if (typeof parsed === "object" && parsed !== null && "message" in parsed) {
        return String(parsed.message).trim();
      }
    } catch {
      // Not JSON after all: the text is the message.
    }
  }
  return text;
}
