/**
 * Docker's contexts: named endpoints under `<config>/contexts`, a directory each, named by the sha256 of the name. The
 * store is Docker's own, so that its client and ours share contexts.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { EngineError, errnoOf } from "#base/errors.ts";
import type { TlsMaterial } from "#sdk/endpoint.ts";

export interface ContextMeta {
  readonly Name: string;
  readonly Metadata: Readonly<Record<string, unknown>>;
  readonly Endpoints: Readonly<Record<string, { readonly Host?: string; readonly SkipTLSVerify?: boolean }>>;
}

/** TLS files by endpoint and name: `docker` → `ca.pem`, `cert.pem`, `key.pem`. */
export type ContextTls = ReadonlyMap<string, ReadonlyMap<string, Buffer>>;

export interface StoredContext {
  readonly meta: ContextMeta;
  readonly tls: ContextTls;
}

// Loaded when a context is looked up: node:crypto costs every command's start some milliseconds.
const idOf = (name: string): string =>
  process.getBuiltinModule("node:crypto").createHash("sha256").update(name).digest("hex");
export const contextMetaDirectory = (config: string, name: string): string =>
  join(config, "contexts", "meta", idOf(name));
export const contextTlsDirectory = (config: string, name: string): string =>
  join(config, "contexts", "tls", idOf(name));

const namePattern = "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$";

/** Throws `invalid` with Docker's words for a name that no stored context can have. */
export function checkContextName(name: string): void {
  if (name === "") throw new EngineError("invalid", "context name cannot be empty");
  if (name === "default") throw new EngineError("invalid", '"default" is a reserved context name');
  if (!new RegExp(namePattern).test(name))
    throw new EngineError(
      "invalid",
      `context name ${JSON.stringify(name)} is invalid, names are validated against regexp ${JSON.stringify(namePattern)}`,
    );
}

export function contextExists(config: string, name: string): boolean {
  const path = join(contextMetaDirectory(config, name), "meta.json");
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** Throws `notFound` with Docker's words. */
export function readContext(config: string, name: string): ContextMeta {
  const path = join(contextMetaDirectory(config, name), "meta.json");
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    throw new EngineError(
      "notFound",
      `context "${name}": context not found: open ${path}: no such file or directory`,
      { cause: error },
    );
  }
  return parseMeta(text);
}

/** Reads a meta.json; what is missing is empty. Throws `invalid` when it is no JSON object. */
export function parseMeta(text: string): ContextMeta {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new EngineError("invalid", "invalid context: its metadata is not JSON", { cause: error });
  }
  const object = (one: unknown): Record<string, unknown> =>
    typeof one === "object" && one !== null && !Array.isArray(one) ? (one as Record<string, unknown>) : {};
  const { Name, Metadata, Endpoints } = object(value);
  for (const [endpoint, about] of Object.entries(object(Endpoints))) {
    const { Host = "" } = object(about);
    if (typeof Host !== "string")
      throw new EngineError("invalid", `invalid context: the host of its endpoint ${endpoint} is no text`);
  }
  return {
    Name: typeof Name === "string" ? Name : "",
    Metadata: object(Metadata),
    Endpoints: object(Endpoints) as ContextMeta["Endpoints"],
  };
}

/** All stored contexts, by name. */
export function listContexts(config: string): ContextMeta[] {
  const root = join(config, "contexts", "meta");
  const found: ContextMeta[] = [];
  for (const name of namesIn(root)) {
    try {
      found.push(parseMeta(readFileSync(join(root, name, "meta.json"), "utf8")));
    } catch (error) {
      if (errnoOf(error) !== "ENOENT" && errnoOf(error) !== "ENOTDIR") throw error;
    }
  }
  return found.sort((one, other) => (one.Name < other.Name ? -1 : 1));
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory).sort();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** The TLS files of a context. */
export function readContextTls(config: string, name: string): ContextTls {
  const root = contextTlsDirectory(config, name);
  return new Map(
    namesIn(root).map((endpoint) => [
      endpoint,
      new Map(namesIn(join(root, endpoint)).map((file) => [file, readFileSync(join(root, endpoint, file))])),
    ]),
  );
}

/** Stores a context in place of one of its name. Its TLS files come first: it is never seen without them. */
export function writeContext(config: string, { meta, tls }: StoredContext): void {
  const tlsDirectory = contextTlsDirectory(config, meta.Name);
  rmSync(tlsDirectory, { recursive: true, force: true });
  mkdirSync(config, { recursive: true, mode: 0o700 });
  for (const [endpoint, files] of tls) {
    const directory = join(tlsDirectory, endpoint);
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    for (const [file, bytes] of files) writeFileSync(join(directory, file), bytes, { mode: 0o600 });
  }
  const directory = contextMetaDirectory(config, meta.Name);
  mkdirSync(directory, { recursive: true, mode: 0o755 });
  const temporary = join(directory, `.meta.json.${process.pid}`);
  writeFileSync(temporary, JSON.stringify(meta), { mode: 0o644 });
  renameSync(temporary, join(directory, "meta.json"));
}

export function removeContext(config: string, name: string): void {
  rmSync(contextMetaDirectory(config, name), { recursive: true, force: true });
  rmSync(contextTlsDirectory(config, name), { recursive: true, force: true });
}

/** Endpoint and TLS of a stored context; the host is "" where it has none. Throws `notFound`. */
export function storedTarget(
  config: string,
  name: string,
): { readonly host: string; readonly tls: TlsMaterial | undefined } {
  const endpoint = readContext(config, name).Endpoints["docker"];
  if (endpoint === undefined)
    throw new EngineError("notFound", `cannot find docker endpoint in context ${JSON.stringify(name)}`);
  const files = readContextTls(config, name).get("docker");
  const text = (file: string): string | undefined => files?.get(file)?.toString();
  const skip = endpoint.SkipTLSVerify === true;
  const any = files !== undefined && files.size > 0;
  const tls = any || skip ? definedTls(text("ca.pem"), text("cert.pem"), text("key.pem"), !skip) : undefined;
  return { host: endpoint.Host ?? "", tls };
}

/** The parts of TLS that are there. */
export function definedTls(
  ca: string | undefined,
  cert: string | undefined,
  key: string | undefined,
  verify: boolean,
): TlsMaterial {
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    verify,
  };
}

/** Holds certificates and keys against each other before a daemon is dialled. Throws `invalid` with Docker's words. */
export function checkTls(tls: TlsMaterial | undefined): void {
  if (tls === undefined) return;
  const bad = (reason: string): EngineError =>
    new EngineError("invalid", `failed to retrieve context tls info: ${reason}`);
  if (tls.ca !== undefined && tls.ca !== "" && certificateOf(tls.ca) === undefined)
    throw bad("ca.pem seems invalid");
  if (tls.cert === undefined || tls.key === undefined) return;
  const certificate = certificateOf(tls.cert);
  if (certificate === undefined) throw bad("tls: failed to find any PEM data in certificate input");
  let matches: boolean;
  try {
    const { createPrivateKey } = process.getBuiltinModule("node:crypto");
    matches = certificate.checkPrivateKey(createPrivateKey(tls.key));
  } catch {
    throw bad("tls: failed to find any PEM data in key input");
  }
  if (!matches) throw bad("tls: private key does not match public key");
}

function certificateOf(pem: string): InstanceType<typeof import("node:crypto").X509Certificate> | undefined {
  try {
    const { X509Certificate } = process.getBuiltinModule("node:crypto");
    return new X509Certificate(pem);
  } catch {
    return undefined;
  }
}
