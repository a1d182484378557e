import { EngineError } from "#base/errors.ts";

/** What a client sends in `X-Registry-Auth`: for the one registry that the request is about. Never logged. */
export interface Credentials {
  readonly username: string;
  readonly password: string;
  /** A refresh token of an OAuth2 token server; used instead of the password. */
  readonly identityToken: string;
  /** A Bearer token made outside; sent as it is. */
  readonly registryToken: string;
  readonly serverAddress: string;
}

/** Cloud registries hand out tokens of a few KiB; 64 KiB is far beyond any. */
const headerBytesMax = 64 * 1024;

/**
 * Decodes `X-Registry-Auth` (base64url of Docker's AuthConfig JSON). Undefined for no header or an empty object.
 * Throws `invalid` when it cannot be read; a pull ignores that, as Docker's does.
 */
export function decodeRegistryAuth(header: string | undefined): Credentials | undefined {
  if (header === undefined || header === "") return undefined;
  const broken = (cause?: unknown): EngineError =>
    new EngineError("invalid", "invalid X-Registry-Auth header", { code: "bad-registry-auth", cause });
  if (header.length > headerBytesMax || !/^[A-Za-z0-9_+/=-]+$/.test(header)) throw broken();
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(header, "base64url").toString("utf8"));
  } catch (cause) {
    throw broken(cause);
  }
  if (value === null) return undefined;
  if (typeof value !== "object" || Array.isArray(value)) throw broken();
  const fields = new Map(Object.entries(value).map(([key, entry]) => [key.toLowerCase(), entry as unknown]));
  const text = (key: string): string => {
    const entry = fields.get(key) ?? "";
    if (typeof entry !== "string") throw broken();
    return entry;
  };
  const packed = unpackAuth(text("auth"));
  const credentials: Credentials = {
    username: text("username") || packed.username,
    password: text("password") || packed.password,
    identityToken: text("identitytoken"),
    registryToken: text("registrytoken"),
    serverAddress: text("serveraddress"),
  };
  const { username, password, identityToken, registryToken } = credentials;
  return username === "" && password === "" && identityToken === "" && registryToken === ""
    ? undefined
    : credentials;
}

/** The `auth` field: base64 of `user:password`. */
function unpackAuth(auth: string): { username: string; password: string } {
  const text = auth === "" ? "" : Buffer.from(auth, "base64").toString("utf8");
  const colon = text.indexOf(":");
  return colon <= 0
    ? { username: "", password: "" }
    : { username: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, "") };
}

/** The value of an `Authorization: Basic` header. */
export function basicAuthorization(credentials: Credentials): string {
  return `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString("base64")}`;
}
