import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { errnoOf, messageOf } from "#base/errors.ts";
import { createLog, type Log, silentLog } from "#base/log.ts";
import { type CollectionReport, GarbageCollector } from "#registry-server/garbage-collection.ts";
import { editPasswordFile } from "#registry-server/htpasswd-edit.ts";
import { openRegistry } from "#registry-server/registry.ts";
import { claimRegistryRoot, serveRegistry } from "#registry-server/serve.ts";
import { askControl } from "#registry-server/serve-control.ts";
import { parseTime, processDefaults, readSettings, SettingsError } from "#registry-server/settings.ts";
import { unreadable } from "#registry-server/settings-file.ts";

/**
 * The registry server's process, and what is asked of a running one. `skiff registry VERB` becomes this process and gives
 * it the verb and its flags as one JSON object; both in the arguments, so nothing secret is among them.
 */
type Parameters = Readonly<Record<string, unknown>>;
type Verb = (parameters: Parameters) => Promise<void>;

const verbs: Readonly<Record<string, Verb>> = { serve, gc, status, passwd };
/** What a person types; more than bcrypt reads. */
const passwordLineBytesMax = 4096;

function refuse(message: string): never {
  process.stderr.write(`skiff registry: ${message.replaceAll("\n", " ")}\n`);
  process.exit(1);
}

async function main(): Promise<void> {
  const [name = "", text = "{}"] = process.argv.slice(2);
  const verb = verbs[name];
  if (verb === undefined) refuse(`no such command ${JSON.stringify(name)}`);
  try {
    await verb(JSON.parse(text) as Parameters);
  } catch (error) {
    if (error instanceof SettingsError || errnoOf(error) !== undefined) refuse(messageOf(error));
    throw error;
  }
  process.exit(0);
}

async function serve(parameters: Parameters): Promise<void> {
  const settings = readSettings(parameters, processDefaults);
  const log = createLog(settings.logLevel, (line) => process.stderr.write(line));
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});
  const stopped = waitForStopSignal(log);
  await using server = await serveRegistry(settings, log);
  const onHangup = (): void => {
    void server.reload();
  };
  process.on("SIGHUP", onHangup);
  const { host, port } = server.listen;
  log.info("the registry is ready", {
    listen: `${host}:${port}`,
    tls: settings.tls !== undefined,
    root: settings.root,
    ...(server.metricsListen === undefined
      ? {}
      : { metricsListen: `${server.metricsListen.host}:${server.metricsListen.port}` }),
  });
  await stopped;
}

function waitForStopSignal(log: Log): Promise<void> {
  return new Promise((resolve) => {
    let stopping = false;
    // Until the server is up there is nothing to reload, and nothing to end for.
    process.on("SIGHUP", () => {});
    for (const [signal, number] of [
      ["SIGTERM", 15],
      ["SIGINT", 2],
    ] as const) {
      process.on(signal, () => {
        if (stopping) process.exit(128 + number);
        stopping = true;
        log.info(`${signal}: stopping`);
        resolve();
      });
    }
  });
}

function rootOf(parameters: Parameters): string {
  const { root } = parameters;
  return resolve(typeof root === "string" && root !== "" ? root : processDefaults.root);
}

async function requireRoot(root: string): Promise<void> {
  try {
    await stat(join(root, "."));
  } catch (error) {
    throw unreadable(`root ${root}`, error);
  }
}

/** Asks the server that has the root, or collects in its place where there is none. */
async function gc(parameters: Parameters): Promise<void> {
  const root = rootOf(parameters);
  await requireRoot(root);
  const { grace } = parameters;
  const graceMs = typeof grace === "string" && grace !== "" ? parseTime(grace) : null;
  if (graceMs === undefined)
    throw new SettingsError(`grace ${JSON.stringify(grace)} is no time such as 90s or 24h`);
  const options = {
    deleteUntagged: parameters["delete-untagged"] === true,
    dryRun: parameters["dry-run"] === true,
    ...(graceMs === null ? {} : { graceMs }),
  };
  const answer = await askControl(root, "POST /gc", options);
  const report =
    answer === undefined
      ? await collectWithoutServer(root, { ...options, graceMs: graceMs ?? 0 })
      : (answer as CollectionReport);
  process.stdout.write(`${JSON.stringify(report)}\n`);
}

async function collectWithoutServer(
  root: string,
  options: { graceMs: number; deleteUntagged: boolean; dryRun: boolean },
): Promise<CollectionReport> {
  using _lock = claimRegistryRoot(root);
  const registry = await openRegistry({ root, log: silentLog });
  try {
    return await new GarbageCollector(registry.store).collect(options);
  } finally {
    await registry.close();
  }
}

async function status(parameters: Parameters): Promise<void> {
  const root = rootOf(parameters);
  await requireRoot(root);
  const answer = await askControl(root, "GET /status", {});
  if (answer === undefined) throw new SettingsError(`no registry server runs on the root ${root}`);
  process.stdout.write(`${JSON.stringify(answer, undefined, 2)}\n`);
}

/** The password comes by standard input, its last line end cut off: arguments are for everybody to see. */
async function passwd({ file, user, remove }: Parameters): Promise<void> {
  const password = remove === true ? undefined : await readPassword();
  await editPasswordFile(resolve(String(file)), String(user), password);
}

async function readPassword(): Promise<string> {
  if (process.stdin.isTTY) return await promptPassword();
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > passwordLineBytesMax) throw new SettingsError("the password is too long");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks)
    .toString("utf8")
    .replace(/\r?\n$/, "");
}

async function promptPassword(): Promise<string> {
  process.stderr.write("Password: ");
  process.stdin.setRawMode(true);
  let typed = "";
  try {
    for await (const chunk of process.stdin.setEncoding("utf8") as AsyncIterable<string>) {
      for (const character of chunk) {
        if (character === "\r" || character === "\n" || character === "\u0004") return typed;
        if (character === "\u0003") process.exit(130);
        typed = character === "\u007f" || character === "\b" ? typed.slice(0, -1) : typed + character;
      }
      if (typed.length > passwordLineBytesMax) throw new SettingsError("the password is too long");
    }
    return typed;
  } finally {
    process.stdin.setRawMode(false);
    process.stderr.write("\n");
  }
}

await main();
