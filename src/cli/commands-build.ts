import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { createGzip } from "node:zlib";
import { fetchGit } from "#archive/git-source.ts";
import { EngineError } from "#base/errors.ts";
import { buildSessionHeader } from "#wire/build-session.ts";
import { isGitReference, parseGitReference } from "#wire/git-reference.ts";
import { contextArchive, isArchive, localContext, loneDockerfile } from "./build-context.ts";
import { openBuildSession } from "./build-session.ts";
import { type Command, ExitError, exactly } from "./command.ts";
import type { CliContext } from "./context.ts";
import { credentialsFor } from "./credentials.ts";
import { boolean, bytes, bytesOrUnlimited, integer, list, listOf, string, strings } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";
import { checkAddHost, checkLabel, parseUlimit, type Ulimit } from "./option-checks.ts";
import { StreamError, showProgress } from "./progress.ts";
import { checkPlatform } from "./pull-image.ts";
import { humanSize } from "./units.ts";

export const build: Command = {
  usage: "[OPTIONS] PATH | URL | -",
  flags: [
    flag(
      "add-host",
      { ...listOf(checkAddHost), label: "list" },
      'Add a line to /etc/hosts of the steps ("host:ip")',
    ),
    flag("allow", strings, "Let the Dockerfile ask for more (network.host, security.insecure)"),
    flag("build-arg", list, "Set an argument of the Dockerfile"),
    flag("cache-from", strings, "Images to look for cached steps in"),
    flag("cgroup-parent", string, "Parent cgroup of the steps' containers"),
    toggle("compress", "Compress the context on its way", { hidden: true }),
    flag("cpu-period", integer, "Period of the CPU quota"),
    flag("cpu-quota", integer, "CPU time in a period"),
    flag("c,cpu-shares", integer, "Share of CPU time"),
    flag("cpuset-cpus", string, "CPUs to run on (0-3, 0,1)"),
    flag("cpuset-mems", string, "Memory nodes to use (0-3, 0,1)"),
    flag("disable-content-trust", boolean, "Skip the check of signatures", { shown: "true", initial: true }),
    flag("f,file", string, 'Dockerfile (default "PATH/Dockerfile")'),
    toggle("force-rm", "Remove the containers of failed steps too"),
    flag("iidfile", string, "Write the image's id to a file"),
    flag("isolation", string, "Container isolation technology", { hidden: true }),
    flag("label", { ...listOf(checkLabel), label: "list" }, "Set metadata of the image"),
    flag("m,memory", bytes, "Limit of a step's memory"),
    flag("memory-swap", bytesOrUnlimited, "Limit of memory and swap together; -1 for no limit"),
    flag("network", string, "Network of the RUN steps", { shown: '"default"', initial: "default" }),
    toggle("no-cache", "Take no step from the cache"),
    flag("platform", string, "Platform to build for, where there are several"),
    toggle("pull", "Look for newer base images"),
    toggle("q,quiet", "Print the image's id only"),
    flag("rm", boolean, "Remove the containers of steps that went well", { shown: "true", initial: true }),
    flag("secret", list, "Secret for RUN --mount=type=secret"),
    flag("security-opt", strings, "Security options"),
    flag("shm-size", bytes, "Size of /dev/shm"),
    toggle("squash", "Make one layer of those that were built", { hidden: true }),
    flag("ssh", list, "SSH agent for RUN --mount=type=ssh"),
    flag("t,tag", list, "Name and optionally a tag (name:tag)"),
    flag("target", string, "Stage to build"),
    flag("ulimit", { ...listOf(parseUlimit), label: "ulimit" }, "Resource limit of the steps", {
      shown: "[]",
    }),
  ],
  args: exactly(1),
  run: runBuild,
};

/** What has no effect here is refused, never dropped. */
function refuseUnsupported(flags: Flags): void {
  if (flags.text("isolation") !== "" && flags.text("isolation") !== "default")
    throw new ExitError(1, "--isolation is not supported");
}

interface Input {
  readonly body: Readable | undefined;
  readonly remote: string;
  readonly dockerfile: string;
}

