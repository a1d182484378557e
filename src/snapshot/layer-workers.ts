import { availableParallelism } from "node:os";
import { Readable } from "node:stream";
import { Worker } from "node:worker_threads";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import {
  controlCells,
  fromFailure,
  type JobMessage,
  type JobReply,
  type JobResults,
  type LayerJob,
  readsContext,
  streamCredits,
  type TarJob,
} from "./layer-job.ts";

export interface JobOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (consumedBytes: number) => void;
}

export interface LayerWorkersOptions {
  /** Script of the threads: the bundle has its own. */
  readonly script?: URL;
  /** Threads; `min(limits.concurrentUnpacks, cores)` when undefined. */
  readonly size?: number;
}

interface Task {
  readonly job: LayerJob;
  readonly control: SharedArrayBuffer;
  readonly onProgress?: ((consumedBytes: number) => void) | undefined;
  readonly onChunk?: (chunk: Uint8Array) => void;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: unknown) => void;
}

interface Thread {
  readonly worker: Worker;
  task: Task | undefined;
  id: number;
  /** Index of the build context whose tree the thread has in memory (context-tree.ts). */
  context: string | undefined;
}

/** A thread that had nothing to do for this long ends: each holds some 10 MB, and a new one is there in 40 ms. */
const idleMs = 10_000;

/**
 * Threads for what sleeps in the kernel or costs CPU: unpack, remove, walk, sync. Started when needed, kept warm for
 * ten seconds, one job at a time each; jobs beyond them wait in order. They do not keep the process alive.
 */
export class LayerWorkers implements AsyncDisposable {
  readonly #script: URL;
  readonly #size: number;
  readonly #threads: Thread[] = [];
  readonly #queue: Task[] = [];
  #nextId = 1;
  #closed = false;
  #idleTimer: NodeJS.Timeout | undefined;

  constructor(options: LayerWorkersOptions = {}) {
    this.#script = options.script ?? new URL("./layer-worker.ts", import.meta.url);
    this.#size = options.size ?? Math.max(1, Math.min(limits.concurrentUnpacks, availableParallelism()));
  }

  /** Runs a job and gives its result; `signal` stops it at its next chunk. Rejects with `EngineError`s. */
  run<Kind extends LayerJob["kind"]>(
    job: Extract<LayerJob, { kind: Kind }>,
    options: JobOptions = {},
  ): Promise<JobResults[Kind]> {
    const control = new SharedArrayBuffer(8);
    return this.#submit(job, control, options) as Promise<JobResults[Kind]>;
  }

  /** Whether a thread without work has the context in memory that the job reads: it would be given the job. */
  isNear(job: LayerJob): boolean {
    return this.#idleNear(job) !== undefined;
  }

