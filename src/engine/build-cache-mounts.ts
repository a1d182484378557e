import { createHash } from "node:crypto";
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { EngineError } from "#base/errors.ts";
import { KeyedLock } from "#base/lock.ts";

export interface CacheMountOwner {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

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

  async take(
    id: string,
    sharing: "shared" | "private" | "locked",
    owner: CacheMountOwner,
    signal: AbortSignal,
  ): Promise<{ readonly path: string } & AsyncDisposable> {
    const name = createHash("sha256").update(id).digest("hex");
    const lock = sharing === "locked" ? await this.#locks.acquire(name) : undefined;
    if (signal.aborted) {
      lock?.[Symbol.dispose]();
      throw new EngineError("cancelled", "context canceled", { code: "aborted" });
    }
    let chosen = name;
    for (let copy = 1; sharing === "private" && (this.#users.get(chosen) ?? 0) > 0; copy += 1)
      chosen = `${name}-${copy}`;
    this.#count(chosen, 1);
    const path = join(this.#root, chosen);
    if (!existsSync(path)) {
      mkdirSync(path, { recursive: true, mode: 0o700 });
      chownSync(path, owner.uid, owner.gid);
      chmodSync(path, owner.mode);
    }
    return {
      path,
      [Symbol.asyncDispose]: async () => {
        this.#count(chosen, -1);
        lock?.[Symbol.dispose]();
      },
    };
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
