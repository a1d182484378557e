import { readFileSync } from "node:fs";
import { join } from "node:path";
import { EngineError, errnoOf } from "#base/errors.ts";
import { type Endpoint, parseEndpoint, type TlsMaterial } from "#sdk/endpoint.ts";
import { contextEndpoint, readContext } from "./contexts.ts";
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

/** The daemon that this invocation talks to. Throws with the words that follow `unable to resolve docker endpoint: `. */
export function resolveEndpoint(settings: EndpointSettings): Endpoint {
  const { flags, env, contextName, configDirectory } = settings;
  const hosts = flags.list("host");
  if (contextName !== "default") {
    readContext(configDirectory, contextName);
    return contextEndpoint(configDirectory, contextName);
  }
  if (hosts.length > 1) throw new EngineError("invalid", "Specify only one -H");
  const tls = tlsMaterial(flags, env, configDirectory);
  const wanted = hosts[0] ?? env["DOCKER_HOST"] ?? "";
  return parseEndpoint(normaliseHost(wanted, settings.program, tls !== undefined), tls);
}

/** Completes a host as the user may shorten it: `:2375`, `localhost`, `tcp://host`. */
export function normaliseHost(host: string, program: string, tls: boolean): string {
  const text = host.trim();
  if (text === "") return tls ? "tcp://localhost:2376" : defaultHostOf(program);
  const split = text.indexOf("://");
  const scheme = split < 0 ? "tcp" : text.slice(0, split);
  const rest = split < 0 ? text : text.slice(split + 3);
  if (scheme === "unix") return rest === "" ? defaultHostOf(program) : `unix://${rest}`;
  if (scheme === "ssh" || scheme === "http" || scheme === "https") return `${scheme}://${rest}`;
  if (scheme !== "tcp") throw new EngineError("invalid", `invalid bind address format: ${text}`);
  const slash = rest.indexOf("/");
  const address = slash < 0 ? rest : rest.slice(0, slash);
  const path = slash < 0 ? "" : rest.slice(slash);
  const match = /^(\[[^\]]*\]|[^:]*)(?::(\d*))?$/.exec(address);
  if (match === null || Number(match[2] ?? 0) > 65535) {
    throw new EngineError("invalid", `invalid bind address format: ${text}`);
  }
  const name = match[1] === "" ? "localhost" : match[1];
  return `tcp://${name}:${match[2] || (tls ? "2376" : "2375")}${path}`;
}

function tlsMaterial(flags: Flags, env: Environment, configDirectory: string): TlsMaterial | undefined {
  const verify = flags.changed("tlsverify")
    ? flags.bool("tlsverify")
    : (env["DOCKER_TLS_VERIFY"] ?? "") !== "";
  if (!verify && !flags.bool("tls") && (env["DOCKER_TLS"] ?? "") === "") return undefined;
  const directory = env["DOCKER_CERT_PATH"] || configDirectory;
  const read = (name: string, file: string, needed: boolean): string | undefined => {
    const path = flags.text(name) || join(directory, file);
    try {
      return readFileSync(path, "utf8");
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      if (!needed && !flags.changed(name)) return undefined;
      throw new EngineError("invalid", `open ${path}: no such file or directory`, { cause: error });
    }
  };
  const ca = read("tlscacert", "ca.pem", verify);
  const cert = read("tlscert", "cert.pem", false);
  const key = read("tlskey", "key.pem", false);
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    verify,
  };
}