async function runBuild(context: CliContext, flags: Flags, [path = ""]: readonly string[]): Promise<number> {
  refuseUnsupported(flags);
  const platform = context.platform(flags.text("platform"));
  if (platform !== "") checkPlatform(platform);
  const iidfile = flags.text("iidfile");
  if (iidfile !== "") rmSync(iidfile, { force: true });
  const quiet = flags.bool("quiet");
  using session = await openBuildSession(context, flags.list("secret"), flags.list("ssh"));
  using temporary = new DisposableStack();
  // Told when a quiet build fails.
  const sending: string[] = [];
  const write = (text: string): void => void (quiet ? sending.push(text) : context.write(text));
  const input = await inputOf(context, flags, path, { write, temporary });
  const response = await context.client.request("POST", "/build", {
    query: {
      ...queryOf(context, flags),
      remote: input.remote || undefined,
      dockerfile: input.dockerfile,
      platform: platform || undefined,
    },
    headers: {
      "Content-Type": "application/x-tar",
      "X-Registry-Config": await registryConfig(context),
      ...(session === undefined ? {} : { [buildSessionHeader]: session.id }),
    },
    ...(input.body === undefined ? {} : { body: input.body }),
  });
  let id = "";
  const held: string[] = [];
  const target = quiet ? { write: (text: string) => held.push(text) } : process.stdout;
  try {
    await showProgress(response.body, target, (aux) => {
      const found = (aux as { ID?: unknown }).ID;
      if (typeof found === "string") id = found;
    });
  } catch (error) {
    if (!(error instanceof StreamError)) throw error;
    for (const text of [...sending, ...held]) process.stderr.write(text);
    throw new ExitError(error.code === undefined || error.code === 0 ? 1 : error.code, error.message);
  }
  if (quiet) {
    id = held.join("").trim();
    context.print(id);
  }
  if (iidfile !== "") {
    if (id === "") throw new ExitError(1, `Server did not provide an image ID. Cannot write ${iidfile}`);
    writeFileSync(iidfile, id, { mode: 0o666 });
  }
  return 0;
}

async function inputOf(
  context: CliContext,
  flags: Flags,
  path: string,
  { write, temporary }: { readonly write: (text: string) => void; readonly temporary: DisposableStack },
): Promise<Input> {
  const file = flags.text("file");
  const sent = (archive: AsyncIterable<Buffer>): Readable => {
    const stream = announced(write, archive);
    if (!flags.bool("compress")) return stream;
    const packed = createGzip();
    stream.once("error", (error) => packed.destroy(error));
    return stream.pipe(packed);
  };
  if (path === "-") {
    if (file === "-")
      throw new ExitError(1, "invalid argument: can't use stdin for both build context and dockerfile");
    const stdin = await peek(process.stdin);
    if (stdin.head.length === 0)
      throw new ExitError(1, "unable to prepare context: failed to peek context header from STDIN: EOF");
    if (isArchive(stdin.head)) return { body: sent(stdin.stream), remote: "", dockerfile: file };
    const text = await textOf(stdin.stream);
    return {
      body: sent(loneDockerfile(text)),
      remote: "",
      dockerfile: "Dockerfile",
    };
  }
  if (isGitReference(path)) {
    const folder = await cloned(context, path, temporary);
    const local = localContext(folder, file === "" ? "" : join(folder, file), undefined);
    return { body: sent(contextArchive(local)), remote: "", dockerfile: local.dockerfile };
  }
  if (/^https?:\/\//.test(path)) return { body: undefined, remote: path, dockerfile: file };
  const stdinText = file === "-" ? await textOf(process.stdin) : undefined;
  const local = localContext(path, file, stdinText);
  return {
    body: sent(contextArchive(local)),
    remote: "",
    dockerfile: local.dockerfile,
  };
}

/** A repository's files in a directory that goes with the command. The user's own keys are used, as by Docker's client. */
async function cloned(context: CliContext, path: string, temporary: DisposableStack): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "skiff-git-"));
  temporary.defer(() => rmSync(folder, { recursive: true, force: true }));
  const names = [
    "PATH",
    "HOME",
    "SSH_AUTH_SOCK",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTPS_PROXY",
    "NO_PROXY",
  ];
  const env = Object.fromEntries(names.map((name) => [name, context.env[name]]));
  const directory = join(folder, "repository");
  const files = join(folder, "files");
  mkdirSync(directory);
  mkdirSync(files);
  try {
    const tree = await fetchGit(parseGitReference(path), {
      directory,
      env,
      signal: new AbortController().signal,
    });
    await tree.checkOut(files);
  } catch (error) {
    if (!(error instanceof EngineError)) throw error;
    throw new ExitError(
      1,
      `unable to prepare context: unable to 'git clone' to temporary context directory: ${error.message}`,
    );
  }
  return files;
}

