import { LayerWorkers, type LayerWorkersOptions } from "./layer-workers.ts";

/**
 * Threads for layers, by what their jobs wait for: a client that neither sends nor reads occupies a thread for as long as
 * it likes, and must not hold up what needs no client. A transfer may occupy one of each (`save | load`, `export | import`),
 * so those that send and those that read do not wait for each other either.
 */
export interface LayerPools {
  /** Jobs that wait for the disk, or for a registry. */
  readonly work: LayerWorkers;
  /** Jobs that read what a client sends. */
  readonly fed: LayerWorkers;
  /** Jobs whose output a client reads (`LayerWorkers.tar`). */
  readonly streams: LayerWorkers;
}

/** Clients at a time that send, and that read; more wait. A thread is there only while it has a job. */
const clientThreadsMax = 8;

/** Pools of threads that start when they are needed. `work`: options of the pool that needs no client. */
export function openLayerPools(options: { work?: LayerWorkersOptions } = {}): LayerPools & AsyncDisposable {
  const work = new LayerWorkers(options.work);
  const fed = new LayerWorkers({ size: clientThreadsMax });
  const streams = new LayerWorkers({ size: clientThreadsMax });
  return {
    work,
    fed,
    streams,
    [Symbol.asyncDispose]: async () => {
      await Promise.all([work, fed, streams].map((pool) => pool[Symbol.asyncDispose]()));
    },
  };
}
