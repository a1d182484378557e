/**
 * Sandboxes made ahead: while create waits for its commit, and while the client reads the answer and attaches, the
 * container's shim, root filesystem and network namespace are made, so that start finds them ready.
 *
 * 1. Only what nobody outside can see is done early: no published port is held, no host path is made, no event is told.
 * 2. A sandbox that is not started soon is given back; so is one whose container is changed or removed. Start never
 *    depends on it: without one, or when making it failed, start does everything itself and tells its own errors.
 * 3. It holds nothing that outlives the daemon: a prepared shim ends with its control channel.
 */
import { mkdir } from "node:fs/promises";
import { messageOf } from "#base/errors.ts";
import { removeDirectory } from "#base/remove-directory.ts";
import type { Attachment } from "#network/network.ts";
import type { Sandbox } from "#runtime/runtime.ts";
import type { Container } from "./container.ts";
import { type ContainerContext, runDirOf } from "./container-context.ts";
import { requestAttachment } from "./container-network.ts";
import { portRequests } from "./container-ports.ts";
import { sandboxRequest } from "./container-request.ts";

export interface EarlySandbox {
  readonly sandbox: Sandbox;
  readonly attachment: Attachment | undefined;
}

/** Kept at once: what a burst of creates may hold of the pool and of processes. */
const earlyMax = 8;
/** The command line takes some ten milliseconds from create to start; a program that waits longer does not mind. */
const keptMs = 3_000;

function isPlain({ document }: Container): boolean {
  const { hostConfig: host, mounts, endpoint } = document;
  if (document.buildStep === "idle") return false;
  const refersToOthers = [host.NetworkMode, host.IpcMode, host.PidMode].some((mode) =>
    mode.startsWith("container:"),
  );
  return (
    !refersToOthers &&
    endpoint.links.length === 0 &&
    mounts.every((mount) => mount.kind !== "bind") &&
    portRequests(document.config, host).length === 0
  );
}

/** Starts making a container's sandbox, when it may be and there is room. Its directories must be there. Never throws. */
export function prepareEarly(ctx: ContainerContext, container: Container): void {
  if (ctx.closing || ctx.early.size >= earlyMax || !isPlain(container)) return;
  ctx.early.add(container);
  const timer = setTimeout(
    () => ctx.background("giving an early sandbox back", dropEarly(ctx, container)),
    keptMs,
  );
  timer.unref();
  const result = makeEarly(ctx, container).catch((error: unknown) => {
    ctx.log.debug("no early sandbox", { container: container.id, error: messageOf(error) });
    return undefined;
  });
  container.early = { result, timer };
}

async function makeEarly(ctx: ContainerContext, container: Container): Promise<EarlySandbox> {
  await using undo = new AsyncDisposableStack();
  const runDir = runDirOf(ctx, container.id);
  undo.defer(() => removeDirectory(runDir));
  let attachment: Attachment | undefined;
  undo.defer(() => attachment?.release());
  const [attached] = await Promise.allSettled([
    requestAttachment(ctx, container),
    mkdir(runDir, { recursive: true, mode: 0o700 }),
  ]);
  if (attached.status === "rejected") throw attached.reason;
  attachment = attached.value;
  const sandbox = await ctx.runtime.prepare(sandboxRequest(ctx, container, attachment));
  undo.move();
  return { sandbox, attachment };
}

/** The sandbox for a start, or undefined; it is the caller's from now on. */
export async function takeEarly(
  ctx: ContainerContext,
  container: Container,
): Promise<EarlySandbox | undefined> {
  const { early } = container;
  if (early === undefined) return undefined;
  container.early = undefined;
  ctx.early.delete(container);
  clearTimeout(early.timer);
  return early.result;
}

/** Gives a sandbox back that will not be started as it is. Never rejects. */
export async function dropEarly(ctx: ContainerContext, container: Container): Promise<void> {
  const early = await takeEarly(ctx, container);
  if (early === undefined) return;
  const results = await Promise.allSettled([
    early.sandbox.abandon(),
    early.attachment?.release(),
    removeDirectory(runDirOf(ctx, container.id)),
  ]);
  for (const result of results) {
    if (result.status === "rejected") {
      ctx.log.warn("giving an early sandbox back", {
        container: container.id,
        error: messageOf(result.reason),
      });
    }
  }
}
