/**
 * The head of an HTTP/1.1 request (RFC 9112). Node's own server cannot be used: it feeds bytes that a client sends
 * early on a connection about to be hijacked to its parser, and so loses a container's first input.
 */

/** As Go's net/http: request line and headers together. X-Registry-Config holds the credentials of many registries. */
export const headBytesMax = 1024 * 1024;
const headersMax = 1000;

export interface RequestHead {
  readonly method: string;
  /** Path with its query, as sent. */
  readonly target: string;
  /** Of a target in absolute form, as a proxy would be sent it. */
  readonly authority: string | undefined;
  readonly minorVersion: 0 | 1;
  /** Lower-case names; repeated ones joined by ", ". No prototype: a header called __proto__ is a plain key. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body: { readonly kind: "none" | "chunked" } | { readonly kind: "length"; readonly bytes: number };
  readonly keepAlive: boolean;
}

/** A request that is no HTTP: the connection is answered once, in plain text, and closed. */
export class BadRequest extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.name = "BadRequest";
    this.status = status;
  }
}

const tokenPattern = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

/** Index just behind the head's empty line, or -1. Bare newlines are taken too, as Go does. */
export function findHeadEnd(bytes: Buffer, from: number): number {
  for (let at = bytes.indexOf(10, from); at !== -1; at = bytes.indexOf(10, at + 1)) {
    if (bytes[at + 1] === 10) return at + 2;
    if (bytes[at + 1] === 13 && bytes[at + 2] === 10) return at + 3;
  }
  return -1;
}

export function parseHead(text: string): RequestHead {
  const lines = text.split("\n");
  const { method, target, authority, minorVersion } = parseRequestLine(stripCr(lines[0]!));
  const headers = parseHeaders(lines);
  if (minorVersion === 1 && headers["host"] === undefined) {
    throw new BadRequest(400, "missing required Host header");
  }
  const connection = headers["connection"]?.toLowerCase() ?? "";
  return {
    method,
    target,
    authority,
    minorVersion,
    headers,
    body: bodyKind(headers),
    keepAlive: minorVersion === 1 ? !hasToken(connection, "close") : hasToken(connection, "keep-alive"),
  };
}

function stripCr(line: string): string {
  return line.endsWith("\r") ? line.slice(0, -1) : line;
}

function hasToken(value: string, token: string): boolean {
  return value !== "" && value.split(",").some((part) => part.trim() === token);
}

function parseRequestLine(
  line: string,
): Pick<RequestHead, "method" | "target" | "authority" | "minorVersion"> {
  const match = /^([A-Z]{1,20}) (\S+) HTTP\/1\.([01])$/.exec(line);
  if (match === null) {
    throw / HTTP\/[2-9]/.test(line)
      ? new BadRequest(505, "unsupported protocol version")
      : new BadRequest(400, "malformed HTTP request");
  }
  let target = match[2]!;
  const absolute = /^https?:\/\/([^/?]*)/i.exec(target);
  if (absolute !== null) target = target.slice(absolute[0].length) || "/";
  if (!target.startsWith("/")) throw new BadRequest(400, "malformed request target");
  return { method: match[1]!, target, authority: absolute?.[1], minorVersion: match[3] === "1" ? 1 : 0 };
}

function parseHeaders(lines: readonly string[]): Record<string, string | undefined> {
  const headers: Record<string, string | undefined> = Object.create(null);
  if (lines.length > headersMax) throw new BadRequest(431, "too many headers");
  for (let index = 1; index < lines.length; index += 1) {
    const line = stripCr(lines[index]!);
    if (line === "") break;
    const colon = line.indexOf(":");
    const name = line.slice(0, Math.max(colon, 0));
    // A folded line starts with a space and is caught here too: refused, as RFC 9112 §5.2 allows.
    if (!tokenPattern.test(name)) throw new BadRequest(400, "malformed header line");
    const value = line.slice(colon + 1).trim();
    if (/[\0\r]/.test(value)) throw new BadRequest(400, "invalid header value");
    const key = name.toLowerCase();
    const before = headers[key];
    if (before !== undefined && (key === "host" || key === "transfer-encoding")) {
      throw new BadRequest(400, `too many ${key} headers`);
    }
    if (key === "content-length" && before !== undefined) {
      if (before !== value) throw new BadRequest(400, "differing Content-Length headers");
      continue;
    }
    headers[key] = before === undefined ? value : `${before}, ${value}`;
  }
  return headers;
}

function bodyKind(headers: Readonly<Record<string, string | undefined>>): RequestHead["body"] {
  const encoding = headers["transfer-encoding"];
  const length = headers["content-length"];
  if (encoding !== undefined) {
    // Both together is how requests are smuggled (RFC 9112 §6.1): no client of ours sends that.
    if (length !== undefined) throw new BadRequest(400, "Transfer-Encoding together with Content-Length");
    if (encoding.toLowerCase() !== "chunked") throw new BadRequest(501, "unsupported transfer encoding");
    return { kind: "chunked" };
  }
  if (length === undefined || length === "0") return { kind: "none" };
  if (!/^[0-9]{1,15}$/.test(length)) throw new BadRequest(400, "bad Content-Length");
  return Number(length) === 0 ? { kind: "none" } : { kind: "length", bytes: Number(length) };
}
