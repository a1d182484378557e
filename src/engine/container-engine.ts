/** The container engine: everything that can be done with containers, by name, id or unique prefix. */
import type { Readable } from "node:stream";
import { AssertionFailure } from "#base/assert.ts";
import type { ImageId } from "#base/digest.ts";
import { KeyedLock } from "#base/lock.ts";
import type { StepContainer } from "#builder/step-executor.ts";
import type { EndpointSettings } from "#network/network.ts";
import { LogReaders } from "#runtime/log-readers.ts";
import type { Change } from "#snapshot/snapshotter.ts";
import type { ContainerInspectJson } from "#wire/container-json.ts";
import type { ContainerUpdateBody, ExecCreateBody, ExecStartBody } from "#wire/container-schema.ts";
import type { Filters } from "#wire/filters.ts";
import { createStepContainer, removeAbandonedSteps, type StepContainerRequest } from "./build-step.ts";
import type { Container } from "./container.ts";
import {
  archiveOfContainer,
  type CopyPlace,
  type ExtractRequest,
  extractToContainer,
  type PathStat,
  statContainerPath,
} from "./container-archive.ts";
import { type CommitSource, commitSource } from "./container-commit.ts";
import type { ContainerContext, ContainerDefaults, ContainerEngineDeps } from "./container-context.ts";
import { type Created, type CreateRequest, createContainer } from "./container-create.ts";
import { dropEarly } from "./container-early.ts";
import { watchExit } from "./container-exit.ts";
import { exportContainer } from "./container-export.ts";
import { startHealthChecks } from "./container-health.ts";
import { inspectContainer } from "./container-inspect.ts";
import { type Attachment, type AttachRequest, attachContainer, resizeContainer } from "./container-io.ts";
import { type ListOptions, listContainers } from "./container-list.ts";
import { pauseContainer, unpauseContainer } from "./container-pause.ts";
import { pruneContainers, type RemoveOptions, removeContainer } from "./container-remove.ts";
import { renameContainer } from "./container-rename.ts";
import { startContainer } from "./container-start.ts";
import {
  killContainer,
  killSignal,
  restartContainer,
  type StopOptions,
  stopContainer,
} from "./container-stop.ts";
import { type ContainerUser, openContainerTable } from "./container-table.ts";
import { updateContainer } from "./container-update.ts";
import { type Wait, waitForContainer } from "./container-wait.ts";
import {
  createExec,
  type ExecInspectJson,
  type ExecStart,
  ExecTable,
  inspectExec,
  resizeExec,
  startExec,
} from "./exec.ts";
import type { Exec } from "./exec-record.ts";
import { type ContainerLog, type LogRequest, readContainerLog } from "./logs.ts";
import { recoverContainers } from "./recover.ts";
import { type ProcessTable, topOfContainer } from "./top.ts";

