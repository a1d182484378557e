import { STATUS_CODES } from "node:http";
import { EngineError } from "#base/errors.ts";
import type { Challenge } from "./challenge.ts";
import { parseChallenges } from "./challenge.ts";
import type { HttpAnswer } from "./transport.ts";

/** An answer of a registry that is an error. `registryCode` is the distribution spec's (`MANIFEST_UNKNOWN`). */
export class RegistryError extends EngineError {
  readonly registryCode: string;
  readonly status: number;
  /** `Retry-After`, where the registry sent one. */
  readonly retryAfter: string | undefined;

  constructor(registryCode: string, message: string, status: number, retryAfter?: string) {
    super("system", message, { code: `registry-${registryCode.toLowerCase().replaceAll("_", "-")}` });
    this.name = "RegistryError";
    this.registryCode = registryCode;
    this.status = status;
    this.retryAfter = retryAfter;
  }

  get retryable(): boolean {
    return this.status === 429 || this.status === 408 || this.status >= 500;
  }
}

/** What the distribution client says for a code when the registry says nothing. */
const codeMessages: Readonly<Record<string, string>> = {
  UNAUTHORIZED: "authentication required",
  DENIED: "requested access to the resource is denied",
  TOOMANYREQUESTS: "too many requests",
  MANIFEST_UNKNOWN: "manifest unknown",
  NAME_UNKNOWN: "repository name not known to registry",
  BLOB_UNKNOWN: "blob unknown to registry",
};

/** An error message from a registry reaches terminals and logs: one line, no control characters, bounded. */
export function plainText(text: string, lengthMax = 1024): string {
  const clean = text.replace(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]+/g, " ");
  return clean.length > lengthMax ? `${clean.slice(0, lengthMax)}…` : clean;
}

function make(code: string, message: string, answer: HttpAnswer): RegistryError {
  const known = /^[A-Z][A-Z0-9_]{1,63}$/.test(code) ? code : "UNKNOWN";
  const label = known.replaceAll("_", " ").toLowerCase();
  const text = message === "" ? (codeMessages[known] ?? "unknown error") : plainText(message);
  const retryAfter = answer.headers["retry-after"];
  return new RegistryError(known, `${label}: ${text}`, answer.status, retryAfter);
}

/** An OAuth error in the challenge (RFC 6750 §3.1) tells more than the body. */
function fromChallenges(challenges: readonly Challenge[], answer: HttpAnswer): RegistryError | undefined {
  for (const { scheme, parameters } of challenges) {
    if (scheme !== "bearer") continue;
    const error = parameters.get("error");
    const description = parameters.get("error_description") ?? "";
    if (error === "insufficient_scope") return make("DENIED", description, answer);
    if (error === "invalid_token") return make("UNAUTHORIZED", description, answer);
  }
  return undefined;
}

/** The error an answer stands for. `body` is its text, read within a bound. Wording of the distribution client. */
export function registryError(answer: HttpAnswer, body: string): RegistryError {
  if (answer.status >= 400 && answer.status < 500) {
    const oauth = fromChallenges(parseChallenges(answer.headers["www-authenticate"]), answer);
    if (oauth !== undefined) return oauth;
  }
  const listed = firstListed(body);
  if (listed !== undefined) return make(listed.code, listed.message, answer);
  if (answer.status === 401) return make("UNAUTHORIZED", "", answer);
  if (answer.status === 403) return make("DENIED", "", answer);
  if (answer.status === 429) return make("TOOMANYREQUESTS", "", answer);
  const status = `${answer.status} ${STATUS_CODES[answer.status] ?? ""}`.trim();
  const message = `received unexpected HTTP status: ${status}`;
  return new RegistryError("UNKNOWN", message, answer.status, answer.headers["retry-after"]);
}

function firstListed(body: string): { code: string; message: string } | undefined {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { errors, details } = value as { errors?: unknown; details?: unknown };
  if (typeof details === "string" && details !== "") return { code: "UNAUTHORIZED", message: details };
  const first: unknown = Array.isArray(errors) ? errors[0] : undefined;
  if (typeof first !== "object" || first === null) return undefined;
  const { code, message } = first as { code?: unknown; message?: unknown };
  return {
    code: typeof code === "string" ? code.toUpperCase() : "UNKNOWN",
    message: typeof message === "string" ? message : "",
  };
}
