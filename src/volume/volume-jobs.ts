import { Worker } from "node:worker_threads";
import { EngineError } from "#base/errors.ts";
import type { VolumeJob, VolumeJobReply, VolumeJobRequest } from "./volume-worker.ts";

interface Waiter {
  readonly resolve: (value: number) => void;
  readonly reject: (error: Error) => void;
}

/** Jobs on volumes' trees, one after another in a worker thread that is started when first needed. */
export class VolumeJobs implements AsyncDisposable {
  readonly #waiters = new Map<number, Waiter>();
  #worker: Worker | undefined;
  #nextId = 1;

  run(job: VolumeJob): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#worker ??= this.#start();
      const id = this.#nextId;
      this.#nextId += 1;
      this.#waiters.set(id, { resolve, reject });
      this.#worker.postMessage({ id, job } satisfies VolumeJobRequest);
    });
  }

  #start(): Worker {
    const worker = new Worker(new URL("./volume-worker.ts", import.meta.url), {
      name: "volumes",
      execArgv: [],
    });
    worker.on("message", ({ id, value, failure }: VolumeJobReply) => {
      const waiter = this.#waiters.get(id);
      this.#waiters.delete(id);
      if (failure === undefined) waiter?.resolve(value);
      else waiter?.reject(toEngineError(failure));
    });
    const ended = (cause?: unknown): void => {
      if (this.#worker === worker) this.#worker = undefined;
      for (const { reject } of this.#waiters.values()) {
        reject(new EngineError("system", "the volume thread has ended", { code: "volume-thread", cause }));
      }
      this.#waiters.clear();
    };
    worker.on("error", ended);
    worker.on("exit", () => ended());
    worker.unref();
    return worker;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker?.terminate();
  }
}

function toEngineError({ message, errno }: NonNullable<VolumeJobReply["failure"]>): EngineError {
  const full = errno === "ENOSPC" || errno === "EDQUOT";
  return new EngineError(full ? "unavailable" : "system", message, { code: errno ?? "volume" });
}
