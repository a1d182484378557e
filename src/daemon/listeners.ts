import { type AddressInfo, isIP, type Server } from "node:net";
import { hostname } from "node:os";
import type { Server as TlsServer } from "node:tls";
import type { HttpFront } from "#api/listen.ts";
import { describeErrno, errnoOf, messageOf } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import { type DaemonConfig, withoutMutualTls } from "./config.ts";
import { formatAddress, formatHostPort, type HostAddress } from "./config-hosts.ts";
import { watchLinks } from "./link-watch.ts";
import { StartupError } from "./roots.ts";
import type { InheritedSocket } from "./service-manager.ts";
import { listenOnSocket, socketGroupId } from "./sockets.ts";
import type { TlsMaterial } from "./tls-files.ts";

export interface ListenerParts {
  readonly front: HttpFront;
  readonly config: DaemonConfig;
  readonly tls: TlsMaterial | undefined;
  readonly inherited: readonly InheritedSocket[];
  readonly log: Log;
}

const reasons: Readonly<Record<string, string>> = {
  EADDRINUSE: "address already in use",
  EADDRNOTAVAIL: "cannot assign requested address",
  ENOTFOUND: "no such host",
  EAI_AGAIN: "no such host",
};

/** Everything the daemon listens on. Disposing closes it; connections that are open are the front's to end. */
export class Listeners implements Disposable {
  readonly #parts: ListenerParts;
  readonly #servers: Server[] = [];
  readonly #tlsServers: TlsServer[] = [];
  readonly #watches = new DisposableStack();
  #names: ReadonlySet<string>;
  #warnings: string[] = [];

  private constructor(parts: ListenerParts) {
    this.#parts = parts;
    this.#names = ownNames(parts.config, parts.tls);
  }

  /** Listens everywhere or nowhere. Throws `StartupError`. */
  static async open(parts: ListenerParts): Promise<Listeners> {
    const listeners = new Listeners(parts);
    try {
      for (const host of parts.config.hosts) await listeners.#listen(host);
    } catch (error) {
      listeners[Symbol.dispose]();
      throw error;
    }
    return listeners;
  }

  /** Lines for `info`: where anybody may ask. */
  get warnings(): readonly string[] {
    return this.#warnings;
  }

  /** Certificates for connections that come from now on, and names that may have changed. */
  reload(config: DaemonConfig, tls: TlsMaterial | undefined): void {
    this.#names = ownNames(config, tls);
    if (tls === undefined) return;
    for (const server of this.#tlsServers) server.setSecureContext(tls.context);
  }

  async #listen(host: HostAddress): Promise<void> {
    const { front, config, log } = this.#parts;
    if (host.kind === "unix") {
      const server = front.createServer();
      await listenOnSocket(server, host.path, socketGroupId(config.group), log);
      this.#servers.push(server);
    } else if (host.kind === "tcp") await this.#listenTcp(host, formatAddress(host));
    else await this.#listenInherited(host.which);
  }

  async #listenTcp(
    where: { readonly host: string; readonly port: number } | { readonly fd: number },
    name: string,
  ): Promise<void> {
    const { front, tls, log } = this.#parts;
    const server = front.createTcpServer({
      isOwnName: (asked) => isOwnName(this.#names, asked),
      ...(tls === undefined
        ? {}
        : { tls: { ...tls.context, requestCert: tls.mutual, rejectUnauthorized: tls.mutual } }),
    });
    await listening(server, where, name);
    server.on("error", (error) => log.error("a connection could not be accepted", { host: name, error }));
    this.#servers.push(server);
    if (tls !== undefined) this.#tlsServers.push(server as TlsServer);
    this.#watches.use(watchLinks(server));
    const bound = server.address() as AddressInfo;
    const address = formatHostPort({ host: bound.address, port: bound.port });
    this.#warn(address);
    log.info(`API listen on tcp://${address}`, { tls: tls === undefined ? "off" : mode(tls) });
  }

  #warn(address: string): void {
    const { tls, log } = this.#parts;
    if (tls?.mutual === true) return;
    const what =
      tls === undefined
        ? `http://${address} without encryption`
        : `https://${address} without TLS client verification`;
    const text = `API is accessible on ${what}: whoever reaches it is root on this host`;
    this.#warnings.push(`WARNING: ${text}`);
    log.warn(text);
  }

  async #listenInherited(which: string): Promise<void> {
    const { front, config, inherited, log, tls } = this.#parts;
    if (inherited.length === 0) {
      throw new StartupError(
        "no sockets found via socket activation: make sure the service was started by systemd",
      );
    }
    const wanted = inherited.filter(({ fd, name }) => which === "" || which === String(fd) || which === name);
    if (wanted.length === 0) {
      throw new StartupError(`fd://${which}: systemd passed on no such socket`);
    }
    for (const { fd, kind } of wanted) {
      const name = `fd://${fd}`;
      if (kind === undefined) {
        throw new StartupError(`${name} is no listening stream socket: ListenStream= makes one`);
      }
      if (kind === "tcp") {
        if (tls?.mutual !== true && !config.insecureTcp) throw new StartupError(withoutMutualTls(name));
        await this.#listenTcp({ fd }, name);
        continue;
      }
      const server = front.createServer();
      await listening(server, { fd }, name);
      server.on("error", (error) => log.error("a connection could not be accepted", { host: name, error }));
      this.#servers.push(server);
      log.info(`API listen on ${name}`, { path: server.address() });
    }
  }

  [Symbol.dispose](): void {
    this.#watches.dispose();
    for (const server of this.#servers) server.close();
  }
}

function mode(tls: TlsMaterial): string {
  return tls.mutual ? "clients are verified" : "clients are not verified";
}

async function listening(
  server: Server,
  where: { readonly host: string; readonly port: number } | { readonly fd: number },
  name: string,
): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ ...where, backlog: 511 }, () => {
        server.off("error", reject);
        resolve();
      });
    });
  } catch (error) {
    const errno = errnoOf(error) ?? "";
    const reason = reasons[errno] ?? (errno === "" ? messageOf(error) : describeErrno(errno));
    throw new StartupError(`can't listen on ${name}: ${reason}`);
  }
}

/** What this host may be called by those who are its clients. */
function ownNames(config: DaemonConfig, tls: TlsMaterial | undefined): ReadonlySet<string> {
  const own = hostname();
  const bound = config.hosts.flatMap((host) =>
    host.kind === "tcp" && isIP(host.host) === 0 ? host.host : [],
  );
  const all = [own, own.split(".")[0]!, ...bound, ...config.allowedHosts, ...(tls?.names ?? [])];
  return new Set(all.map((name) => name.toLowerCase().replace(/\.$/, "")));
}

function isOwnName(names: ReadonlySet<string>, asked: string): boolean {
  // A certificate's wildcard stands for one label (RFC 6125).
  return names.has(asked) || names.has(asked.replace(/^[^.]+/, "*"));
}
