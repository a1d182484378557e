/** Docker's contexts: named endpoints under `<config>/contexts`, a directory each, named by the sha256 of the name. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { EngineError, errnoOf } from "#base/errors.ts";
import { type Endpoint, parseEndpoint, type TlsMaterial } from "#sdk/endpoint.ts";

export interface ContextMeta {
  readonly Name: string;
  readonly Metadata: Readonly<Record<string, unknown>>;
  readonly Endpoints: Readonly<Record<string, { readonly Host?: string; readonly SkipTLSVerify?: boolean }>>;
}

// Loaded when a context is looked up: node:crypto costs every command's start some milliseconds.
const idOf = (name: string): string =>
  process.getBuiltinModule("node:crypto").createHash("sha256").update(name).digest("hex");
export const contextMetaDirectory = (config: string, name: string): string =>
  join(config, "contexts", "meta", idOf(name));
export const contextTlsDirectory = (config: string, name: string): string =>
  join(config, "contexts", "tls", idOf(name));

/** Throws `notFound` with Docker's words. */
export function readContext(config: string, name: string): ContextMeta {
  const path = join(contextMetaDirectory(config, name), "meta.json");
  try {
    return JSON.parse(readFileSync(path, "utf8")) as ContextMeta;
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    throw new EngineError(
      "notFound",
      `context "${name}": context not found: open ${path}: no such file or directory`,
      { cause: error },
    );
  }
}

/** All stored contexts, by name. */
export function listContexts(config: string): ContextMeta[] {
  const root = join(config, "contexts", "meta");
  let names: string[];
  try {
    names = readdirSync(root);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
  const found: ContextMeta[] = [];
  for (const name of names) {
    try {
      found.push(JSON.parse(readFileSync(join(root, name, "meta.json"), "utf8")) as ContextMeta);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT" && errnoOf(error) !== "ENOTDIR") throw error;
    }
  }
  return found.sort((one, other) => (one.Name < other.Name ? -1 : 1));
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** The names of a context's TLS files, by endpoint. */
export function contextTlsFiles(config: string, name: string): Record<string, string[]> {
  const root = contextTlsDirectory(config, name);
  try {
    return Object.fromEntries(
      readdirSync(root).map((endpoint) => [endpoint, readdirSync(join(root, endpoint)).sort()]),
    );
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return {};
    throw error;
  }
}

export function contextEndpoint(config: string, name: string): Endpoint {
  const meta = readContext(config, name);
  const docker = meta.Endpoints["docker"];
  if (docker?.Host === undefined || docker.Host === "") {
    throw new EngineError("notFound", `context "${name}" has no docker endpoint`);
  }
  const directory = join(contextTlsDirectory(config, name), "docker");
  const ca = readIfThere(join(directory, "ca.pem"));
  const cert = readIfThere(join(directory, "cert.pem"));
  const key = readIfThere(join(directory, "key.pem"));
  const hasTls = ca !== undefined || cert !== undefined || docker.SkipTLSVerify === true;
  const tls: TlsMaterial = {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    verify: docker.SkipTLSVerify !== true,
  };
  return parseEndpoint(docker.Host, hasTls ? tls : undefined);
}
