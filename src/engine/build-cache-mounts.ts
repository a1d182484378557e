import { createHash, randomBytes } from "node:crypto";
import { chmodSync, chownSync, existsSync, lstatSync, mkdirSync, readdirSync, renameSync } from "node:fs";
import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";
import { type Clock, formatTime } from "#base/clock.ts";
import { EngineError, errnoOf } from "#base/errors.ts";
import { KeyedLock } from "#base/lock.ts";
import type { CacheMountRequest } from "#builder/step-executor.ts";

export interface CacheMountStatus {
  readonly name: string;
  readonly inUse: boolean;
  readonly sizeBytes: number;
  readonly createdAt: string;
  readonly lastUsedNs: bigint;
}

/** Removes a name of a directory and all below it, where a container may still change what is there. */
export type RemoveTree = (directory: string, name: string) => Promise<void>;

/**
 * Directories of `RUN --mount=type=cache`, by id, below one folder. `shared`: any number of steps at once; `locked`: one after
 * the other; `private`: a step that finds the directory in use gets another one.
 */
export class CacheMounts {
  readonly #root: string;
  readonly #locks = new KeyedLock();
  readonly #users = new Map<string, number>();

  /** Of those that this life of the daemon has used; of others the directory's own time tells. */
  readonly #lastUsedNs = new Map<string, bigint>();
  readonly #clock: Clock;

  readonly #removeTree: RemoveTree;

  constructor(root: string, clock: Clock, removeTree: RemoveTree) {
    this.#root = root;
    this.#clock = clock;
    this.#removeTree = removeTree;
    // What an interrupted removal left.
    for (const name of existsSync(root) ? readdirSync(root) : [])
      if (name.startsWith("gone-")) void removeTree(root, name).catch(() => {});
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
      this.#lastUsedNs.set(chosen, this.#clock.nowNs());
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

  /** All there are, with their sizes. What vanishes meanwhile is left out. */
  async list(): Promise<CacheMountStatus[]> {
    const names = existsSync(this.#root) ? readdirSync(this.#root) : [];
    const found: CacheMountStatus[] = [];
    for (const name of names) {
      if (!/^[0-9a-f]{64}(?:-\d+)?$/.test(name)) continue;
      const path = join(this.#root, name);
      const status = lstatSync(path, { bigint: true, throwIfNoEntry: false });
      if (status === undefined) continue;
      found.push({
        name,
        inUse: this.#users.has(name),
        sizeBytes: await treeBytes(path),
        createdAt: formatTime(status.birthtimeNs === 0n ? status.ctimeNs : status.birthtimeNs),
        lastUsedNs: this.#lastUsedNs.get(name) ?? status.ctimeNs,
      });
    }
    return found;
  }

  /**
   * Takes away one that no step uses; false where one does, or where it is gone already. It is out of the way at once,
   * whatever its size.
   */
  async remove(name: string): Promise<boolean> {
    using _turn = await this.#locks.acquire(`make ${name}`);
    if (this.#users.has(name)) return false;
    const aside = `gone-${randomBytes(8).toString("hex")}`;
    try {
      renameSync(join(this.#root, name), join(this.#root, aside));
    } catch (error) {
      // Of two that prune at once one is first.
      if (errnoOf(error) === "ENOENT") return false;
      throw error;
    }
    this.#lastUsedNs.delete(name);
    await this.#removeTree(this.#root, aside);
    return true;
  }
}

/** Bytes of the files below a directory; links are not followed. */
async function treeBytes(path: string): Promise<number> {
  let bytes = 0;
  const left = [path];
  for (let directory = left.pop(); directory !== undefined; directory = left.pop()) {
    const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      const full = join(directory, entry.name);
      if (entry.isDirectory()) left.push(full);
      else if (entry.isFile()) bytes += (await lstat(full).catch(() => undefined))?.size ?? 0;
    }
  }
  return bytes;
}
