import { readFileSync } from "node:fs";
import { isIPv6 } from "node:net";
import { join } from "node:path";
import { describeErrno, EngineError, errnoOf, messageOf } from "#base/errors.ts";
import { type Endpoint, parseEndpoint, type TlsMaterial } from "#sdk/endpoint.ts";
import { checkTls, definedTls, storedTarget } from "./contexts.ts";
import { list, string } from "./flag-types.ts";
import { type FlagSpec, type Flags, flag, toggle } from "./flags.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/** Where Skiff's daemon listens unless told otherwise. */
export const defaultHost = "unix:///run/skiff/skiff.sock";
const dockerHost = "unix:///var/run/docker.sock";

/** Under the name `docker` we are a stand-in for Docker's client, and its socket is the default. */
export function defaultHostOf(program: string): string {
  return program === "docker" ? dockerHost : defaultHost;
}

export function globalFlags(configDirectory: string): FlagSpec[] {
  const certificates = configDirectory;
  return [
    flag("config", string, "Directory with the client's configuration", {
      shown: JSON.stringify(configDirectory),
      initial: configDirectory,
    }),
    flag("c,context", string, 'Context to use; overrides DOCKER_HOST and what "context use" chose'),
    toggle("D,debug", "Enable debug mode"),
    flag("H,host", list, "Socket of the daemon to talk to"),
    flag("l,log-level", string, 'Level of logging ("debug", "info", "warn", "error", "fatal")', {
      shown: '"info"',
      initial: "info",
    }),
    toggle("tls", "Use TLS; --tlsverify implies it"),
    flag("tlscacert", string, "Trust only certificates that this CA signed", {
      shown: JSON.stringify(join(certificates, "ca.pem")),
    }),
    flag("tlscert", string, "Client certificate", { shown: JSON.stringify(join(certificates, "cert.pem")) }),
    flag("tlskey", string, "Key of the client certificate", {
      shown: JSON.stringify(join(certificates, "key.pem")),
    }),
    toggle("tlsverify", "Use TLS and verify the daemon"),
    toggle("v,version", "Print version information and quit"),
  ];
}

/** Name of the context in use, by Docker's order: flag, then -H and DOCKER_HOST (default), DOCKER_CONTEXT, config. */
export function currentContext(flags: Flags, env: Environment, configured: string | undefined): string {
  if (flags.text("context") !== "") return flags.text("context");
  if (flags.list("host").length > 0) return "default";
  if ((env["DOCKER_HOST"] ?? "") !== "") return "default";
  return env["DOCKER_CONTEXT"] || configured || "default";
}

export interface EndpointSettings {
  readonly flags: Flags;
  readonly env: Environment;
  readonly program: string;
  readonly configDirectory: string;
  readonly contextName: string;
}

/** A host and what TLS to it needs, as flags and environment, or a stored context, have them. */
export interface Target {
  readonly host: string;
  readonly tls: TlsMaterial | undefined;
}

const unresolved = (reason: string): EngineError =>
  new EngineError("invalid", `unable to resolve docker endpoint: ${reason}`);

/** The daemon that this invocation talks to. Throws with the words that follow `Failed to initialize: `. */
export function resolveEndpoint(settings: EndpointSettings): Endpoint {
  const { host, tls } = resolveTarget(settings);
  checkTls(tls);
  const seconds = Number(settings.env["SKIFF_KEEPALIVE_SECONDS"]);
  return parseEndpoint(host, {
    tls,
    program: settings.program,
    ...(seconds > 0 && seconds <= 3600 ? { keepAliveMs: seconds * 1000 } : {}),
  });
}

/** Where the daemon is, before it is looked at whether that makes sense. */
export function resolveTarget(settings: EndpointSettings): Target {
  const { flags, env, contextName, configDirectory, program } = settings;
  try {
    if (contextName !== "default") {
      const { host, tls } = storedTarget(configDirectory, contextName);
      return { host: host === "" ? defaultHostOf(program) : host, tls };
    }
    const hosts = flags.list("host");
    if (hosts.length > 1) throw new EngineError("invalid", "Specify only one -H");
    const wanted = hosts[0] ?? env["DOCKER_HOST"] ?? "";
    const enabled = tlsWanted(flags, env);
    const host = normaliseHost(wanted, program, enabled);
    return { host, tls: enabled ? tlsMaterial(flags, env, configDirectory) : undefined };
  } catch (error) {
    throw unresolved(messageOf(error));
  }
}

/** Completes a host as the user may shorten it: `:2375`, `localhost`, `tcp://host`, `::1`. */
export function normaliseHost(host: string, program: string, tls: boolean): string {
  const text = host.trim();
  if (text === "") return tls ? "tcp://localhost:2376" : defaultHostOf(program);
  const split = text.indexOf("://");
  const scheme = split < 0 ? "tcp" : text.slice(0, split);
  const rest = split < 0 ? text : text.slice(split + 3);
  const bad = (): EngineError => new EngineError("invalid", `invalid bind address format: ${text}`);
  if (scheme === "unix") return rest === "" ? defaultHostOf(program) : `unix://${rest}`;
  if (scheme === "ssh" || scheme === "fd" || scheme === "npipe") return `${scheme}://${rest}`;
  if (scheme !== "tcp" || rest.includes("://")) throw bad();
  // A user's name, a query and a fragment mean nothing here: Docker's client drops them.
  const match = /^(?:[^@/?#]*@)?([^/?#]*)([^?#]*)/.exec(rest)!;
  const [, address = "", path = ""] = match;
  if (address.startsWith("[") && !address.includes("]"))
    throw new EngineError("invalid", `parse ${JSON.stringify(`tcp://${rest}`)}: missing ']' in host`);
  const port = tls ? "2376" : "2375";
  // An IPv6 address may stand without its brackets when no port follows.
  if (isIPv6(address)) return `tcp://[${address}]:${port}${path}`;
  const parts = /^(\[[^[\]]*\]|[^:[\]]*)(?::(.*))?$/.exec(address);
  if (parts === null || (parts[2] !== undefined && !/^\d*$/.test(parts[2]))) throw bad();
  return `tcp://${parts[1] || "localhost"}:${parts[2] || port}${path}`;
}

/** Whether TLS is on: `--tls`, or `--tlsverify` whatever its value, or their variables unless the flag says no. */
function tlsWanted(flags: Flags, env: Environment): boolean {
  if (flags.changed("tlsverify") || (env["DOCKER_TLS_VERIFY"] ?? "") !== "") return true;
  return flags.changed("tls") ? flags.bool("tls") : (env["DOCKER_TLS"] ?? "") !== "";
}

function tlsMaterial(flags: Flags, env: Environment, configDirectory: string): TlsMaterial {
  const verify = flags.changed("tlsverify")
    ? flags.bool("tlsverify")
    : (env["DOCKER_TLS_VERIFY"] ?? "") !== "";
  const directory = env["DOCKER_CERT_PATH"] || configDirectory;
  // Read even where the daemon is not verified; certificate and key may be missing at their default places only.
  const read = (name: string, file: string): string | undefined => {
    const path = flags.text(name) || join(directory, file);
    try {
      return readFileSync(path, "utf8");
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === "ENOENT" && name !== "tlscacert" && !flags.changed(name)) return undefined;
      throw new EngineError("invalid", `open ${path}: ${describeErrno(errno ?? messageOf(error))}`, {
        cause: error,
      });
    }
  };
  return definedTls(
    read("tlscacert", "ca.pem"),
    read("tlscert", "cert.pem"),
    read("tlskey", "key.pem"),
    verify,
  );
}
