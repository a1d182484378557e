import { connect as connectPlain, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { EngineError } from "#base/errors.ts";
import { connectFailure, DialTimeout } from "./connect-failure.ts";
import { keepAliveDelayMs, watchLink } from "./link-watch.ts";
import { dialSsh, parseSsh } from "./ssh.ts";

/** TLS material for a `tcp://` endpoint, as PEM text. `verify: false` accepts any server certificate. */
export interface TlsMaterial {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly verify: boolean;
}

/** Where a daemon is, and how to open a byte stream to it. */
export interface Endpoint {
  /** As the user wrote it, for messages: `unix:///run/skiff/skiff.sock`. */
  readonly host: string;
  /** Value of the Host header; any name will do on a unix socket. */
  readonly authority: string;
  /** Prefix of every path (`tcp://host:1/prefix`), without a trailing slash. */
  readonly basePath: string;
  /** What stands before the path in messages: `https://host:2376`. */
  readonly origin: string;
  dial(): Promise<Duplex>;
}

export interface EndpointOptions {
  readonly tls?: TlsMaterial | undefined;
  /** The name we were called by: as `docker`, ssh runs Docker's client on the far side. */
  readonly program?: string;
  /** Silence after which a TCP connection is probed. */
  readonly keepAliveMs?: number;
}

/** A TCP connection, and then its TLS handshake, may take as long. Docker's client gives as much. */
const dialMs = 10_000;

/**
 * Understands `unix://`, `tcp://`, `http(s)://` and `ssh://user@host`, in full: what users may leave out is completed
 * before (cli/global-options.ts). Throws `invalid` with Docker's wording for anything else.
 */
export function parseEndpoint(host: string, options: EndpointOptions = {}): Endpoint {
  if (host.startsWith("ssh://")) return sshEndpoint(host, options.program ?? "skiff");
  const match = /^([a-z]+):\/\/(.+)$/.exec(host);
  if (match === null) throw new EngineError("invalid", `unable to parse docker host \`${host}\``);
  const [, scheme, rest] = match as unknown as [string, string, string];
  const { tls } = options;
  if (scheme === "unix") return unixEndpoint(host, rest);
  if (scheme === "tcp" || scheme === "http" || scheme === "https") {
    const material = scheme === "https" && tls === undefined ? { verify: true } : tls;
    return tcpEndpoint(host, rest, material, options.keepAliveMs ?? keepAliveDelayMs);
  }
  throw new EngineError("invalid", "protocol not available");
}

function unixEndpoint(host: string, path: string): Endpoint {
  return {
    host,
    authority: "api.moby.localhost",
    basePath: "",
    origin: `http://${encodeURIComponent(path)}`,
    dial: () => opened(connectPlain({ path, allowHalfOpen: true }), host, path),
  };
}

function tcpEndpoint(
  host: string,
  rest: string,
  tls: TlsMaterial | undefined,
  keepAliveMs: number,
): Endpoint {
  const match = /^(?:[^@/]*@)?(\[[^\]]*\]|[^:/?#]*)(?::(\d+))?([^?#]*)/.exec(rest);
  const name = match?.[1] ?? "";
  if (name === "") throw new EngineError("invalid", `unable to parse docker host \`${host}\``);
  const port = Number(match![2] ?? (tls === undefined ? 2375 : 2376));
  const hostname = name.replace(/^\[|\]$/g, "");
  const address = `${name}:${port}`;
  const dial = async (): Promise<Duplex> => {
    if (port > 65_535) throw connectFailure(host, address, badPort());
    const socket = connectPlain({ host: hostname, port, allowHalfOpen: true, noDelay: true });
    await opened(socket, host, address);
    const top = tls === undefined ? socket : await secured(socket, { hostname, host, address }, tls);
    watchLink(socket, top, keepAliveMs);
    return top;
  };
  return {
    host,
    authority: address,
    basePath: match![3]!.replace(/\/+$/, ""),
    origin: `${tls === undefined ? "http" : "https"}://${address}`,
    dial,
  };
}

const badPort = (): Error => Object.assign(new Error("invalid port"), { code: "ERR_SOCKET_BAD_PORT" });

async function secured(
  socket: Socket,
  { hostname, host, address }: { hostname: string; host: string; address: string },
  tls: TlsMaterial,
): Promise<Socket> {
  const { connect } = await import("node:tls");
  const { ca, cert, key, verify } = tls;
  const secure = connect({
    socket,
    host: hostname,
    ...(/^[\d.]+$|:/.test(hostname) ? {} : { servername: hostname }),
    ...(ca === undefined ? {} : { ca }),
    // One without the other is no identity: Docker's client leaves it out, too.
    ...(cert === undefined || key === undefined ? {} : { cert, key }),
    minVersion: "TLSv1.2",
    // A certificate given as authority is trusted as it is, also when it is none: so Go does, and so users pin one.
    allowPartialTrustChain: true,
    rejectUnauthorized: verify,
  });
  return opened(secure, host, address, "secureConnect");
}

function sshEndpoint(host: string, program: string): Endpoint {
  const target = parseSsh(host);
  return {
    host,
    authority: "docker.example.com",
    basePath: "",
    origin: "http://docker.example.com",
    dial: () => dialSsh(target, program),
  };
}

function opened(socket: Socket, host: string, address: string, event = "connect"): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => socket.destroy(new DialTimeout("i/o timeout")), dialMs);
    const finish = (): void => {
      clearTimeout(timer);
      socket.removeListener("error", failed);
      socket.removeListener("close", closed);
    };
    const failed = (cause: Error): void => {
      finish();
      socket.destroy();
      reject(connectFailure(host, address, cause));
    };
    const closed = (): void => failed(new Error("EOF"));
    socket.once("error", failed);
    socket.once("close", closed);
    socket.once(event, () => {
      finish();
      resolve(socket);
    });
  });
}
