import { isIP } from "node:net";
import { resolve } from "node:path";
import { type LogLevel, logLevels } from "#base/log.ts";
import {
  type RegistrySettingName,
  type RegistrySettingRow,
  registrySettings,
} from "#wire/registry-settings.ts";

/** What a registry server cannot be started with, in one line for the administrator. */
export class SettingsError extends Error {}

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

export interface TokenServerSettings {
  readonly realm: string;
  readonly service: string;
  readonly issuer: string;
  /** Path of a JWK set, or of certificates or public keys in PEM. */
  readonly keys: string;
}

export interface TlsFiles {
  readonly certificate: string;
  readonly key: string;
}

/** How a registry is served, checked and complete. Times in milliseconds. */
export interface ServeSettings {
  readonly listen: ListenAddress;
  readonly root: string;
  readonly readOnly: boolean;
  readonly tls: TlsFiles | undefined;
  readonly htpasswd: string | undefined;
  readonly acl: string | undefined;
  readonly anonymousPull: boolean;
  readonly issueTokens: boolean;
  readonly tokenServer: TokenServerSettings | undefined;
  readonly publicUrl: string | undefined;
  /** A path, `-` for standard output, or `off`. */
  readonly accessLog: string;
  readonly metricsListen: ListenAddress | undefined;
  /** 0: only when asked. */
  readonly gcIntervalMs: number;
  readonly gcGraceMs: number;
  readonly gcDeleteUntagged: boolean;
  readonly maxConnections: number;
  readonly stopTimeoutMs: number;
  readonly logLevel: LogLevel;
}

/** What differs between a process of its own and the daemon. */
export interface SettingDefaults {
  readonly root: string;
  readonly accessLog: string;
}

export const processDefaults: SettingDefaults = { root: "/var/lib/skiff/registry", accessLog: "-" };

const rows: ReadonlyMap<string, RegistrySettingRow> = new Map(registrySettings.map((row) => [row.name, row]));
const defaultPort = 5000;
const daysMsMax = 366 * 24 * 3_600_000;

/**
 * Checks settings as flags or a configuration file give them: values are texts, or booleans and numbers where they are
 * such. Throws `SettingsError` with all that is wrong.
 */
export function readSettings(
  given: Readonly<Record<string, unknown>>,
  defaults: SettingDefaults,
): ServeSettings {
  const read = new SettingReader(given);
  const settings: ServeSettings = {
    listen: read.address("listen") ?? { host: "127.0.0.1", port: defaultPort },
    root: resolve(read.text("root") ?? defaults.root),
    readOnly: read.bool("read-only"),
    tls: tlsFiles(read),
    htpasswd: read.path("htpasswd"),
    acl: read.path("acl"),
    anonymousPull: read.bool("anonymous-pull"),
    issueTokens: read.bool("issue-tokens") || read.bool("anonymous-pull"),
    tokenServer: tokenServer(read),
    publicUrl: read.url("public-url")?.replace(/\/+$/, ""),
    accessLog: accessLog(read, defaults),
    metricsListen: read.address("metrics-listen"),
    gcIntervalMs: read.duration("gc-interval", 0),
    gcGraceMs: read.duration("gc-grace", 3_600_000),
    gcDeleteUntagged: read.bool("gc-delete-untagged"),
    maxConnections: read.integer("max-connections", 1000, 1, 1_000_000),
    stopTimeoutMs: read.duration("stop-timeout", 10_000),
    logLevel: logLevel(read),
  };
  checkTogether(read, settings);
  if (read.problems.length > 0) throw new SettingsError(read.problems.join("; "));
  return settings;
}

function tlsFiles(read: SettingReader): TlsFiles | undefined {
  const certificate = read.path("tls-cert");
  const key = read.path("tls-key");
  if (certificate !== undefined && key !== undefined) return { certificate, key };
  read.require(certificate === undefined && key === undefined, "tls-cert and tls-key belong together");
  return undefined;
}

function tokenServer(read: SettingReader): TokenServerSettings | undefined {
  const realm = read.url("token-realm");
  const service = read.quotable("token-service");
  const issuer = read.text("token-issuer");
  const keys = read.path("token-keys");
  const found = [realm, service, issuer, keys].filter((value) => value !== undefined).length;
  if (realm !== undefined && service !== undefined && issuer !== undefined && keys !== undefined) {
    return { realm, service, issuer, keys };
  }
  read.require(found === 0, "token-realm, token-service, token-issuer and token-keys belong together");
  return undefined;
}

function accessLog(read: SettingReader, defaults: SettingDefaults): string {
  const text = read.text("access-log") ?? defaults.accessLog;
  return text === "-" || text === "off" ? text : resolve(text);
}

function logLevel(read: SettingReader): LogLevel {
  const text = read.text("log-level") ?? "info";
  const level = logLevels.find((candidate) => candidate === text);
  read.require(level !== undefined, `log-level ${JSON.stringify(text)} is none of ${logLevels.join(", ")}`);
  return level ?? "info";
}

