/** `context create|update|export|import|rm`. */
import { createReadStream, readFileSync, writeFileSync } from "node:fs";
import type { Readable } from "node:stream";
import { describeErrno, EngineError, errnoOf, messageOf } from "#base/errors.ts";
import { parseEndpoint } from "#sdk/endpoint.ts";
import { atLeast, between, type Command, ExitError, exactly } from "./command.ts";
import type { CliContext } from "./context.ts";
import { contextArchiveBytesMax, packContext, unpackContext } from "./context-archive.ts";
import {
  type ContextMeta,
  checkContextName,
  checkTls,
  contextExists,
  definedTls,
  readContext,
  readContextTls,
  removeContext,
  type StoredContext,
  writeContext,
} from "./contexts.ts";
import { listOf, parseBool, parseCsvLine, string } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";
import { resolveTarget } from "./global-options.ts";

/** `key=value,…`, quoted as CSV when there is more than one. */
const pairs = listOf((text) => {
  const fields = text.split("=").length === 2 ? [text.replace(/^"+|"+$/g, "")] : parseCsvLine(text);
  const found = fields.length === 0 ? [""] : fields;
  return found.map((field) => {
    const equals = field.indexOf("=");
    if (equals < 0) throw new Error(`${field} must be formatted as key=value`);
    return { key: field.slice(0, equals), value: field.slice(equals + 1) };
  });
}, "stringToString");

const endpointFlag = flag("docker", pairs, "Endpoint of the daemon (see above)", { shown: "[]" });
const endpointHelp = (verb: string, program: string): string => `Endpoint of the daemon, as key=value pairs:

from              Take host and verification from this context
host              The daemon's address (unix://, tcp://, ssh://)
ca                File: trust only certificates that this CA signed
cert              File with the client's certificate
key               File with its key
skip-tls-verify   Do not verify the daemon's certificate

Example:

$ ${program} context ${verb} box --description "the build box" --docker "host=tcp://box:2376,ca=ca.pem,cert=cert.pem,key=key.pem"`;

const keys = ["from", "host", "ca", "cert", "key", "skip-tls-verify"] as const;
type Options = Partial<Record<(typeof keys)[number], string>>;

function optionsOf(flags: Flags): Options | undefined {
  if (!flags.changed("docker")) return undefined;
  const options: Options = {};
  for (const { key, value } of flags.values<{ key: string; value: string }>("docker")) {
    if (!(keys as readonly string[]).includes(key))
      throw new EngineError("invalid", `unrecognized config key: ${key}`);
    options[key as keyof Options] = value;
  }
  return options;
}

interface DockerEndpoint {
  readonly meta: ContextMeta["Endpoints"][string];
  readonly tls: StoredContext["tls"];
}

function fileOf(path: string | undefined): Buffer | undefined {
  if (path === undefined || path === "") return undefined;
  try {
    return readFileSync(path);
  } catch (error) {
    throw new EngineError("invalid", `open ${path}: ${describeErrno(errnoOf(error) ?? messageOf(error))}`);
  }
}

/** What `--docker` asks for, checked as far as can be without dialling. */
function endpointOf(context: CliContext, options: Options): DockerEndpoint {
  if (options.from !== undefined && options.from !== "") {
    const meta = storedOrDefault(context, options.from).meta.Endpoints["docker"];
    if (meta === undefined)
      throw new EngineError("invalid", `unable to get endpoint from context ${JSON.stringify(options.from)}`);
    return { meta, tls: new Map() };
  }
  const skipText = options["skip-tls-verify"] ?? "";
  const skip = skipText === "" ? false : parseBool(skipText);
  if (skip === undefined)
    throw new EngineError("invalid", `skip-tls-verify: parsing ${JSON.stringify(skipText)}: invalid syntax`);
  const files = new Map<string, Buffer>();
  for (const name of ["ca", "cert", "key"] as const) {
    const bytes = fileOf(options[name]);
    if (bytes !== undefined) files.set(`${name}.pem`, bytes);
  }
  const host = options.host ?? "";
  checkEndpoint(host, files, skip);
  return {
    meta: { Host: host, SkipTLSVerify: skip },
    tls: files.size === 0 ? new Map() : new Map([["docker", files]]),
  };
}

