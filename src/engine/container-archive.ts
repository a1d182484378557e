/** Use cases: a container's path looked at, copied out as a tar, and an archive copied in (`docker cp`). */
import { access, mkdir } from "node:fs/promises";
import type { Readable } from "node:stream";
import { EngineError, errnoOf } from "#base/errors.ts";
import { removeDirectory } from "#base/remove-directory.ts";
import { RingWriter } from "#content/byte-ring.ts";
import type { ContainerFiles } from "#runtime/runtime.ts";
import { type PathStat, parseContainerPath } from "#snapshot/container-path.ts";
import type { Container } from "./container.ts";
import { type ContainerContext, containerEvent, runDirOf } from "./container-context.ts";
import type { Copy } from "./container-copies.ts";
import { dropEarly } from "./container-early.ts";
import { etcFiles, requestByItself } from "./container-request.ts";
import { fillVolumes, makeBindSources } from "./container-volumes.ts";

export type { PathStat };

/** What a client may be ahead of the thread that unpacks. */
const ringBytes = 1024 * 1024;

/** A container as the request names it: Docker's messages repeat the name. */
export interface CopyPlace {
  readonly reference: string;
  readonly path: string;
}

export interface ExtractRequest extends CopyPlace {
  readonly noOverwriteDirNonDir: boolean;
  /** Everything gets the uid and gid of the container's user. */
  readonly copyUidGid: boolean;
  readonly body: Readable;
}

/** Throws `notFound` in Docker's words. */
export async function statContainerPath(
  ctx: ContainerContext,
  container: Container,
  place: CopyPlace,
): Promise<PathStat> {
  await using copy = container.copies.begin();
  const files = await openFiles(ctx, container, copy);
  // Awaited here: the files are closed when this function returns.
  return await statIn(ctx, files, place, copy.signal);
}

/** A path as a tar, Docker's names in it. The container's files stay open until the archive is read or destroyed. */
export async function archiveOfContainer(
  ctx: ContainerContext,
  container: Container,
  place: CopyPlace,
  signal: AbortSignal,
): Promise<{ readonly stat: PathStat; readonly archive: Readable }> {
  await using undo = new AsyncDisposableStack();
  const copy = undo.use(container.copies.begin());
  const files = await openFiles(ctx, container, copy);
  const either = AbortSignal.any([signal, copy.signal]);
  const stat = await statIn(ctx, files, place, either);
  const { path, asDirectory, name } = parseContainerPath(place.path);
  const archive = ctx.copyPools.streams.tar(
    {
      kind: "tar",
      directory: files.path,
      from: asDirectory ? `${path === "/" ? "" : path}/.` : path,
      as: name,
      container: true,
    },
    { signal: either },
  );
  undo.move();
  archive.once("close", () => ctx.background("closing a container's files", close(copy)));
  containerEvent(ctx, container, "archive-path");
  return { stat, archive };
}

/** Unpacks an archive below a directory. Throws in Docker's words; what was unpacked before an error stays, as there. */
export async function extractToContainer(
  ctx: ContainerContext,
  container: Container,
  request: ExtractRequest,
  signal: AbortSignal,
): Promise<void> {
  await using copy = container.copies.begin();
  const files = await openFiles(ctx, container, copy);
  const { document } = container;
  const { User: user } = document.config;
  const owner = request.copyUidGid && user !== "" ? ctx.runtime.userIn(files, user) : undefined;
  const stop = new AbortController();
  const either = AbortSignal.any([signal, copy.signal, stop.signal]);
  const ring = new RingWriter(ringBytes);
  const work = ctx.copyPools.fed.run<"extract">(
    {
      kind: "extract",
      root: files.path,
      path: request.path,
      ring: ring.buffer,
      noOverwriteDirNonDir: request.noOverwriteDirNonDir,
      ...(owner === undefined ? {} : { owner }),
      mounts: document.mounts.map(({ destination, readOnly }) => ({ destination, readOnly })),
      readonlyRoot: document.hostConfig.ReadonlyRootfs,
    },
    { signal: either },
  );
  // The reading ends when the thread has, whatever the client still sends; and the thread when the body breaks off.
  let ended = false;
  const finished = work.finally(() => {
    ended = true;
    stop.abort();
  });
  const feeding = feed(request.body, ring, either).catch((error: unknown) => {
    if (!ended) stop.abort();
    throw error;
  });
  const [outcome, fed] = await Promise.allSettled([finished, feeding]);
  if (copy.signal.aborted) throw copy.signal.reason;
  if (fed.status === "rejected" && !isAbort(fed.reason)) throw fed.reason;
  if (outcome.status === "rejected") throw extractError(outcome.reason, request);
  containerEvent(ctx, container, "extract-to-dir");
}

