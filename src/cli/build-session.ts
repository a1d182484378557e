/** What a build asks for while it runs: secrets and SSH agents of the user (wire/build-session.ts). */
import { closeSync, existsSync, openSync, readSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { ApiError } from "#sdk/api-error.ts";
import { encodeFrame, type Frame, SessionDecoder, secretBytesMax } from "#wire/build-session.ts";
import { ExitError } from "./command.ts";
import type { CliContext } from "./context.ts";

type Secret =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "env"; readonly name: string };

/** `id=name[,src=path|,env=NAME][,type=file|env]`; without either, the variable of that name, else the file. */
export function parseSecret(text: string, env: CliContext["env"]): readonly [string, Secret] {
  const fields = new Map<string, string>();
  for (const part of text.split(",")) {
    const equals = part.indexOf("=");
    if (equals < 0) throw new ExitError(1, `invalid field '${part}' must be a key=value pair`);
    const key = part.slice(0, equals).trim().toLowerCase();
    if (!["type", "id", "source", "src", "env"].includes(key))
      throw new ExitError(1, `unexpected key '${key}' in '${part}'`);
    fields.set(key === "src" ? "source" : key, part.slice(equals + 1));
  }
  const type = fields.get("type") ?? "";
  if (!["", "file", "env"].includes(type))
    throw new ExitError(1, `unsupported secret type ${JSON.stringify(type)}`);
  const source = fields.get("source") ?? "";
  const id = fields.get("id") ?? source.split("/").at(-1) ?? "";
  if (id === "") throw new ExitError(1, "secret must have an id");
  const variable = fields.get("env") ?? (type === "env" ? source || id : "");
  if (variable !== "") return [id, { kind: "env", name: variable }];
  if (type === "" && source === "" && env[id] !== undefined) return [id, { kind: "env", name: id }];
  return [id, { kind: "file", path: source === "" ? id : source }];
}

/** `default`, or `name=socket`. Throws for keys: an agent must hold them. */
export function parseAgent(text: string, env: CliContext["env"]): readonly [string, string] {
  const equals = text.indexOf("=");
  const id = equals < 0 ? text : text.slice(0, equals);
  const path = equals < 0 ? (env["SSH_AUTH_SOCK"] ?? "") : text.slice(equals + 1);
  if (id === "") throw new ExitError(1, `invalid --ssh ${JSON.stringify(text)}: it has no name`);
  if (path === "") throw new ExitError(1, "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set");
  if (!existsSync(path) || !statSync(path).isSocket())
    throw new ExitError(
      1,
      `--ssh ${id}: ${path} is no socket of an agent; keys are forwarded by an agent only (ssh-add)`,
    );
  return [id, path];
}

function read(secret: Secret, env: CliContext["env"]): Buffer {
  if (secret.kind === "env") {
    const value = env[secret.name];
    if (value === undefined) throw new Error(`the variable ${secret.name} is not set`);
    return Buffer.from(value);
  }
  const fd = openSync(secret.path, "r");
  try {
    const buffer = Buffer.alloc(secretBytesMax + 1);
    let length = 0;
    for (;;) {
      const size = readSync(fd, buffer, length, buffer.length - length, null);
      length += size;
      if (size === 0 || length > secretBytesMax) break;
    }
    if (length > secretBytesMax) throw new Error(`larger than ${secretBytesMax} bytes`);
    return buffer.subarray(0, length);
  } finally {
    closeSync(fd);
  }
}

export interface OpenSession extends Disposable {
  readonly id: string;
}

/** Opens a session beside a build, when there is anything to offer. Reads each secret once, before the build begins. */
export async function openBuildSession(
  context: CliContext,
  secretTexts: readonly string[],
  agentTexts: readonly string[],
): Promise<OpenSession | undefined> {
  if (secretTexts.length === 0 && agentTexts.length === 0) return undefined;
  const secrets = new Map<string, Buffer>();
  for (const text of secretTexts) {
    const [id, secret] = parseSecret(text, context.env);
    try {
      secrets.set(id, read(secret, context.env));
    } catch (error) {
      throw new ExitError(
        1,
        `could not read secret ${id}: ${error instanceof Error ? error.message : String(error)}`,
      );
    }
  }
  const agents = new Map(agentTexts.map((text) => parseAgent(text, context.env)));
  let stream: Duplex;
  try {
    ({ stream } = await context.client.hijack("/build/session"));
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 404) throw error;
    throw new ExitError(1, "this daemon takes no secrets and agents with a classic build: use BuildKit");
  }
  return await begin(stream, secrets, agents);
}

async function begin(
  stream: Duplex,
  secrets: ReadonlyMap<string, Buffer>,
  agents: ReadonlyMap<string, string>,
): Promise<OpenSession> {
  const ready = Promise.withResolvers<string>();
  const sockets = new Map<number, Socket>();
  const decoder = new SessionDecoder((frame) => {
    if (frame.kind === "ready")
      ready.resolve((JSON.parse(frame.payload.toString("utf8")) as { session: string }).session);
    else if (frame.kind === "secret") answer(stream, frame, secrets);
    else if (frame.kind === "connect") attach(stream, frame, agents, sockets);
    else if (frame.kind === "data") sockets.get(frame.channel)?.write(Buffer.from(frame.payload));
    else if (frame.kind === "end") sockets.get(frame.channel)?.end();
  });
  stream.on("data", (chunk: Buffer) => {
    try {
      decoder.push(chunk);
    } catch (error) {
      stream.destroy(error as Error);
    }
  });
  const lost = (): void => {
    ready.reject(new ExitError(1, "the daemon refused the build session"));
    for (const socket of sockets.values()) socket.destroy();
  };
  stream.on("error", lost);
  stream.on("close", lost);
  // A connection that was taken over is paused.
  stream.resume();
  const offer = { secrets: [...secrets.keys()], agents: [...agents.keys()] };
  stream.write(encodeFrame("hello", 0, Buffer.from(JSON.stringify(offer))));
  return { id: await ready.promise, [Symbol.dispose]: () => void stream.destroy() };
}

function answer(stream: Duplex, { channel, payload }: Frame, secrets: ReadonlyMap<string, Buffer>): void {
  const value = secrets.get(payload.toString("utf8"));
  if (value === undefined) stream.write(encodeFrame("failure", channel, Buffer.from("not offered")));
  else stream.write(encodeFrame("value", channel, value));
}

function attach(
  stream: Duplex,
  { channel, payload }: Frame,
  agents: ReadonlyMap<string, string>,
  sockets: Map<number, Socket>,
): void {
  const path = agents.get(payload.toString("utf8"));
  if (path === undefined) {
    stream.write(encodeFrame("end", channel));
    return;
  }
  const socket = connect(path);
  sockets.set(channel, socket);
  socket.on("error", () => socket.destroy());
  socket.on("data", (chunk: Buffer) => {
    for (let at = 0; at < chunk.length; at += 65_536)
      stream.write(encodeFrame("data", channel, chunk.subarray(at, at + 65_536)));
  });
  socket.on("close", () => {
    sockets.delete(channel);
    if (!stream.destroyed) stream.write(encodeFrame("end", channel));
  });
}
