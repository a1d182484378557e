/**
 * Copies into and out of one container, and the mount that those of a stopped one share.
 *
 * 1. A container's root filesystem is mounted once at a time: a start waits until copies that hold an earlier mount of it are
 *    done, for a while, and then ends them; a removal ends them at once.
 * 2. The mount of a stopped container is there while somebody copies, and no longer.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { EngineError } from "#base/errors.ts";
import type { ContainerFiles } from "#runtime/runtime.ts";

export interface Copy extends AsyncDisposable {
  /** Aborted with the error to report when the copy has to end. */
  readonly signal: AbortSignal;
  /** Shares the mount of a container that does not run; `open` makes it when nobody has it. */
  mounted(open: () => Promise<ContainerFiles>): Promise<ContainerFiles>;
  /** What is to be closed with the copy. */
  own(files: ContainerFiles): void;
}

interface Running {
  readonly abort: AbortController;
  readonly done: Promise<void>;
}

export class ContainerCopies {
  readonly #running = new Set<Running>();
  #mount: { readonly files: Promise<ContainerFiles>; users: number } | undefined;
  #closing: Promise<void> = Promise.resolve();

  begin(): Copy {
    const abort = new AbortController();
    const { promise: done, resolve } = Promise.withResolvers<void>();
    const running = { abort, done };
    this.#running.add(running);
    let owned: AsyncDisposable | undefined;
    let ended = false;
    return {
      signal: abort.signal,
      mounted: async (open) => {
        const share = await this.#share(open);
        owned = share;
        return share.files;
      },
      own: (files) => {
        owned = files;
      },
      [Symbol.asyncDispose]: async () => {
        if (ended) return;
        ended = true;
        try {
          await owned?.[Symbol.asyncDispose]();
        } finally {
          this.#running.delete(running);
          resolve();
        }
      },
    };
  }

  async #share(
    open: () => Promise<ContainerFiles>,
  ): Promise<AsyncDisposable & { readonly files: ContainerFiles }> {
    await this.#closing;
    this.#mount ??= { files: open(), users: 0 };
    const mount = this.#mount;
    mount.users += 1;
    const leave = async (): Promise<void> => {
      mount.users -= 1;
      if (mount.users > 0 || this.#mount !== mount) return;
      this.#mount = undefined;
      // Whoever comes next mounts it again, when it is gone.
      const closed = mount.files.then(
        (files) => files[Symbol.asyncDispose](),
        () => {},
      );
      this.#closing = closed.catch(() => {});
      await closed;
    };
    try {
      const files = await mount.files;
      return { files, [Symbol.asyncDispose]: leave };
    } catch (error) {
      await leave();
      throw error;
    }
  }

  /** Waits for the copies under way, for `graceMs`; then they end with this reason. The caller lets no new one begin. */
  async drain(graceMs: number, why: string): Promise<void> {
    if (this.#running.size === 0) return;
    const all = Promise.all([...this.#running].map(({ done }) => done));
    if (graceMs > 0) {
      const timer = new AbortController();
      await Promise.race([all, sleep(graceMs, undefined, { signal: timer.signal }).catch(() => {})]);
      timer.abort();
    }
    for (const { abort } of this.#running) {
      abort.abort(new EngineError("conflict", `the copy was ended: ${why}`, { code: "copy-ended" }));
    }
    await all;
  }
}
