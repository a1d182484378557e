/** `-H` and the TLS settings: where the daemon listens and who may ask there, by dockerd's rules (opts/hosts.go). */
import { isIP } from "node:net";
import { join } from "node:path";

export type HostAddress =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  /** Passed on by systemd: all of them (""), the descriptor of that number, or those of that name. */
  | { readonly kind: "fd"; readonly which: string };

export interface TlsSettings {
  /** `server`: encrypted, and clients are not asked who they are. */
  readonly mode: "off" | "server" | "mutual";
  readonly authority: string;
  readonly certificate: string;
  readonly key: string;
}

/** The names that `skiff tls init` gives, below the directory of the configuration file. */
export const tlsDefaults = {
  authority: "/etc/skiff/ca.pem",
  certificate: "/etc/skiff/server-cert.pem",
  key: "/etc/skiff/server-key.pem",
} as const;

/** IANA's `docker` and `docker-s`. */
const plainPort = 2375;
const tlsPort = 2376;

/** Reads one `-H`. Throws with what is wrong with it, in one line. */
export function parseHost(text: string, tls: boolean, execRoot: string): HostAddress {
  const trimmed = text.trim();
  const match = /^([a-z]+):\/\/(.*)$/s.exec(trimmed);
  // As dockerd: `host:port` alone is TCP.
  const [scheme, rest] = match === null ? ["tcp", trimmed] : [match[1]!, match[2]!];
  switch (scheme) {
    case "unix":
      return unixAddress(text, rest, execRoot);
    case "fd":
      return fdAddress(text, rest);
    case "tcp":
      return tcpAddress(text, rest, tls);
    case "ssh":
    case "npipe":
      throw new Error(`host ${text} is not supported by skiffd: unix, tcp and fd are`);
    default:
      throw new Error(`invalid bind address format: ${text}`);
  }
}

function unixAddress(text: string, path: string, execRoot: string): HostAddress {
  if (path === "") return { kind: "unix", path: join(execRoot, "skiff.sock") };
  if (!path.startsWith("/")) throw new Error(`host ${text}: the path of a unix socket must be absolute`);
  // struct sockaddr_un holds 107 bytes and a NUL (unix(7)).
  if (Buffer.byteLength(path) > 107) {
    throw new Error(`host ${text} is longer than a socket's path can be (107 bytes)`);
  }
  return { kind: "unix", path };
}

function fdAddress(text: string, which: string): HostAddress {
  if (which === "" || which === "*") return { kind: "fd", which: "" };
  // sd_listen_fds(3): the first descriptor is 3; a name is up to 255 ASCII characters without a colon.
  if (/^\d+$/.test(which) ? Number(which) < 3 || Number(which) > 65_535 : !/^[!-9;-~]{1,255}$/.test(which)) {
    throw new Error(`host ${text} names neither a descriptor from 3 on nor one of FileDescriptorName=`);
  }
  return { kind: "fd", which };
}

function tcpAddress(text: string, rest: string, tls: boolean): HostAddress {
  const match = /^(?:\[([^\]]*)\]|([^:/?#[\]]*))(?::(\d{0,5}))?\/?$/.exec(rest);
  if (match === null) throw new Error(`invalid bind address (${text}): host:port is wanted`);
  const bracketed = match[1];
  // An empty host is this machine alone, as dockerd's default.
  const host = bracketed ?? (match[2] === "" ? "127.0.0.1" : match[2]!);
  const port = match[3] === undefined || match[3] === "" ? (tls ? tlsPort : plainPort) : Number(match[3]);
  if (port > 65_535) throw new Error(`invalid bind address (${text}): ${port} is no port`);
  const valid = bracketed === undefined ? isHostName(host) : isIP(bracketed.split("%")[0]!) === 6;
  if (!valid) throw new Error(`invalid bind address (${text}): ${JSON.stringify(host)} is no host`);
  return { kind: "tcp", host, port };
}

/** A name of DNS or an IPv4 address. */
export function isHostName(text: string): boolean {
  return isIP(text) === 4 || (text.length <= 253 && /^[a-zA-Z0-9_]([\w.-]*[\w])?\.?$/.test(text));
}

/** `tcp://host:port`, as it would be written. */
export function formatAddress(address: HostAddress): string {
  switch (address.kind) {
    case "unix":
      return `unix://${address.path}`;
    case "fd":
      return `fd://${address.which}`;
    case "tcp":
      return `tcp://${formatHostPort(address)}`;
  }
}

export function formatHostPort({ host, port }: { readonly host: string; readonly port: number }): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}
