import { mkdirSync, readFileSync, realpathSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { errnoOf, messageOf } from "#base/errors.ts";

/** What we read of `config.json`; everything else in it is kept when it is written. */
export interface ConfigFile {
  auths?: Record<string, StoredAuth>;
  credsStore?: string;
  credHelpers?: Record<string, string>;
  HttpHeaders?: Record<string, string>;
  currentContext?: string;
  detachKeys?: string;
  psFormat?: string;
  imagesFormat?: string;
  volumesFormat?: string;
  networksFormat?: string;
  statsFormat?: string;
  proxies?: Record<string, ProxyConfig>;
  [other: string]: unknown;
}

export interface StoredAuth {
  /** base64 of `user:password`. */
  auth?: string;
  username?: string;
  password?: string;
  email?: string;
  identitytoken?: string;
  registrytoken?: string;
}

export interface ProxyConfig {
  httpProxy?: string;
  httpsProxy?: string;
  noProxy?: string;
  ftpProxy?: string;
  allProxy?: string;
}

/** A configuration beyond this was not written by a client. */
const configBytesMax = 16 * 1024 * 1024;

export interface LoadedConfig {
  readonly file: ConfigFile;
  /** Something was wrong with it; it counts as empty then. */
  readonly warning?: string;
}

/** Reads `<directory>/config.json`; a missing file is an empty configuration, a broken one too, with a warning. */
export function loadConfigFile(directory: string): LoadedConfig {
  const path = join(directory, "config.json");
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOENT" || errno === "ENOTDIR") return { file: {} };
    return { file: {}, warning: `WARNING: Error loading config file: ${messageOf(error)}` };
  }
  try {
    if (text.length > configBytesMax) throw new Error("file is too long");
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error("not an object");
    return { file: value as ConfigFile };
  } catch (error) {
    return {
      file: {},
      warning: `WARNING: Error parsing config file (${path}): ${messageOf(error)}`,
    };
  }
}

/** Writes `config.json` through a temporary file, mode 0600; a link is followed, so that it stays one. */
export function saveConfigFile(directory: string, file: ConfigFile): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  let path = join(directory, "config.json");
  try {
    path = realpathSync(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
  const temporary = join(dirname(path), `.config.json.${process.pid}`);
  writeFileSync(temporary, `${JSON.stringify(file, undefined, "\t")}`, { mode: 0o600 });
  renameSync(temporary, path);
}