async function feed(body: Readable, ring: RingWriter, signal: AbortSignal): Promise<void> {
  const stop = (): void => void body.destroy();
  signal.addEventListener("abort", stop, { once: true });
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      await ring.write(chunk, signal);
      ring.tell();
      if (signal.aborted) return;
    }
    ring.settle("complete");
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

function isAbort(error: unknown): boolean {
  return error instanceof EngineError && error.kind === "cancelled";
}

async function statIn(
  ctx: ContainerContext,
  files: ContainerFiles,
  place: CopyPlace,
  signal: AbortSignal,
): Promise<PathStat> {
  const stat = await ctx.copyPools.work.run<"path-stat">(
    { kind: "path-stat", root: files.path, path: place.path },
    { signal },
  );
  if (stat === undefined) throw notFound(place);
  return stat;
}

function notFound({ path, reference }: CopyPlace): EngineError {
  return new EngineError("notFound", `Could not find the file ${path} in container ${reference}`, {
    code: "no-such-path",
  });
}

/** Docker names the directory that is missing, and answers 500 to whatever is wrong with an archive. */
function extractError(error: unknown, place: CopyPlace): unknown {
  if (!(error instanceof EngineError)) return error;
  if (error.code === "ENOENT" && error.message.startsWith("lstat")) return notFound(place);
  if (error.kind !== "invalid") return error;
  return new EngineError("system", error.message, { code: error.code, cause: error });
}

/** The container's files for one copy: through its first process where it runs, else mounted for as long as it takes. */
async function openFiles(ctx: ContainerContext, container: Container, copy: Copy): Promise<ContainerFiles> {
  // What changes the mounts (start, removal) has the lock too; they look for copies when they have it.
  using _lock = await ctx.locks.acquire(container.id);
  checkPresent(container, copy);
  for (;;) {
    const { sandbox } = container;
    if (sandbox === undefined || sandbox.pid === 0) break;
    try {
      const files = sandbox.openFiles();
      copy.own(files);
      return files;
    } catch (error) {
      if (!(error instanceof EngineError) || error.code !== "not-running") throw error;
      await exitSoon(sandbox.exited);
      // The container's lock is held: nobody waits longer for an end that is not reported.
      if (container.sandbox === sandbox) throw error;
    }
  }
  await dropEarly(ctx, container);
  await container.cleanup;
  checkPresent(container, copy);
  return copy.mounted(() => mountStopped(ctx, container));
}

/** The report of an end follows the end within milliseconds. */
const exitReportMs = 2000;

async function exitSoon(exited: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, exitReportMs);
    timer.unref();
  });
  try {
    await Promise.race([exited, late]);
  } finally {
    clearTimeout(timer);
  }
}

function checkPresent(container: Container, copy: Copy): void {
  copy.signal.throwIfAborted();
  const { status } = container.state;
  if (!container.removing && status !== "removing" && status !== "dead") return;
  throw new EngineError("conflict", `container ${container.id} is marked for removal`, { code: "removing" });
}

async function mountStopped(ctx: ContainerContext, container: Container): Promise<ContainerFiles> {
  await using undo = new AsyncDisposableStack();
  const runDir = runDirOf(ctx, container.id);
  const remove = (): Promise<void> => removeDirectory(runDir);
  undo.defer(remove);
  const { document } = container;
  await Promise.all([mkdir(runDir, { recursive: true, mode: 0o700 }), makeBindSources(document.mounts)]);
  const request = requestByItself(ctx, container);
  if (document.mounts.some((mount) => mount.kind === "volume" && mount.copyUp)) {
    await using image = await ctx.runtime.mountFiles({ ...request, mounts: [], readonlyRootfs: false });
    await fillVolumes(ctx, container, { rootPath: image.path });
    ctx.background("saving a container with filled volumes", ctx.table.save(container));
  }
  // Those of another container whose network it shared may be gone.
  const missing = new Set<string>();
  for (const [, source] of etcFiles(ctx, document)) {
    if (!(await exists(source))) missing.add(source);
  }
  const mounts = request.mounts.filter(({ source }) => !missing.has(source));
  const files = await ctx.runtime.mountFiles({ ...request, mounts });
  undo.move();
  return {
    path: files.path,
    [Symbol.asyncDispose]: async () => {
      try {
        await files[Symbol.asyncDispose]();
      } finally {
        await remove();
      }
    },
  };
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}

async function close(copy: Copy): Promise<void> {
  await copy[Symbol.asyncDispose]();
}