function checkEndpoint(host: string, files: ReadonlyMap<string, Buffer>, skip: boolean): void {
  const text = (file: string): string | undefined => files.get(file)?.toString();
  const tls = definedTls(text("ca.pem"), text("cert.pem"), text("key.pem"), !skip);
  try {
    checkTls(tls);
    if (host !== "") parseEndpoint(host, { tls });
  } catch (error) {
    const reason = messageOf(error);
    const kind = reason.startsWith("unable to parse") ? "unable to apply" : "invalid";
    throw new EngineError("invalid", `${kind} docker endpoint options: ${reason}`);
  }
}

function endpointOrFail(context: CliContext, read: () => Options | undefined): DockerEndpoint | undefined {
  try {
    const options = read();
    return options === undefined ? undefined : endpointOf(context, options);
  } catch (error) {
    throw new ExitError(1, `unable to create docker endpoint config: ${messageOf(error)}`);
  }
}

/** A stored context whole, or what flags and environment say now under the name `default`. */
function storedOrDefault(context: CliContext, name: string): StoredContext {
  const { configDirectory, globals: flags, env, program } = context;
  if (name !== "default")
    return { meta: readContext(configDirectory, name), tls: readContextTls(configDirectory, name) };
  const { host, tls } = resolveTarget({ flags, env, program, configDirectory, contextName: "default" });
  const files = new Map<string, Buffer>();
  for (const key of ["ca", "cert", "key"] as const)
    if (tls?.[key] !== undefined) files.set(`${key}.pem`, Buffer.from(tls[key]));
  return {
    meta: {
      Name: "default",
      Metadata: {},
      Endpoints: { docker: { Host: host, SkipTLSVerify: tls?.verify === false } },
    },
    tls: files.size === 0 ? new Map() : new Map([["docker", files]]),
  };
}

function checkNew(context: CliContext, name: string): void {
  checkContextName(name);
  if (contextExists(context.configDirectory, name))
    throw new ExitError(1, `context ${JSON.stringify(name)} already exists`);
}

function tell(context: CliContext, verb: string, name: string): number {
  context.print(name);
  context.error(`Successfully ${verb} context ${JSON.stringify(name)}`);
  return 0;
}

const descriptionFlag = flag("description", string, "What the context is for");

export const createContext: Command = {
  usage: "[OPTIONS] CONTEXT",
  description: `Create a context\n\n${endpointHelp("create", "skiff")}`,
  flags: [descriptionFlag, endpointFlag, flag("from", string, "Copy this context")],
  args: exactly(1),
  run: async (context, flags, [name]) => {
    checkNew(context, name!);
    const from = flags.text("from");
    const description = flags.text("description");
    const metadata = description === "" ? {} : { Description: description };
    if (from !== "" && flags.changed("docker"))
      throw new ExitError(1, "cannot use --docker flag when --from is set");
    const endpoint = endpointOrFail(context, () => optionsOf(flags));
    if (endpoint !== undefined) {
      const meta = { Name: name!, Metadata: metadata, Endpoints: { docker: endpoint.meta } };
      writeContext(context.configDirectory, { meta, tls: endpoint.tls });
      return tell(context, "created", name!);
    }
    const source = from || context.contextName;
    const { meta, tls } = storedOrDefault(context, source);
    const inherited =
      source === "default" ? { Description: "Current DOCKER_HOST based configuration" } : meta.Metadata;
    const copy = { ...meta, Name: name!, Metadata: { ...inherited, ...metadata } };
    writeContext(context.configDirectory, { meta: copy, tls });
    return tell(context, "created", name!);
  },
};

