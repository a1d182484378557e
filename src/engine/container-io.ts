/** Use cases: attach and resize. */
import type { Duplex } from "node:stream";
import { EngineError, messageOf } from "#base/errors.ts";
import type { Sandbox } from "#runtime/runtime.ts";
import type { AttachOptions, StdioStream } from "#runtime/shim.ts";
import { parseDetachKeys } from "./attach-keys.ts";
import { joinStdio } from "./attach-pipe.ts";
import type { Container, PendingAttach } from "./container.ts";
import { type ContainerContext, containerEvent } from "./container-context.ts";
import { readContainerLog } from "./logs.ts";

export interface AttachRequest {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** What was written before comes first. */
  readonly logs: boolean;
  /** Live output; without it the attachment ends after the logs. */
  readonly stream: boolean;
  readonly detachKeys: string;
}

/** An attachment that is registered before its client has a connection: what the process writes from now on is its. */
export interface Attachment {
  readonly terminal: boolean;
  /** Serves the client until one side ends. Never rejects. */
  serve(client: Duplex): Promise<void>;
  /** The client never came. */
  cancel(): void;
}

interface Source {
  readonly stream: Promise<StdioStream | undefined>;
  cancel(): void;
}

/**
 * Registers a client at once, so that neither a start nor output after this call is missed. A container that does not
 * run is waited for. Docker's errors: paused and restarting containers are refused.
 */
export function attachContainer(
  ctx: ContainerContext,
  container: Container,
  request: AttachRequest,
): Attachment {
  const { config } = container.document;
  const keys = parseDetachKeys(request.detachKeys);
  checkAttachable(container);
  const options: AttachOptions = {
    stdin: request.stdin && config.OpenStdin,
    stdout: request.stdout,
    stderr: request.stderr,
  };
  containerEvent(ctx, container, "attach");
  const source = request.stream ? openSource(container, options) : undefined;
  const terminal = config.Tty;
  return {
    terminal,
    cancel: () => source?.cancel(),
    serve: async (client) => {
      try {
        if (request.logs) await writePastOutput(ctx, container, request, client);
        const how = await serveLive(client, source, {
          stdin: options.stdin,
          detachKeys: terminal && options.stdin ? keys : undefined,
        });
        if (how === "detached") containerEvent(ctx, container, "detach");
      } catch (error) {
        ctx.log.debug("attach ended", { container: container.id, error: messageOf(error) });
        source?.cancel();
        client.destroy();
      }
    },
  };
}

function checkAttachable(container: Container): void {
  const { status } = container.state;
  if (status === "paused") {
    throw new EngineError(
      "conflict",
      `container ${container.id} is paused, unpause the container before attach`,
      { code: "paused" },
    );
  }
  if (status === "restarting") {
    throw new EngineError(
      "conflict",
      `container ${container.id} is restarting, wait until the container is running`,
      { code: "restarting" },
    );
  }
}

/** The running process's stream, or a place in the queue of those that the next start connects. */
function openSource(container: Container, options: AttachOptions): Source {
  const { sandbox } = container;
  if (sandbox !== undefined && container.isUp) {
    const stream = attachOrEnd(sandbox, options);
    return {
      stream,
      cancel: () => void stream.then((open) => open?.destroy()),
    };
  }
  let pending!: PendingAttach;
  const stream = new Promise<StdioStream | undefined>((resolve) => {
    pending = { options, resolve, close: () => resolve(undefined) };
  });
  container.pendingAttaches.add(pending);
  return {
    stream,
    cancel: () => {
      container.pendingAttaches.delete(pending);
      void stream.then((open) => open?.destroy());
      pending.close();
    },
  };
}

/** Undefined when the process has just ended: its client sees the end of the output, not an error. */
async function attachOrEnd(sandbox: Sandbox, options: AttachOptions): Promise<StdioStream | undefined> {
  try {
    return await sandbox.attach(options);
  } catch (error) {
    if (error instanceof EngineError && error.code === "not-running") return undefined;
    throw error;
  }
}

async function serveLive(
  client: Duplex,
  source: Source | undefined,
  options: { readonly stdin: boolean; readonly detachKeys: Buffer | undefined },
): Promise<"ended" | "client-gone" | "detached"> {
  if (source === undefined) {
    client.end();
    return "ended";
  }
  const gone = (): void => source.cancel();
  client.once("close", gone);
  client.on("error", gone);
  const stream = await source.stream;
  client.off("close", gone);
  if (stream === undefined || client.destroyed) {
    stream?.destroy();
    client.end();
    return stream === undefined ? "ended" : "client-gone";
  }
  return joinStdio(client, stream, options);
}

async function writePastOutput(
  ctx: ContainerContext,
  container: Container,
  request: AttachRequest,
  client: Duplex,
): Promise<void> {
  const log = readContainerLog(ctx, container, {
    stdout: request.stdout,
    stderr: request.stderr,
    follow: false,
    timestamps: false,
    details: false,
    tail: undefined,
    sinceNs: undefined,
    untilNs: undefined,
    signal: undefined,
  });
  for await (const chunk of log.chunks) {
    if (client.destroyed) return;
    if (!client.write(chunk)) await new Promise<void>((resolve) => onceDrainedOrClosed(client, resolve));
  }
}

function onceDrainedOrClosed(client: Duplex, done: () => void): void {
  const finish = (): void => {
    client.off("drain", finish);
    client.off("close", finish);
    done();
  };
  client.on("drain", finish);
  client.on("close", finish);
}

/** Gives every waiting client its stream. Called between the sandbox's preparation and the process's start. */
export async function connectWaiting(container: Container, sandbox: Sandbox): Promise<void> {
  const waiting = [...container.pendingAttaches];
  if (waiting.length === 0) return;
  container.pendingAttaches.clear();
  await Promise.all(
    waiting.map(async (pending) => {
      try {
        pending.resolve(await sandbox.attach(pending.options));
      } catch (error) {
        pending.close();
        throw error;
      }
    }),
  );
}

export async function resizeContainer(
  ctx: ContainerContext,
  container: Container,
  size: { readonly rows: number; readonly columns: number },
): Promise<void> {
  if (container.sandbox === undefined || !container.isUp) {
    throw new EngineError("conflict", `container ${container.id} is not running`, { code: "not-running" });
  }
  await container.sandbox.resize(size.rows, size.columns);
  containerEvent(ctx, container, "resize", { height: String(size.rows), width: String(size.columns) });
}