export interface ContainerEngine extends AsyncDisposable {
  create(request: CreateRequest): Promise<Created>;
  start(reference: string): Promise<void>;
  stop(reference: string, options: StopOptions): Promise<void>;
  kill(reference: string, signal: string): Promise<void>;
  restart(reference: string, options: StopOptions): Promise<void>;
  pause(reference: string): Promise<void>;
  unpause(reference: string): Promise<void>;
  rename(reference: string, name: string): Promise<void>;
  remove(reference: string, options: RemoveOptions): Promise<void>;
  prune(filters: Filters): Promise<{ deleted: string[]; reclaimedBytes: number }>;
  update(reference: string, body: ContainerUpdateBody): Promise<string[]>;
  inspect(reference: string, options: { readonly size: boolean }): Promise<ContainerInspectJson>;
  /** JSON text of the list. */
  list(options: ListOptions): Promise<string>;
  /** Registered when it returns; the promise of the exit is the caller's to wait for. */
  wait(reference: string, condition: string): Wait;
  attach(reference: string, request: AttachRequest): Attachment;
  resize(reference: string, size: { readonly rows: number; readonly columns: number }): Promise<void>;
  logs(reference: string, request: LogRequest): ContainerLog;
  top(reference: string, psArgs: string): Promise<ProcessTable>;
  changes(reference: string): Promise<Change[]>;
  /** The container for `ImageService.commit`, frozen where it runs and `pause` says so. */
  commitSource(reference: string, pause: boolean): Promise<CommitSource>;
  /** The container's file system as one flat tar. */
  export(reference: string, signal: AbortSignal): Readable;
  /** Status of a path in a container (`docker cp`). */
  statPath(place: CopyPlace): Promise<PathStat>;
  archive(
    place: CopyPlace,
    signal: AbortSignal,
  ): Promise<{ readonly stat: PathStat; readonly archive: Readable }>;
  extract(request: ExtractRequest, signal: AbortSignal): Promise<void>;
  createExec(reference: string, body: ExecCreateBody): string;
  startExec(execId: string, body: ExecStartBody): ExecStart;
  inspectExec(execId: string): ExecInspectJson;
  resizeExec(execId: string, size: { rows: number; columns: number }): Promise<void>;
  /** A container for a step of a build. */
  buildStep(request: StepContainerRequest): Promise<StepContainer>;
  /** For the other parts of the engine. */
  usersOfImage(id: ImageId): ContainerUser[];
  usersOfVolume(name: string): string[];
  usersOfNetwork(id: string): ContainerUser[];
  /** Containers that run in a network namespace of their own, with their endpoints. */
  connected(): { id: string; name: string; endpoints: readonly EndpointSettings[] }[];
  /** Counts for `info`. */
  counts(): {
    readonly total: number;
    readonly running: number;
    readonly paused: number;
    readonly stopped: number;
  };
}

/**
 * Loads every container and brings it into agreement with what runs (recovery), then serves. Disposing it leaves the
 * containers running and waits for work under way.
 */
export async function createContainerEngine(deps: ContainerEngineDeps): Promise<ContainerEngine> {
  const background = new Set<Promise<void>>();
  const execs = new ExecTable();
  const ctx: ContainerContext = {
    ...deps,
    defaults: withDefaults(deps.defaults),
    table: await openContainerTable(deps.database, deps.log),
    locks: new KeyedLock(),
    logReaders: new LogReaders(),
    early: new Set(),
    closing: false,
    background: (what, work) => {
      const tracked: Promise<void> = guarded(deps, what, work).finally(() => background.delete(tracked));
      background.add(tracked);
    },
    watch: (what, work) => void guarded(deps, what, work),
    removeContainer: async (container) => {
      if (container.removing) return;
      await removeContainer(ctx, container, { force: true, volumes: true });
      execs.forget(container);
    },
    onStarted: (container, sandbox) => {
      watchExit(ctx, container, sandbox);
      startHealthChecks(ctx, container, sandbox);
    },
  };
  await recoverContainers(ctx);
  await removeAbandonedSteps(ctx);
  return engineOf(ctx, execs, background);
}

/** A broken invariant ends the daemon (invariant 8); any other failure ends this piece of work. */
async function guarded(deps: ContainerEngineDeps, what: string, work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (error instanceof AssertionFailure) throw error;
    deps.log.error(what, { error });
  }
}

function withDefaults(given: Partial<ContainerDefaults> | undefined): ContainerDefaults {
  return {
    dns: [],
    dnsOptions: [],
    dnsSearch: [],
    shmSizeBytes: 64 * 1024 * 1024,
    ulimits: [],
    logDriver: "json-file",
    logOptions: {},
    init: false,
    hostname: "localhost",
    noNewPrivileges: false,
    hostGateway: "",
    ...given,
  };
}

