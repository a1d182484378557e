/**
 * All containers of this daemon, in memory, with their rows in the database.
 *
 * 1. A name belongs to one container from the moment `insert` or `rename` is called, before anything is awaited.
 * 2. `insert` and `erase` are one durable commit each; all other saves survive the daemon's death only: after power
 *    loss the status comes from the exit record (invariant 5 of the design).
 */
import type { ImageId } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import { type ContainerId, isId } from "#base/ids.ts";
import type { Log } from "#base/log.ts";
import type { Database, Statement } from "#state/database.ts";
import { Container } from "./container.ts";
import type { ContainerDocument } from "./container-document.ts";

/** Reads every row. */
export async function openContainerTable(database: Database, log: Log): Promise<ContainerTable> {
  const table = new ContainerTable(database);
  await table.load((id, cause) => {
    log.error("a container's row cannot be read; it is left as it is", { container: id, error: cause });
  });
  return table;
}

/** Who uses something: `running` is Docker's State.Running. */
export interface ContainerUser {
  readonly id: string;
  readonly name: string;
  readonly running: boolean;
}

export class ContainerTable {
  readonly #database: Database;
  readonly #byId = new Map<string, Container>();
  readonly #byName = new Map<string, Container>();
  /** Ids whose rows could not be read: their files are not garbage. */
  readonly #unreadable = new Set<string>();

  constructor(database: Database) {
    this.#database = database;
  }

  /** Reads every row. A row that cannot be read is reported and left alone: never silently forgotten. */
  async load(onBroken: (id: string, cause: unknown) => void): Promise<void> {
    const rows = await this.#database.all<{ id: string; document: string }>(
      "SELECT id, document FROM container",
    );
    for (const row of rows) {
      try {
        const document = JSON.parse(row.document) as ContainerDocument;
        if (document.version !== 1 || document.id !== row.id) throw new Error("not a container document");
        this.#add(new Container(document));
      } catch (cause) {
        this.#unreadable.add(row.id);
        onBroken(row.id, cause);
      }
    }
  }

  #add(container: Container): void {
    this.#byId.set(container.id, container);
    this.#byName.set(container.name, container);
  }

  /** Containers whose rows name the image. */
  usersOfImage(id: ImageId): ContainerUser[] {
    return this.#users(({ document }) => document.imageId === id);
  }

  /** Ids of the containers whose rows name the volume. */
  usersOfVolume(name: string): string[] {
    return this.#users(({ document }) =>
      document.mounts.some((mount) => mount.kind === "volume" && mount.name === name),
    ).map((user) => user.id);
  }

  usersOfNetwork(id: string): ContainerUser[] {
    return this.#users(({ document }) => document.networkId === id);
  }

  #users(holds: (container: Container) => boolean): ContainerUser[] {
    const users: ContainerUser[] = [];
    for (const container of this.#byId.values()) {
      if (holds(container)) users.push({ id: container.id, name: container.name, running: container.isUp });
    }
    return users;
  }

  get size(): number {
    return this.#byId.size;
  }

  all(): IterableIterator<Container> {
    return this.#byId.values();
  }

  find(id: string): Container | undefined {
    return this.#byId.get(id);
  }

  /** Whether a row has this id, readable or not. */
  hasRow(id: string): boolean {
    return this.#byId.has(id) || this.#unreadable.has(id);
  }

  /** Some row could not be read: what it uses is not known. */
  get hasUnreadable(): boolean {
    return this.#unreadable.size > 0;
  }

  isNameFree(name: string): boolean {
    return !this.#byName.has(name);
  }

  /** By full id, name (with or without slash), or unique id prefix: Docker's order. */
  resolve(reference: string): Container {
    const found = this.lookup(reference);
    if (found !== undefined) return found;
    throw new EngineError("notFound", `No such container: ${reference}`, { code: "no-such-container" });
  }

  /** As `resolve`, undefined where there is none; an ambiguous prefix throws. */
  lookup(reference: string): Container | undefined {
    const exact =
      this.#byId.get(reference) ??
      this.#byName.get(reference.startsWith("/") ? reference.slice(1) : reference);
    if (exact !== undefined || isId(reference) || !/^[0-9a-f]{1,63}$/.test(reference)) return exact;
    let found: Container | undefined;
    for (const [id, container] of this.#byId) {
      if (!id.startsWith(reference)) continue;
      if (found !== undefined) {
        throw new EngineError("invalid", `multiple IDs found with provided prefix: ${reference}`, {
          code: "ambiguous-prefix",
        });
      }
      found = container;
    }
    return found;
  }

  /** Takes the id and name at once; the container is visible to name and image checks, but not listed until `publish`. */
  reserve(container: Container): void {
    const holder = this.#byName.get(container.name);
    if (holder !== undefined) throw nameConflict(container.name, holder.id);
    this.#add(container);
  }

  /** Undoes `reserve`. */
  release(container: Container): void {
    this.#byId.delete(container.id);
    if (this.#byName.get(container.name) === container) this.#byName.delete(container.name);
  }

  /** `also`: what is true only together with the row. */
  insert(container: Container, also: readonly Statement[] = []): Promise<void> {
    return this.#database.commit([
      {
        sql: "INSERT INTO container (id, name, image_id, document) VALUES (?, ?, ?, ?)",
        params: [
          container.id,
          container.name,
          container.document.imageId,
          JSON.stringify(container.document),
        ],
      },
      ...also,
    ]);
  }

  save(container: Container): Promise<void> {
    return this.#database.commit(
      [
        {
          sql: "UPDATE container SET name = ?, document = ? WHERE id = ?",
          params: [container.name, JSON.stringify(container.document), container.id],
        },
      ],
      { durable: false },
    );
  }

  /** Removes the row durably, and `also` with it, then forgets the container. */
  async erase(container: Container, also: readonly Statement[] = []): Promise<void> {
    await this.#database.commit([
      { sql: "DELETE FROM container WHERE id = ?", params: [container.id] },
      ...also,
    ]);
    this.release(container);
  }

  /** Gives a container another name; undone when the row cannot be written. */
  async rename(container: Container, name: string): Promise<void> {
    const holder = this.#byName.get(name);
    if (holder !== undefined) throw nameConflict(name, holder.id);
    const before = container.name;
    this.#byName.set(name, container);
    container.document.name = name;
    try {
      await this.save(container);
    } catch (error) {
      container.document.name = before;
      this.#byName.delete(name);
      throw error;
    }
    if (this.#byName.get(before) === container) this.#byName.delete(before);
    container.changed();
  }
}

export function nameConflict(name: string, holder: ContainerId): EngineError {
  return new EngineError(
    "conflict",
    `Conflict. The container name "/${name}" is already in use by container "${holder}". You have to remove (or rename) that container to be able to reuse that name.`,
    { code: "name-in-use" },
  );
}
