import { connect as connectPlain, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { EngineError, errnoOf } from "#base/errors.ts";
import { ConnectionError } from "./api-error.ts";

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
  dial(): Promise<Duplex>;
}

/**
 * Understands `unix://`, `tcp://`, `http(s)://`, `fd`-less Docker host strings and `ssh://user@host`.
 * Throws `invalid` with Docker's wording for anything else.
 */
export function parseEndpoint(host: string, tls?: TlsMaterial): Endpoint {
  const match = /^([a-z]+):\/\/(.*)$/.exec(host);
  const bad = (): EngineError => new EngineError("invalid", `unable to parse docker host \`${host}\``);
  if (match === null) throw bad();
  const [, scheme, rest] = match as unknown as [string, string, string];
  if (scheme === "unix") return unixEndpoint(host, rest);
  if (scheme === "ssh") return sshEndpoint(host);
  if (scheme === "tcp" || scheme === "http" || scheme === "https") {
    return tcpEndpoint(host, rest, scheme === "https" && tls === undefined ? { verify: true } : tls);
  }
  throw new EngineError("invalid", `protocol not available: ${scheme}`);
}

function unixEndpoint(host: string, path: string): Endpoint {
  return {
    host,
    authority: "api.moby.localhost",
    basePath: "",
    dial: () => opened(connectPlain({ path, allowHalfOpen: true }), host),
  };
}

function tcpEndpoint(host: string, rest: string, tls: TlsMaterial | undefined): Endpoint {
  const url = new URL(`http://${rest}`);
  const port = url.port === "" ? (tls === undefined ? 2375 : 2376) : Number(url.port);
  const hostname = url.hostname.replace(/^\[|\]$/g, "");
  const endpoint = { host, authority: `${url.hostname}:${port}`, basePath: url.pathname.replace(/\/+$/, "") };
  if (tls === undefined) {
    return {
      ...endpoint,
      dial: () => opened(connectPlain({ host: hostname, port, allowHalfOpen: true, noDelay: true }), host),
    };
  }
  return {
    ...endpoint,
    dial: async () => {
      const { connect } = await import("node:tls");
      const socket = connect({
        host: hostname,
        port,
        ...(/^[\d.]+$|:/.test(hostname) ? {} : { servername: hostname }),
        ...(tls.ca === undefined ? {} : { ca: tls.ca }),
        ...(tls.cert === undefined ? {} : { cert: tls.cert }),
        ...(tls.key === undefined ? {} : { key: tls.key }),
        rejectUnauthorized: tls.verify,
      });
      return opened(socket, host, "secureConnect");
    },
  };
}

/** Docker's way over ssh: the far side's client copies between its stdio and the daemon's socket. */
function sshEndpoint(host: string): Endpoint {
  const url = new URL(host);
  const dial = async (): Promise<Duplex> => {
    const { spawn } = await import("node:child_process");
    const { Duplex: DuplexClass } = await import("node:stream");
    const args = ["-o", "ConnectTimeout=30", "-T"];
    if (url.username !== "") args.push("-l", decodeURIComponent(url.username));
    if (url.port !== "") args.push("-p", url.port);
    args.push("--", url.hostname, "docker", "system", "dial-stdio");
    const child = spawn("ssh", args, { stdio: ["pipe", "pipe", "inherit"] });
    child.on("error", (cause) => duplex.destroy(connectFailure(host, cause)));
    const pair = { readable: child.stdout, writable: child.stdin };
    const duplex = DuplexClass.from(pair as unknown as AsyncIterable<Buffer>);
    return duplex;
  };
  return { host, authority: "docker.example.com", basePath: "", dial };
}

function opened(socket: Socket, host: string, event = "connect"): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const failed = (cause: Error): void => reject(connectFailure(host, cause));
    socket.once("error", failed);
    socket.once(event, () => {
      socket.removeListener("error", failed);
      resolve(socket);
    });
  });
}

function connectFailure(host: string, cause: Error): ConnectionError {
  const errno = errnoOf(cause);
  if (errno === "EACCES" || errno === "EPERM") {
    const where = host.replace(/^unix:\/\//, "");
    return new ConnectionError(
      `permission denied while trying to connect to the Docker daemon socket at ${host}: dial unix ${where}: connect: permission denied`,
      { code: "EACCES", cause },
    );
  }
  if (errno === "ENOENT" || errno === "ECONNREFUSED" || errno === "ENOTSOCK" || errno === "ENOTDIR") {
    return new ConnectionError(
      `Cannot connect to the Docker daemon at ${host}. Is the docker daemon running?`,
      { code: "no-daemon", cause },
    );
  }
  return new ConnectionError(`error during connect: ${cause.message}`, { code: "connect", cause });
}