function engineOf(ctx: ContainerContext, execs: ExecTable, background: Set<Promise<void>>): ContainerEngine {
  const find = (reference: string): Container => ctx.table.resolve(reference);
  const execOf = (id: string): { exec: Exec; container: Container } => {
    const exec = execs.resolve(id);
    return { exec, container: find(exec.containerId) };
  };
  return {
    create: (request) => createContainer(ctx, request),
    start: async (reference) => startContainer(ctx, find(reference)),
    stop: async (reference, options) => stopContainer(ctx, find(reference), options),
    kill: async (reference, signal) => {
      // Docker reads the signal before it looks for the container.
      const number = killSignal(signal);
      await killContainer(ctx, find(reference), number);
    },
    restart: async (reference, options) => restartContainer(ctx, find(reference), options),
    pause: async (reference) => pauseContainer(ctx, find(reference)),
    unpause: async (reference) => unpauseContainer(ctx, find(reference)),
    rename: async (reference, name) => renameContainer(ctx, find(reference), name),
    remove: async (reference, options) => {
      const container = find(reference);
      await removeContainer(ctx, container, options);
      execs.forget(container);
    },
    prune: (filters) => pruneContainers(ctx, filters),
    update: async (reference, body) => updateContainer(ctx, find(reference), body),
    inspect: async (reference, options) => inspectContainer(ctx, find(reference), options),
    list: (options) => listContainers(ctx, options),
    wait: (reference, condition) => waitForContainer(find(reference), condition),
    attach: (reference, request) => attachContainer(ctx, find(reference), request),
    resize: async (reference, size) => resizeContainer(ctx, find(reference), size),
    logs: (reference, request) => readContainerLog(ctx, find(reference), request),
    top: async (reference, psArgs) => topOfContainer(ctx, find(reference), psArgs),
    changes: async (reference) => {
      const { id, document } = find(reference);
      const layers = ctx.images.get(document.imageId)?.layers ?? [];
      return ctx.snapshotter.changes(
        id,
        layers.map((layer) => layer.key),
      );
    },
    commitSource: async (reference, pause) => commitSource(ctx, find(reference), pause),
    export: (reference, signal) => exportContainer(ctx, find(reference), signal),
    statPath: async (place) => statContainerPath(ctx, find(place.reference), place),
    archive: async (place, signal) => archiveOfContainer(ctx, find(place.reference), place, signal),
    extract: async (request, signal) => extractToContainer(ctx, find(request.reference), request, signal),
    createExec: (reference, body) => createExec(ctx, execs, find(reference), body),
    startExec: (id, body) => {
      const { exec, container } = execOf(id);
      return startExec(ctx, execs, container, exec, body);
    },
    inspectExec: (id) => inspectExec(execs.resolve(id)),
    resizeExec: async (id, size) => resizeExec(execs.resolve(id), size),
    buildStep: (request) => createStepContainer(ctx, request),
    usersOfImage: (id) => ctx.table.usersOfImage(id),
    usersOfVolume: (name) => ctx.table.usersOfVolume(name),
    usersOfNetwork: (id) => ctx.table.usersOfNetwork(id),
    connected: () =>
      [...ctx.table.all()].flatMap(({ id, name, isUp, document }) =>
        isUp && document.network !== null ? [{ id, name, endpoints: document.network.endpoints }] : [],
      ),
    counts: () => countsOf(ctx),
    [Symbol.asyncDispose]: () => close(ctx, background),
  };
}

function countsOf(ctx: ContainerContext): ReturnType<ContainerEngine["counts"]> {
  let running = 0;
  let paused = 0;
  for (const { state, isUp } of ctx.table.all()) {
    if (state.status === "paused") paused += 1;
    else if (isUp) running += 1;
  }
  return { total: ctx.table.size, running, paused, stopped: ctx.table.size - running - paused };
}

/** Containers go on; what this daemon was doing comes to its end. */
async function close(ctx: ContainerContext, background: ReadonlySet<Promise<void>>): Promise<void> {
  ctx.closing = true;
  for (const container of ctx.table.all()) {
    container.cancelRestart?.();
    container.health?.stop();
    container.closePendingAttaches();
  }
  await Promise.all([...ctx.early].map((container) => dropEarly(ctx, container)));
  await Promise.all([...ctx.table.all()].map(({ copies }) => copies.drain(0, "the daemon stops")));
  while (background.size > 0) await Promise.allSettled(background);
  for (const container of ctx.table.all()) container.sandbox?.detach();
}