/** The archive, with Docker's line about how much of it was sent. */
function announced(write: (text: string) => void, archive: AsyncIterable<Buffer>): Readable {
  let sent = 0;
  const show = (end: string): void => {
    write(`Sending build context to Docker daemon  ${humanSize(sent)}${end}`);
  };
  const counted = async function* (): AsyncGenerator<Buffer> {
    let shownAt = 0;
    for await (const chunk of archive) {
      sent += chunk.length;
      yield chunk;
      if (process.stdout.isTTY === true && performance.now() - shownAt > 100) {
        shownAt = performance.now();
        show("\r");
      }
    }
    show("\r\r\n");
  };
  return Readable.from(counted(), { objectMode: false });
}

async function peek(stream: Readable): Promise<{ head: Buffer; stream: Readable }> {
  const parts: Buffer[] = [];
  let length = 0;
  const source = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  while (length < 512) {
    const { value, done } = await source.next();
    if (done === true) break;
    parts.push(value);
    length += value.length;
  }
  const head = Buffer.concat(parts);
  const rest = async function* (): AsyncGenerator<Buffer> {
    yield head;
    for (;;) {
      const { value, done } = await source.next();
      if (done === true) return;
      yield value;
    }
  };
  return { head, stream: Readable.from(rest(), { objectMode: false }) };
}

const dockerfileBytesMax = 4 * 1024 * 1024;

async function textOf(stream: AsyncIterable<Buffer>): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const chunk of stream) {
    length += chunk.length;
    if (length > dockerfileBytesMax)
      throw new ExitError(1, "unable to prepare context: the Dockerfile is too large");
    parts.push(chunk);
  }
  return Buffer.concat(parts).toString("utf8");
}

/** `NAME=value`; a name alone takes the environment's value, and null where there is none. */
function argsOf(context: CliContext, entries: readonly string[]): Record<string, string | null> {
  const found = new Map<string, string | null>();
  for (const entry of entries) {
    const equals = entry.indexOf("=");
    if (equals < 0) found.set(entry, context.env[entry] ?? null);
    else found.set(entry.slice(0, equals), entry.slice(equals + 1));
  }
  return Object.fromEntries(found);
}

function queryOf(
  context: CliContext,
  flags: Flags,
): Record<string, string | number | boolean | readonly string[] | undefined> {
  const json = (value: unknown): string => JSON.stringify(value);
  const labels = argsOf(context, flags.list("label"));
  const ulimits = flags.values<Ulimit>("ulimit");
  const swap = flags.number("memory-swap");
  return {
    t: flags.list("tag"),
    q: flags.bool("quiet") || undefined,
    nocache: flags.bool("no-cache") || undefined,
    pull: flags.bool("pull") || undefined,
    rm: flags.bool("rm"),
    forcerm: flags.bool("force-rm") || undefined,
    target: flags.text("target") || undefined,
    networkmode: flags.text("network"),
    extrahosts: flags.list("add-host").length === 0 ? undefined : json(flags.list("add-host")),
    buildargs: json(argsOf(context, flags.list("build-arg"))),
    labels: json(Object.fromEntries(Object.entries(labels).map(([name, value]) => [name, value ?? ""]))),
    cachefrom: json(flags.list("cache-from")),
    cgroupparent: flags.text("cgroup-parent") || undefined,
    cpuperiod: flags.number("cpu-period") || undefined,
    cpuquota: flags.number("cpu-quota") || undefined,
    cpushares: flags.number("cpu-shares") || undefined,
    cpusetcpus: flags.text("cpuset-cpus") || undefined,
    cpusetmems: flags.text("cpuset-mems") || undefined,
    memory: flags.number("memory") || undefined,
    memswap: swap === 0 ? undefined : swap,
    shmsize: flags.number("shm-size") || undefined,
    securityopt: flags.list("security-opt"),
    allow: flags.list("allow"),
    squash: flags.bool("squash") || undefined,
    ulimits: ulimits.length === 0 ? undefined : json(ulimits),
  };
}

/** Credentials of every registry that the configuration knows, as the daemon takes them for base images. */
async function registryConfig(context: CliContext): Promise<string> {
  const { config } = context;
  const servers = new Set([...Object.keys(config.auths ?? {}), ...Object.keys(config.credHelpers ?? {})]);
  const entries = await Promise.all(
    [...servers].map(async (server) => [server, await credentialsFor(config, server)] as const),
  );
  return Buffer.from(JSON.stringify(Object.fromEntries(entries))).toString("base64url");
}
