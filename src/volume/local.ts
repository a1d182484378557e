import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Clock } from "#base/clock.ts";
import { EngineError } from "#base/errors.ts";
import { type ContainerId, newId } from "#base/ids.ts";
import { KeyedLock } from "#base/lock.ts";
import type { Log } from "#base/log.ts";
import type { Database, Statement } from "#state/database.ts";
import { checkName, checkOptions } from "./local-options.ts";
import type { Volume, VolumeCreate, VolumeStore } from "./volume.ts";
import { VolumeJobs } from "./volume-jobs.ts";

export interface VolumeStoreOptions {
  /** `<data-root>/volumes`. */
  readonly root: string;
  readonly database: Database;
  readonly clock: Clock;
  readonly log: Log;
}

/** Removed volumes wait here for their deletion. No volume can have this name. */
const trashName = ".trash";

/**
 * The `local` driver: `<root>/<name>/_data`, rows in the state database.
 *
 * Create writes the row, then makes the directory; remove moves the directory into the trash, then deletes the row. A
 * crash in between is undone on opening: a directory that is missing is made, or fetched back from the trash.
 */
export async function createVolumeStore(options: VolumeStoreOptions): Promise<VolumeStore & AsyncDisposable> {
  mkdirSync(join(options.root, trashName), { recursive: true, mode: 0o700 });
  const rows = await options.database.all<{ document: string }>("SELECT document FROM volume");
  const store = new LocalVolumeStore(
    options,
    rows.map(({ document }) => JSON.parse(document) as StoredVolume),
  );
  await store.recover();
  return store;
}

interface StoredVolume extends Omit<Volume, "mountpoint"> {
  readonly owner?: ContainerId;
}

class LocalVolumeStore implements VolumeStore, AsyncDisposable {
  readonly #root: string;
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #volumes = new Map<string, Volume>();
  /** As it was on opening: rule 4 of the contract matters only to recovery. */
  readonly #owners = new Map<string, ContainerId>();
  readonly #locks = new KeyedLock();
  readonly #jobs: VolumeJobs;

  constructor({ root, database, clock, log }: VolumeStoreOptions, stored: readonly StoredVolume[]) {
    this.#root = root;
    this.#database = database;
    this.#clock = clock;
    this.#log = log;
    this.#jobs = new VolumeJobs();
    for (const { owner, ...volume } of stored) {
      if (owner !== undefined) this.#owners.set(volume.name, owner);
      this.#volumes.set(volume.name, { ...volume, mountpoint: this.#dataOf(volume.name) });
    }
  }

  #dataOf(name: string): string {
    return join(this.#root, name, "_data");
  }

  #markerOf(name: string): string {
    return join(this.#root, name, "filling");
  }