export const updateContext: Command = {
  usage: "[OPTIONS] CONTEXT",
  description: `Update a context\n\n${endpointHelp("update", "skiff")}`,
  flags: [descriptionFlag, endpointFlag],
  args: exactly(1),
  run: async (context, flags, [name]) => {
    checkContextName(name!);
    const { meta, tls } = storedOrDefault(context, name!);
    const description = flags.text("description");
    const metadata = description === "" ? meta.Metadata : { ...meta.Metadata, Description: description };
    const endpoint = endpointOrFail(context, () => optionsOf(flags));
    // A new endpoint starts without the old one's certificates.
    const kept = new Map([...tls].filter(([of]) => endpoint === undefined || of !== "docker"));
    const endpoints = endpoint === undefined ? meta.Endpoints : { ...meta.Endpoints, docker: endpoint.meta };
    writeContext(context.configDirectory, {
      meta: { Name: name!, Metadata: metadata, Endpoints: endpoints },
      tls: new Map([...kept, ...(endpoint?.tls ?? [])]),
    });
    return tell(context, "updated", name!);
  },
};

export const removeContexts: Command = {
  usage: "CONTEXT [CONTEXT...]",
  flags: [toggle("f,force", "Remove the context in use, too")],
  args: atLeast(1),
  run: async (context, flags, names) => {
    const force = flags.bool("force");
    const current = context.contextName;
    const failures: string[] = [];
    for (const name of names) {
      const failure = removalFailure(context, name, name === current, force);
      if (failure !== undefined) {
        failures.push(failure);
        continue;
      }
      if (name === context.config.currentContext) {
        const { currentContext: _gone, ...rest } = context.config;
        context.saveConfig(rest);
      }
      removeContext(context.configDirectory, name);
      context.print(name);
    }
    if (failures.length > 0) throw new ExitError(1, failures.join("\n"));
    return 0;
  },
};

function removalFailure(
  context: CliContext,
  name: string,
  inUse: boolean,
  force: boolean,
): string | undefined {
  const shown = JSON.stringify(name);
  if (name === "default") return `context ${shown} cannot be removed`;
  if (force) return undefined;
  if (inUse) return `context ${shown} is in use, set -f flag to force remove`;
  return contextExists(context.configDirectory, name) ? undefined : `context ${shown} does not exist`;
}

export const exportContext: Command = {
  usage: "[OPTIONS] CONTEXT [FILE|-]",
  description: "Write a context, with its certificates and keys, to a tar archive FILE or to standard output",
  flags: [],
  args: between(1, 2),
  run: async (context, _flags, [name, target = `${name}.dockercontext`]) => {
    const archive = packContext(storedOrDefault(context, name!));
    if (target === "-") {
      if (process.stdout.isTTY === true)
        throw new ExitError(1, "cowardly refusing to export to a terminal, specify a file path");
      process.stdout.write(archive);
      return 0;
    }
    try {
      // It holds keys: for its owner alone, and never in place of another file.
      writeFileSync(target, archive, { mode: 0o600, flag: "wx" });
    } catch (error) {
      throw new ExitError(1, `open ${target}: ${describeErrno(errnoOf(error) ?? messageOf(error))}`);
    }
    context.error(`Written file ${JSON.stringify(target)}`);
    return 0;
  },
};

export const importContext: Command = {
  usage: "CONTEXT FILE|-",
  description: "Make a context from a tar archive that context export wrote",
  flags: [],
  args: exactly(2),
  run: async (context, _flags, [name, source]) => {
    checkNew(context, name!);
    const archive = await readBounded(source === "-" ? process.stdin : createReadStream(source!), source!);
    writeContext(context.configDirectory, unpackContext(archive, name!));
    return tell(context, "imported", name!);
  },
};

/** Reads no more than can be a context. */
async function readBounded(from: Readable, path: string): Promise<Buffer> {
  const parts: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of from as AsyncIterable<Buffer>) {
      parts.push(chunk);
      length += chunk.length;
      if (length > contextArchiveBytesMax) break;
    }
  } catch (error) {
    const errno = errnoOf(error);
    const verb = errno === "EISDIR" ? "read" : "open";
    throw new ExitError(
      1,
      `${verb} ${path}: ${errno === undefined ? messageOf(error) : describeErrno(errno)}`,
    );
  }
  return Buffer.concat(parts);
}