  #idleNear(job: LayerJob): Thread | undefined {
    const context = contextOf(job);
    if (context === undefined) return undefined;
    return this.#threads.find((thread) => thread.task === undefined && thread.context === context);
  }

  /** A directory tree as a tar stream. A thread is busy until it ends or is destroyed, however slow its reader is. */
  tar(job: TarJob, options: { signal?: AbortSignal } = {}): Readable {
    const control = new SharedArrayBuffer(8);
    const cells = new Int32Array(control);
    Atomics.store(cells, controlCells.credits, streamCredits);
    const waiting: Uint8Array[] = [];
    let wanted = false;
    let ended = false;
    const abort = new AbortController();
    const give = (): void => {
      while (wanted && waiting.length > 0) {
        wanted = stream.push(waiting.shift());
        Atomics.add(cells, controlCells.credits, 1);
        Atomics.notify(cells, controlCells.credits);
      }
      if (ended && waiting.length === 0) stream.push(null);
    };
    const stream = new Readable({
      highWaterMark: 0,
      read: () => {
        wanted = true;
        give();
      },
      destroy: (error, done) => {
        abort.abort();
        done(error);
      },
    });
    const signal =
      options.signal === undefined ? abort.signal : AbortSignal.any([options.signal, abort.signal]);
    const onChunk = (chunk: Uint8Array): void => {
      waiting.push(chunk);
      give();
    };
    this.#submit(job, control, { signal }, onChunk).then(
      () => {
        ended = true;
        give();
      },
      (error: unknown) => stream.destroy(error as Error),
    );
    return stream;
  }

  #submit(
    job: LayerJob,
    control: SharedArrayBuffer,
    options: JobOptions,
    onChunk?: (chunk: Uint8Array) => void,
  ): Promise<unknown> {
    const { signal, onProgress } = options;
    return new Promise((resolve, reject) => {
      if (this.#closed || signal?.aborted === true) {
        reject(cancelled());
        return;
      }
      const cells = new Int32Array(control);
      const onAbort = (): void => {
        Atomics.store(cells, controlCells.aborted, 1);
        Atomics.notify(cells, controlCells.credits);
        const queued = this.#queue.indexOf(task);
        if (queued < 0) return;
        this.#queue.splice(queued, 1);
        reject(cancelled());
      };
      const settle = (): void => signal?.removeEventListener("abort", onAbort);
      const task: Task = {
        job,
        control,
        onProgress,
        ...(onChunk === undefined ? {} : { onChunk }),
        resolve: (result) => {
          settle();
          resolve(result);
        },
        reject: (error) => {
          settle();
          reject(error);
        },
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#queue.push(task);
      this.#dispatch();
    });
  }

  #dispatch(): void {
    while (this.#queue.length > 0) {
      const task = this.#queue[0] as Task;
      let thread = this.#idleNear(task.job) ?? this.#threads.find((other) => other.task === undefined);
      if (thread === undefined && this.#threads.length < this.#size) thread = this.#start();
      if (thread === undefined) return;
      this.#queue.shift();
      thread.task = task;
      if (task.job.kind === "context") thread.context = task.job.indexPath;
      else if (!readsContext(task.job)) thread.context = undefined;
      thread.id = this.#nextId;
      this.#nextId += 1;
      // The process must not end in the middle of a job.
      thread.worker.ref();
      const message: JobMessage = { id: thread.id, job: task.job, control: task.control };
      thread.worker.postMessage(message);
    }
  }

  #start(): Thread {
    const worker = new Worker(this.#script, { name: "layer", execArgv: [] });
    const thread: Thread = { worker, task: undefined, id: 0, context: undefined };
    worker.on("message", (message: JobReply) => this.#onReply(thread, message));
    worker.on("error", (error) => this.#onDeath(thread, error));
    worker.on("exit", () => this.#onDeath(thread, new Error("layer worker ended")));
    this.#threads.push(thread);
    return thread;
  }

  #onReply(thread: Thread, message: JobReply): void {
    const task = thread.task;
    if (task === undefined || message.id !== thread.id) return;
    if ("progress" in message) task.onProgress?.(message.progress);
    else if ("chunk" in message) task.onChunk?.(message.chunk);
    else {
      thread.task = undefined;
      thread.worker.unref();
      if ("failure" in message) task.reject(fromFailure(message.failure));
      else task.resolve(message.result);
      this.#dispatch();
      this.#armIdle();
    }
  }

  #onDeath(thread: Thread, error: unknown): void {
    const at = this.#threads.indexOf(thread);
    if (at < 0) return;
    this.#threads.splice(at, 1);
    thread.task?.reject(new EngineError("system", "layer worker failed", { code: "worker", cause: error }));
    thread.task = undefined;
    if (!this.#closed) this.#dispatch();
  }

  #armIdle(): void {
    clearTimeout(this.#idleTimer);
    this.#idleTimer = setTimeout(() => {
      for (const thread of this.#threads.filter((candidate) => candidate.task === undefined)) {
        this.#threads.splice(this.#threads.indexOf(thread), 1);
        void thread.worker.terminate();
      }
    }, idleMs);
    this.#idleTimer.unref();
  }

  /** Refuses what waits, aborts what runs and ends the threads. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#idleTimer);
    for (const task of this.#queue.splice(0)) task.reject(cancelled());
    const running = this.#threads.map(async (thread) => {
      const task = thread.task;
      if (task !== undefined) {
        Atomics.store(new Int32Array(task.control), controlCells.aborted, 1);
        Atomics.notify(new Int32Array(task.control), controlCells.credits);
        await new Promise<void>((resolve) => {
          thread.worker.on("message", (message: JobReply) => {
            if ("result" in message || "failure" in message) resolve();
          });
          thread.worker.once("exit", () => resolve());
        });
      }
      await thread.worker.terminate();
    });
    await Promise.all(running);
  }
}

/** The build context that a job reads. */
function contextOf(job: LayerJob): string | undefined {
  if (!readsContext(job)) return undefined;
  const specs = job.kind === "copy-digest" ? [job.spec] : job.source.kind === "copy" ? job.source.specs : [];
  for (const { source } of specs) if (source.kind === "context") return source.indexPath;
  return undefined;
}

function cancelled(): EngineError {
  return new EngineError("cancelled", "context canceled", { code: "aborted" });
}