function checkTogether(read: SettingReader, settings: ServeSettings): void {
  const { listen, tls, htpasswd, tokenServer } = settings;
  read.require(
    tls !== undefined || isLoopback(listen.host) || read.bool("insecure-plain-http"),
    `listen ${listen.host} is not loopback and there is no TLS: give --tls-cert and --tls-key, or --insecure-plain-http to send passwords and images in the clear`,
  );
  read.require(
    htpasswd === undefined || tokenServer === undefined,
    "htpasswd and a token server (token-*) exclude each other",
  );
  for (const name of ["acl", "anonymous-pull", "issue-tokens"] as const) {
    read.require(htpasswd !== undefined || !read.isSet(name), `${name} needs htpasswd`);
  }
}

/** 127.0.0.0/8, ::1 and the name that means them. */
function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
}

/** `HOST:PORT`, `[IPV6]:PORT`, `:PORT` or `PORT`; undefined when it is none. */
export function parseListen(text: string): ListenAddress | undefined {
  const match = /^(?:(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9_.-]*)):)?(\d{1,5})$/.exec(text);
  if (match === null) return undefined;
  const [, ipv6, name, digits] = match;
  const port = Number(digits);
  if (port > 65_535 || (ipv6 !== undefined && isIP(ipv6) !== 6)) return undefined;
  return { host: ipv6 ?? (name || "127.0.0.1"), port };
}

/** Milliseconds of a text such as `1h30m`, `10s`, `250ms`, `0`; undefined when it is none. */
export function parseTime(text: string): number | undefined {
  if (text === "0") return 0;
  if (!/^(?:\d{1,9}(?:\.\d{1,3})?(?:ms|s|m|h))+$/.test(text)) return undefined;
  const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
  let total = 0;
  for (const [, value, unit] of text.matchAll(/([\d.]+)(ms|s|m|h)/g)) total += Number(value) * units[unit!]!;
  return Math.round(total);
}

class SettingReader {
  readonly problems: string[] = [];
  readonly #given = new Map<RegistrySettingName, string | boolean | number>();

  constructor(given: Readonly<Record<string, unknown>>) {
    for (const [name, value] of Object.entries(given)) {
      const row = rows.get(name);
      if (row === undefined) this.problems.push(`${name} is no setting of the registry`);
      else if (fits(row, value)) this.#given.set(row.name as RegistrySettingName, value);
      else this.problems.push(`${name} must be ${wanted[row.kind]}`);
    }
  }

  require(holds: boolean, problem: string): void {
    if (!holds) this.problems.push(problem);
  }

  isSet(name: RegistrySettingName): boolean {
    const value = this.#given.get(name);
    return value !== undefined && value !== false && value !== "false" && value !== "";
  }

  text(name: RegistrySettingName): string | undefined {
    const value = this.#given.get(name);
    return value === undefined || value === "" ? undefined : String(value);
  }

  path(name: RegistrySettingName): string | undefined {
    const text = this.text(name);
    return text === undefined ? undefined : resolve(text);
  }

  bool(name: RegistrySettingName): boolean {
    return String(this.#given.get(name) ?? false) === "true";
  }

  integer(name: RegistrySettingName, otherwise: number, min: number, max: number): number {
    const value = Number(this.text(name) ?? otherwise);
    this.require(value >= min && value <= max, `${name} must be from ${min} to ${max}`);
    return value;
  }

  /** At most a year: timers count no further than 24 days at a time, and nobody means more. */
  duration(name: RegistrySettingName, otherwise: number): number {
    const text = this.text(name);
    const value = text === undefined ? otherwise : parseTime(text);
    this.require(
      value !== undefined && value <= daysMsMax,
      `${name} ${JSON.stringify(text)} is no time such as 90s or 24h`,
    );
    return value ?? otherwise;
  }

  address(name: RegistrySettingName): ListenAddress | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const address = parseListen(text);
    this.require(address !== undefined, `${name} ${JSON.stringify(text)} is not HOST:PORT`);
    return address;
  }

  url(name: RegistrySettingName): string | undefined {
    const text = this.quotable(name);
    if (text === undefined) return undefined;
    const scheme = URL.canParse(text) ? new URL(text).protocol : "";
    this.require(
      scheme === "http:" || scheme === "https:",
      `${name} ${JSON.stringify(text)} is no http or https URL`,
    );
    return text;
  }

  /** What goes into a quoted part of a header. */
  quotable(name: RegistrySettingName): string | undefined {
    const text = this.text(name);
    this.require(text === undefined || /^[\x20-\x7e]+$/.test(text), `${name} must be plain ASCII`);
    this.require(text === undefined || !/["\\]/.test(text), `${name} must not hold quotes or backslashes`);
    return text;
  }
}

const wanted = {
  string: "a text",
  bool: "true or false",
  integer: "a whole number",
  duration: "a time such as 90s or 24h",
} as const;

function fits(row: RegistrySettingRow, value: unknown): value is string | boolean | number {
  switch (row.kind) {
    case "bool":
      return typeof value === "boolean" || value === "true" || value === "false";
    case "integer":
      return typeof value === "number" ? Number.isSafeInteger(value) : /^\d{1,9}$/.test(String(value));
    default:
      return typeof value === "string";
  }
}
