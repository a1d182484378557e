import { createWriteStream } from "node:fs";
import { open } from "node:fs/promises";
import type { Writable } from "node:stream";
import { formatTime, systemClock } from "#base/clock.ts";
import type { RequestRecord } from "./registry.ts";
import { SettingsError } from "./settings.ts";
import { unreadable } from "./settings-file.ts";

/** A request as it is logged and counted: the registry's own, or one for a token. */
export type ServedRequest = Omit<RequestRecord, "route"> & {
  readonly route: RequestRecord["route"] | "token";
};

export interface AccessLog extends AsyncDisposable {
  write(request: ServedRequest): void;
  /** Opens the file anew, so that it can be moved away before. */
  reopen(): Promise<void>;
  /** Lines that were dropped because nobody took them. */
  readonly dropped: number;
}

/** A reader of standard output that stands still must not fill our memory. */
const bufferedBytesMax = 1024 * 1024;
/** Nothing that comes from a client makes a longer line than this much text. */
const textLengthMax = 1024;

/** Parameters of the distribution spec: all others may hold anything, a token included, and are not logged. */
const loggedParameters: ReadonlySet<string> = new Set([
  "n",
  "last",
  "digest",
  "mount",
  "from",
  "artifactType",
]);

/** `-`: standard output; `off`: nothing; else a path that is appended to. Throws `SettingsError`. */
export async function openAccessLog(target: string): Promise<AccessLog> {
  if (target === "off") {
    return { write: () => {}, reopen: async () => {}, dropped: 0, [Symbol.asyncDispose]: async () => {} };
  }
  const first = target === "-" ? process.stdout : await openFile(target);
  return new LineLog(first, target === "-" ? undefined : target);
}

class LineLog implements AccessLog {
  readonly #path: string | undefined;
  #stream: Writable;
  #dropped = 0;

  constructor(stream: Writable, path: string | undefined) {
    this.#stream = stream;
    this.#path = path;
    stream.on("error", () => {});
  }

  get dropped(): number {
    return this.#dropped;
  }

  write(request: ServedRequest): void {
    if (this.#stream.writableLength > bufferedBytesMax || !this.#stream.writable) this.#dropped += 1;
    else this.#stream.write(formatAccess(request, systemClock.nowNs()));
  }

  async reopen(): Promise<void> {
    if (this.#path === undefined) return;
    const next = await openFile(this.#path);
    next.on("error", () => {});
    const before = this.#stream;
    this.#stream = next;
    before.end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#path === undefined || !this.#stream.writable) return;
    await new Promise<void>((resolve) => this.#stream.end(resolve).once("error", () => resolve()));
  }
}

async function openFile(path: string): Promise<Writable> {
  try {
    // Names of users and repositories: for the administrator's eyes.
    const file = await open(path, "a", 0o640);
    return createWriteStream(path, { fd: file });
  } catch (error) {
    throw new SettingsError(`access-log ${unreadable(path, error).message}`);
  }
}

/** One line. `time` is that of the answer's end. */
export function formatAccess(request: ServedRequest, nowNs: bigint): string {
  const { userAgent, user, repository } = request;
  const line = JSON.stringify({
    time: formatTime(nowNs),
    id: short(request.requestId),
    remote: request.remote,
    ...(user === undefined ? {} : { user: short(user) }),
    method: request.method,
    url: short(loggedUrl(request.url)),
    route: request.route,
    ...(repository === undefined ? {} : { repository: short(repository) }),
    status: request.status,
    bytesIn: request.bytesIn,
    bytesOut: request.bytesOut,
    ms: Math.round(request.milliseconds * 10) / 10,
    ...(userAgent === undefined ? {} : { userAgent: short(userAgent) }),
  });
  return `${escapeControls(line)}\n`;
}

function short(text: string): string {
  return text.length > textLengthMax ? `${text.slice(0, textLengthMax)}…` : text;
}

/** Path and known parameters; the values of others are left out, and so is whatever stands before a path. */
function loggedUrl(url: string): string {
  const question = url.indexOf("?");
  // An absolute form may name a user and a password (RFC 9112, section 3.2.2).
  const path = url.slice(0, question < 0 ? undefined : question).replace(/^[a-z][a-z0-9+.-]*:\/\/[^/]*/i, "");
  if (question < 0) return path;
  const parameters = url
    .slice(question + 1)
    .split("&")
    .map((part) => {
      const [name = ""] = part.split("=", 1);
      return loggedParameters.has(name) || !part.includes("=")
        ? part.slice(0, 300)
        : `${name.slice(0, 60)}=…`;
    });
  return `${path}?${parameters.slice(0, 16).join("&")}`;
}

/** JSON leaves DEL, C1, line separators and bidi controls as they are; on a terminal they are not text. */
function escapeControls(json: string): string {
  return json.replace(
    /[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
