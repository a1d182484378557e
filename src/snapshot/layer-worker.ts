import { closeSync, openSync } from "node:fs";
import { release } from "node:os";
import { parentPort } from "node:worker_threads";
import { ChunkSink } from "#archive/chunk-sink.ts";
import { bytesOfText } from "#base/byte-string.ts";
import { openRoot } from "#sys/beneath.ts";
import { closeFd } from "#sys/files.ts";
import { workInLongSlices } from "#sys/scheduling.ts";
import { syncFileSystem } from "#sys/statfs.ts";
import { runApply } from "./apply-job.ts";
import { runBundle } from "./bundle-job.ts";
import { runExtract, runPathStat } from "./container-jobs.ts";
import { isLeftOut } from "./container-path.ts";
import { runContext } from "./context-job.ts";
import { releaseContext } from "./context-tree.ts";
import { runCopyDigest, runDerive } from "./derive-job.ts";
import { layerChanges } from "./layer-changes.ts";
import {
  abortCheck,
  controlCells,
  type JobMessage,
  type JobReply,
  type LayerJob,
  readsContext,
  type TarJob,
  toFailure,
} from "./layer-job.ts";
import { LayerStack } from "./layer-stack.ts";
import { removeLiveTree } from "./live-remove.ts";
import { helpPacking } from "./pack-blocks.ts";
import { runPack } from "./pack-job.ts";
import { removeTreeAt } from "./remove-tree.ts";
import { writeMergedTar, writeTreeTar } from "./tree-tar.ts";
import { treeSizeBytes } from "./tree-walk.ts";

/** Entry of a worker thread: one job at a time, every call synchronous. The pool is layer-workers.ts. */
const port = parentPort;
if (port === null) throw new Error("layer-worker runs only as a worker thread");

/** Progress is for a human's eye: messages beyond ten a second only cost. */
const progressIntervalMs = 100;
const streamChunkBytes = 512 * 1024;

// Of four busy threads on two cores each would delay the event loop by its time slice.
workInLongSlices(release());

function reply(message: JobReply, transfer: ArrayBuffer[] = []): void {
  port?.postMessage(message, transfer);
}

function withRoot<Result>(directory: string, use: (rootFd: number) => Result): Result {
  const rootFd = openRoot(directory);
  try {
    return use(rootFd);
  } finally {
    closeFd(rootFd);
  }
}

function progressOf(id: number): (consumedBytes: number) => void {
  let last = 0;
  return (consumedBytes) => {
    const now = performance.now();
    if (now - last < progressIntervalMs) return;
    last = now;
    reply({ id, progress: consumedBytes });
  };
}

/** Sends chunks to the main thread, each when its reader has room for it, so that memory stays bounded. */
function chunkStream(id: number, control: Int32Array): ChunkSink {
  const checkAborted = abortCheck(control);
  let chunk = Buffer.alloc(0);
  const send = (filled: number): void => {
    for (;;) {
      checkAborted();
      const credits = Atomics.load(control, controlCells.credits);
      if (credits > 0) break;
      Atomics.wait(control, controlCells.credits, credits, 1000);
    }
    Atomics.sub(control, controlCells.credits, 1);
    reply({ id, chunk: chunk.subarray(0, filled) }, [chunk.buffer]);
  };
  return new ChunkSink(() => {
    chunk = Buffer.allocUnsafeSlow(streamChunkBytes);
    return chunk;
  }, send);
}

function runTar(job: TarJob, id: number, control: Int32Array): undefined {
  const stream = chunkStream(id, control);
  if (job.merge !== undefined) {
    using roots = new DisposableStack();
    const rootFds = [job.directory, ...job.merge].map((directory) => {
      const fd = openRoot(directory);
      roots.defer(() => closeFd(fd));
      return fd;
    });
    writeMergedTar(rootFds, stream);
    return undefined;
  }
  using stack = job.below === undefined ? undefined : new LayerStack(job.below);
  const below = job.layer === true ? "anything" : stack;
  withRoot(job.directory, (rootFd) => {
    writeTreeTar(rootFd, stream, {
      ...(job.layer === true ? { still: true } : {}),
      ...(below === undefined ? {} : { below }),
      ...(job.from === undefined ? {} : { from: job.from }),
      ...(job.as === undefined ? {} : { as: job.as }),
      ...(job.container === true ? { leaveOut: isLeftOut, wholeSeconds: true } : {}),
    });
  });
  return undefined;
}

function sync(directory: string): undefined {
  const fd = openSync(directory, "r");
  try {
    syncFileSystem(fd);
  } finally {
    closeSync(fd);
  }
  return undefined;
}

function run(job: LayerJob, id: number, control: Int32Array): unknown {
  switch (job.kind) {
    case "apply":
      return runApply(job, control, progressOf(id));
    case "remove":
      return withRoot(job.directory, (fd) =>
        job.live
          ? removeLiveTree(fd, bytesOfText(job.name), abortCheck(control))
          : removeTreeAt(fd, bytesOfText(job.name)),
      );
    case "sync":
      return sync(job.directory);
    case "usage":
      return withRoot(job.directory, treeSizeBytes);
    case "changes": {
      using below = new LayerStack(job.below);
      return withRoot(job.upper, (fd) => layerChanges(fd, below));
    }
    case "context":
      return runContext(job, control);
    case "copy-digest":
      return runCopyDigest(job, abortCheck(control));
    case "derive":
      return runDerive(job, abortCheck(control));
    case "bundle":
      return runBundle(job, control);
    case "pack":
      return runPack(job, abortCheck(control), (bytes) => reply({ id, progress: bytes }));
    case "pack-help":
      return helpPacking(job.blocks);
    case "path-stat":
      return runPathStat(job);
    case "extract":
      return runExtract(job, control);
    case "tar":
      return runTar(job, id, control);
  }
}

port.on("message", ({ id, job, control }: JobMessage) => {
  if (!readsContext(job)) releaseContext();
  try {
    reply({ id, result: run(job, id, new Int32Array(control)) });
  } catch (error) {
    reply({ id, failure: toFailure(error) });
  }
});
