import { Worker } from "node:worker_threads";
import { AssertionFailure } from "#base/assert.ts";
import { EngineError } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import type { Database, SqlValue, Statement } from "./database.ts";
import type { WorkerFailure, WorkerOptions, WorkerReply, WorkerRequest } from "./database-worker.ts";
import { migrations as currentMigrations } from "./migrations.ts";

export interface OpenOptions {
  readonly log: Log;
  /** The schema steps; another list only in tests of migration. */
  readonly migrations?: readonly string[];
  /** Refuse to make a new file: the data root is known to be in use, an empty database would forget everything. */
  readonly mustExist?: boolean;
}

interface Waiter {
  readonly resolve: (rows: unknown[]) => void;
  readonly reject: (error: Error) => void;
}

function toEngineError(failure: WorkerFailure): EngineError {
  const primary = failure.sqliteCode === undefined ? undefined : failure.sqliteCode & 0xff;
  switch (primary) {
    case 13:
      return new EngineError("unavailable", "state database: no space left on device", { code: "ENOSPC" });
    case 19:
      return new EngineError("conflict", `state database: ${failure.message}`, { code: "constraint" });
    case 11:
    case 26:
      return new EngineError("system", `state database is damaged: ${failure.message}`, {
        code: "corrupt-database",
      });
    default: {
      const message = primary === undefined ? failure.message : `state database: ${failure.message}`;
      return new EngineError("system", message, { code: failure.code ?? "state" });
    }
  }
}

/**
 * Opens (or makes) the state database at `path` in a worker thread and migrates it.
 * Rejects with codes `newer-schema`, `corrupt-database` or `database-missing` and a text for the administrator.
 */
export async function openDatabase(path: string, options: OpenOptions): Promise<Database> {
  const database = new SqliteDatabase(path, options);
  for (const note of await database.opened) options.log.info(note);
  return database;
}

class SqliteDatabase implements Database {
  readonly opened: Promise<readonly string[]>;
  readonly #worker: Worker;
  readonly #waiters = new Map<number, Waiter>();
  readonly #exited: Promise<void>;
  #nextId = 1;
  #closing = false;

  constructor(path: string, { log, migrations = currentMigrations, mustExist = false }: OpenOptions) {
    this.#worker = new Worker(new URL("./database-worker.ts", import.meta.url), {
      workerData: { path, migrations, mustExist } satisfies WorkerOptions,
      name: "state",
      execArgv: [],
    });
    let failure: Error | undefined;
    this.#worker.on("error", (error: Error) => {
      failure = error;
    });
    this.opened = new Promise((resolve, reject) => {
      this.#worker.on("message", (reply: WorkerReply) => {
        if (reply.kind === "opened") resolve(reply.notes);
        else if (reply.kind === "failed" && reply.id === 0) reject(toEngineError(reply.failure));
        else this.#settle(reply);
      });
      this.#worker.once("exit", () => {
        const ended = new EngineError("system", "the state thread has ended", {
          code: "state",
          cause: failure,
        });
        reject(ended);
        this.#fail(ended);
        if (failure === undefined) return;
        log.error("the state thread failed", { error: failure });
        // Crash-only (invariant 8): without its state the daemon can promise nothing.
        throw new AssertionFailure(`state thread: ${failure.message}`);
      });
    });
    this.#exited = new Promise((resolve) => this.#worker.once("exit", () => resolve()));
  }

  #settle(reply: WorkerReply): void {
    if (reply.kind === "done") for (const id of reply.ids) this.#take(id)?.resolve([]);
    else if (reply.kind === "rows") this.#take(reply.id)?.resolve(reply.rows);
    else if (reply.kind === "failed") this.#take(reply.id)?.reject(toEngineError(reply.failure));
  }

  #take(id: number): Waiter | undefined {
    const waiter = this.#waiters.get(id);
    this.#waiters.delete(id);
    return waiter;
  }

  #fail(error: Error): void {
    for (const waiter of this.#waiters.values()) waiter.reject(error);
    this.#waiters.clear();
  }

  #ask(make: (id: number) => WorkerRequest): Promise<unknown[]> {
    return new Promise((resolve, reject) => {
      if (this.#closing) {
        reject(new EngineError("unavailable", "the state database is closed", { code: "state-closed" }));
        return;
      }
      const id = this.#nextId;
      this.#nextId += 1;
      this.#waiters.set(id, { resolve, reject });
      this.#worker.postMessage(make(id));
    });
  }

  async all<Row extends Record<string, SqlValue>>(
    sql: string,
    params: readonly SqlValue[] = [],
  ): Promise<Row[]> {
    return (await this.#ask((id) => ({ kind: "all", id, statement: { sql, params } }))) as Row[];
  }

  async commit(statements: readonly Statement[], options: { durable?: boolean } = {}): Promise<void> {
    await this.#ask((id) => ({ kind: "commit", id, statements, durable: options.durable ?? true }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#closing) {
      const closed = this.#ask((id) => ({ kind: "close", id }));
      this.#closing = true;
      await closed;
    }
    await this.#exited;
  }
}
