import { closeSync, constants, openSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import { join } from "node:path";
import { errnoOf, messageOf } from "#base/errors.ts";

/**
 * The administrator's door: HTTP over a unix socket in the root, for this user alone (0600). `POST /gc` collects garbage,
 * `GET /status` tells how the server is.
 */
export const controlSocket = "control.sock";
const bodyBytesMax = 64 * 1024;

export type ControlAction = (parameters: Readonly<Record<string, unknown>>) => Promise<object>;

/** Serves `METHOD /path` → action until disposed. Whoever holds the root's lock may call it: a stale socket is replaced. */
export async function serveControl(
  root: string,
  actions: ReadonlyMap<string, ControlAction>,
): Promise<AsyncDisposable> {
  using address = socketAddress(root);
  rmSync(join(root, controlSocket), { force: true });
  const server = createServer({ headersTimeout: 5_000, requestTimeout: 5_000 }, (incoming, response) => {
    answer(actions, incoming, response).catch((error: unknown) =>
      send(response, 500, { message: messageOf(error) }),
    );
  });
  server.maxConnections = 16;
  // bind(2) happens inside listen(): nobody but this user can connect before the mode is set.
  const before = process.umask(0o177);
  try {
    server.listen({ path: address.path });
  } finally {
    process.umask(before);
  }
  await new Promise<void>((resolve, reject) => server.once("listening", resolve).once("error", reject));
  return {
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      rmSync(join(root, controlSocket), { force: true });
      await closed;
    },
  };
}

async function answer(
  actions: ReadonlyMap<string, ControlAction>,
  incoming: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const action = actions.get(`${incoming.method} ${incoming.url}`);
  const text = (await readAll(incoming)).toString("utf8");
  if (action === undefined) {
    send(response, 404, { message: "no such action" });
    return;
  }
  const parameters: unknown = text === "" ? {} : JSON.parse(text);
  send(response, 200, await action((parameters ?? {}) as Record<string, unknown>));
}

function send(response: ServerResponse, status: number, body: object): void {
  if (response.headersSent) response.destroy();
  else response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

async function readAll(stream: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > bodyBytesMax) throw new Error("the message is too long");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/**
 * Asks the server that has this root; undefined when there is none. Throws with the server's message for a refusal, and
 * for a socket that is not ours to open.
 */
export async function askControl(root: string, action: string, parameters: object): Promise<unknown> {
  using address = socketAddress(root);
  const [method = "GET", path = "/"] = action.split(" ");
  const incoming = await new Promise<IncomingMessage | undefined>((resolve, reject) => {
    const outgoing = request({ socketPath: address.path, method, path, agent: false }, resolve);
    outgoing.on("error", (error) => {
      if (["ENOENT", "ECONNREFUSED"].includes(errnoOf(error) ?? "")) resolve(undefined);
      else reject(error);
    });
    outgoing.end(method === "GET" ? undefined : JSON.stringify(parameters));
  });
  if (incoming === undefined) return undefined;
  const value: unknown = JSON.parse((await readAll(incoming)).toString("utf8"));
  if (incoming.statusCode !== 200) throw new Error(String((value as { message?: unknown }).message));
  return value;
}

/** A path of few bytes for any root: sun_path holds 107 (unix(7)). */
function socketAddress(root: string): Disposable & { readonly path: string } {
  const fd = openSync(root, constants.O_RDONLY | constants.O_DIRECTORY);
  return { path: `/proc/self/fd/${fd}/${controlSocket}`, [Symbol.dispose]: () => closeSync(fd) };
}
