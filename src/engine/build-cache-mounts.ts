import { createHash } from "node:crypto";
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { EngineError } from "#base/errors.ts";
import { KeyedLock } from "#base/lock.ts";
import type { CacheMountRequest } from "#builder/step-executor.ts";

/**
 * Directories of `RUN --mount=type=cache`, by id, below one folder. `shared`: any number of steps at once; `locked`: one after
 * the other; `private`: a step that finds the directory in use gets another one.
 */
export class CacheMounts {
  readonly #root: string;
  readonly #locks = new KeyedLock();
  readonly #users = new Map<string, number>();

  constructor(root: string) {
    this.#root = root;
  }

  /** `fill` makes the directory at a path where nothing is, as the request's `initial` says. */
  async take(
    { id, sharing, initial, ...owner }: CacheMountRequest,
    fill: (path: string) => Promise<void>,
    signal: AbortSignal,
  ): Promise<{ readonly path: string } & AsyncDisposable> {
    const name = createHash("sha256")
      .update(initial === undefined ? id : `${id}\0${initial.digest}`)
      .digest("hex");
    const lock = sharing === "locked" ? await this.#locked(name, signal) : undefined;
    let chosen = name;
    for (let copy = 1; sharing === "private" && (this.#users.get(chosen) ?? 0) > 0; copy += 1)
      chosen = `${name}-${copy}`;
    this.#count(chosen, 1);
    const path = join(this.#root, chosen);
    const release = async (): Promise<void> => {
      this.#count(chosen, -1);
      lock?.[Symbol.dispose]();
    };
    try {
      // Two steps that find it missing at the same time: one makes it.
      using _turn = await this.#locks.acquire(`make ${chosen}`);
      if (!existsSync(path)) await this.#make(path, owner, initial === undefined ? undefined : fill);
    } catch (error) {
      await release();
      throw error;
    }
    return { path, [Symbol.asyncDispose]: release };
  }

  async #make(
    path: string,
    owner: { readonly mode: number; readonly uid: number; readonly gid: number },
    fill: ((path: string) => Promise<void>) | undefined,
  ): Promise<void> {
    mkdirSync(this.#root, { recursive: true, mode: 0o700 });
    if (fill === undefined) mkdirSync(path, { mode: 0o700 });
    else await fill(path);
    chownSync(path, owner.uid, owner.gid);
    chmodSync(path, owner.mode);
  }

  /** The lock, or the end of the build while it waits: a turn that comes afterwards is passed on. */
  async #locked(name: string, signal: AbortSignal): Promise<Disposable> {
    const cancelled = Promise.withResolvers<never>();
    const onAbort = (): void =>
      cancelled.reject(new EngineError("cancelled", "context canceled", { code: "aborted" }));
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    const turn = this.#locks.acquire(name);
    try {
      return await Promise.race([turn, cancelled.promise]);
    } catch (error) {
      turn.then(
        (lock) => lock[Symbol.dispose](),
        () => {},
      );
      throw error;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  #count(name: string, by: 1 | -1): void {
    const now = (this.#users.get(name) ?? 0) + by;
    if (now > 0) this.#users.set(name, now);
    else this.#users.delete(name);
  }

  /** Those that no step uses. */
  idle(): string[] {
    if (!existsSync(this.#root)) return [];
    return readdirSync(this.#root).filter(
      (name) => /^[0-9a-f]{64}(?:-\d+)?$/.test(name) && !this.#users.has(name),
    );
  }

  pathOf(name: string): string {
    return join(this.#root, name);
  }

  /** Takes away one that no step uses. */
  remove(name: string): void {
    if (!this.#users.has(name)) rmSync(this.pathOf(name), { recursive: true, force: true });
  }
}