  #makeDirectory(name: string): void {
    // Docker's modes: others may pass through to the data, whose own mode then decides.
    mkdirSync(join(this.#root, name), { recursive: true, mode: 0o711 });
    mkdirSync(this.#dataOf(name), { recursive: true, mode: 0o755 });
  }

  async recover(): Promise<void> {
    const trash = readdirSync(join(this.#root, trashName));
    for (const name of this.#volumes.keys()) {
      if (existsSync(this.#dataOf(name))) {
        if (existsSync(this.#markerOf(name))) await this.#undoFill(name);
        continue;
      }
      const kept = trash.find((entry) => entry.startsWith(`${name}@`));
      if (kept !== undefined) renameSync(join(this.#root, trashName, kept), join(this.#root, name));
      this.#makeDirectory(name);
    }
    for (const entry of readdirSync(join(this.#root, trashName))) this.#deleteLater(entry);
    for (const entry of readdirSync(this.#root)) {
      if (entry === trashName || this.#volumes.has(entry)) continue;
      // Never deleted on a guess: it holds somebody's data.
      this.#log.warn("a directory of the volume root belongs to no volume", {
        path: join(this.#root, entry),
      });
    }
  }

  /** A copy-up that the daemon's death cut short: the volume is as empty as before it. */
  async #undoFill(name: string): Promise<void> {
    await this.#jobs.run({ kind: "remove", path: this.#dataOf(name) });
    this.#makeDirectory(name);
    rmSync(this.#markerOf(name));
  }

  #deleteLater(trashEntry: string): void {
    const path = join(this.#root, trashName, trashEntry);
    this.#jobs.run({ kind: "remove", path }).catch((error: unknown) => {
      this.#log.warn("a removed volume could not be deleted", { path, error });
    });
  }

  list(): Volume[] {
    return [...this.#volumes.values()];
  }

  find(name: string): Volume | undefined {
    return this.#volumes.get(name);
  }

  get(name: string): Volume {
    const volume = this.#volumes.get(name);
    if (volume === undefined) throw noSuchVolume(name);
    return volume;
  }

  async create(request: VolumeCreate): Promise<Volume> {
    const name = request.name === "" ? newId() : request.name;
    const driver = request.driver === "" ? "local" : request.driver;
    if (driver !== "local") {
      throw new EngineError(
        "notFound",
        `create ${name}: error looking up volume plugin ${driver}: plugin "${driver}" not found`,
        { code: "no-such-plugin" },
      );
    }
    checkName(name);
    using _lock = await this.#locks.acquire(name);
    const existing = this.#volumes.get(name);
    if (existing !== undefined) return existing;
    checkOptions(name, request.options);
    const described: Omit<Volume, "mountpoint"> = {
      name,
      driver,
      labels: request.labels,
      options: request.options,
      createdAt: `${this.#clock.now().slice(0, 19)}Z`,
      anonymous: request.anonymous ?? request.name === "",
    };
    const stored: StoredVolume = {
      ...described,
      ...(request.owner === undefined ? {} : { owner: request.owner }),
    };
    await this.#database.commit([
      { sql: "INSERT INTO volume (name, document) VALUES (?, ?)", params: [name, JSON.stringify(stored)] },
    ]);
    try {
      this.#makeDirectory(name);
    } catch (error) {
      rmSync(join(this.#root, name), { recursive: true, force: true });
      await this.#database.commit([{ sql: "DELETE FROM volume WHERE name = ?", params: [name] }]);
      throw error;
    }
    const volume: Volume = { ...described, mountpoint: this.#dataOf(name) };
    this.#volumes.set(name, volume);
    return volume;
  }

  belongsTo(name: string, owner: ContainerId | undefined): Statement {
    const { mountpoint: _, ...described } = this.get(name);
    const stored: StoredVolume = { ...described, ...(owner === undefined ? {} : { owner }) };
    return {
      sql: "UPDATE volume SET document = ? WHERE name = ?",
      params: [JSON.stringify(stored), name],
    };
  }

  ownerless(isThere: (owner: ContainerId) => boolean): string[] {
    return [...this.#owners].flatMap(([name, owner]) =>
      this.#volumes.has(name) && !isThere(owner) ? [name] : [],
    );
  }

  async remove(
    name: string,
    { force, usedBy }: { force: boolean; usedBy: readonly string[] },
  ): Promise<void> {
    using _lock = await this.#locks.acquire(name);
    if (!this.#volumes.has(name)) {
      if (force) return;
      throw noSuchVolume(name);
    }
    if (usedBy.length > 0) {
      throw new EngineError("conflict", `remove ${name}: volume is in use - [${usedBy.join(", ")}]`, {
        code: "volume-in-use",
      });
    }
    const entry = `${name}@${newId().slice(0, 16)}`;
    renameSync(join(this.#root, name), join(this.#root, trashName, entry));
    try {
      await this.#database.commit([{ sql: "DELETE FROM volume WHERE name = ?", params: [name] }]);
    } catch (error) {
      renameSync(join(this.#root, trashName, entry), join(this.#root, name));
      throw error;
    }
    this.#volumes.delete(name);
    this.#deleteLater(entry);
  }

  mountSource(name: string): ReturnType<VolumeStore["mountSource"]> {
    const { options, mountpoint } = this.get(name);
    const type = options?.["type"];
    if (type === undefined) return { kind: "directory", path: mountpoint };
    return { kind: "mount", type, device: options?.["device"] ?? "", options: options?.["o"] ?? "" };
  }

  async copyUp(name: string, rootPath: string, sourcePath: string): Promise<void> {
    using _lock = await this.#locks.acquire(name);
    if (this.mountSource(name).kind === "mount") return;
    const target = this.#dataOf(name);
    try {
      await this.#jobs.run({ kind: "fill", target, marker: this.#markerOf(name), rootPath, sourcePath });
    } catch (error) {
      if (existsSync(this.#markerOf(name))) await this.#undoFill(name);
      throw error;
    }
  }

  usageBytes(name: string): Promise<number> {
    return this.#jobs.run({ kind: "usage", path: this.get(name).mountpoint });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#jobs[Symbol.asyncDispose]();
  }
}

function noSuchVolume(name: string): EngineError {
  return new EngineError("notFound", `get ${name}: no such volume`, { code: "no-such-volume" });
}
