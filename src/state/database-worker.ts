/**
 * The thread that owns the SQLite connection. It blocks in fsync, which is why it is a thread of its own: see
 * docs/internals/state.md. Protocol: `WorkerRequest` in, `WorkerReply` out, in order.
 */
import { statSync } from "node:fs";
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import type { Statement } from "./database.ts";
import { openMigrated } from "./open-migrated.ts";

export interface WorkerOptions {
  readonly path: string;
  readonly migrations: readonly string[];
  readonly mustExist: boolean;
}

export type WorkerRequest =
  | { readonly kind: "all"; readonly id: number; readonly statement: Statement }
  | {
      readonly kind: "commit";
      readonly id: number;
      readonly durable: boolean;
      readonly statements: readonly Statement[];
    }
  | { readonly kind: "close"; readonly id: number };

export interface WorkerFailure {
  readonly message: string;
  /** SQLite's extended result code, or undefined for a failure that is not SQLite's. */
  readonly sqliteCode: number | undefined;
  readonly code: string | undefined;
}

export type WorkerReply =
  | { readonly kind: "opened"; readonly notes: readonly string[] }
  | { readonly kind: "rows"; readonly id: number; readonly rows: unknown[] }
  | { readonly kind: "done"; readonly ids: readonly number[] }
  | { readonly kind: "failed"; readonly id: number; readonly failure: WorkerFailure };

type Commit = Extract<WorkerRequest, { kind: "commit" }>;

/** The write-ahead log is folded back when nothing is asked for a moment, so that no request waits for it. */
const checkpointIdleMs = 200;
const checkpointWalBytesMin = 1024 * 1024;
/**
 * Held in the log and as free pages of the file, so that a full disk does not keep the daemon from removing what fills it,
 * nor from recording what has happened. Some hundred commits of one row; nobody else can take it.
 */
const reserveBytes = checkpointWalBytesMin;
/** Under a load that never pauses the log may not grow without end: beyond this a group pays for the checkpoint. */
const checkpointWalBytesForced = 64 * 1024 * 1024;
const preparedStatementsMax = 256;
/** Primary result code of SQLite when the disk is full; the higher bits are the extended code. */
const sqliteFull = 13;

function describe(error: unknown): WorkerFailure {
  const fields = error as { errcode?: number; code?: string; message?: string };
  return {
    message: fields.message ?? String(error),
    sqliteCode: typeof fields.errcode === "number" ? fields.errcode : undefined,
    code: typeof fields.code === "string" ? fields.code : undefined,
  };
}

function isFull(failure: WorkerFailure): boolean {
  return ((failure.sqliteCode ?? 0) & 0xff) === sqliteFull;
}

/** Makes nothing new: a removal, or what has become of something. Such a commit is tried again on a full disk. */
function addsNothing({ statements }: Commit): boolean {
  return statements.every(({ sql }) => !/^\s*INSERT\b/i.test(sql));
}

class Connection {
  readonly #database: DatabaseSync;
  readonly #walPath: string;
  readonly #prepared = new Map<string, StatementSync>();
  readonly #reply: (reply: WorkerReply) => void;
  #reserveHeld = false;
  #synchronous: "FULL" | "NORMAL" = "FULL";
  #checkpointTimer: NodeJS.Timeout | undefined;

  constructor(database: DatabaseSync, path: string, reply: (reply: WorkerReply) => void) {
    this.#database = database;
    this.#walPath = `${path}-wal`;
    this.#reply = reply;
    this.#holdReserve();
  }

  #statement(sql: string): StatementSync {
    let statement = this.#prepared.get(sql);
    if (statement === undefined) {
      statement = this.#database.prepare(sql);
      if (this.#prepared.size >= preparedStatementsMax) this.#prepared.clear();
      this.#prepared.set(sql, statement);
    }
    return statement;
  }

  all(id: number, { sql, params }: Statement): void {
    try {
      this.#reply({ kind: "rows", id, rows: this.#statement(sql).all(...(params ?? [])) });
    } catch (error) {
      this.#reply({ kind: "failed", id, failure: describe(error) });
    }
  }

  /**
   * One SQLite transaction for all of them, hence one flush; each is a savepoint, so that one that fails (a constraint)
   * takes nothing of the others with it. On a full disk those that add nothing are tried again in the log's own space.
   */
  group(commits: readonly Commit[], durable: boolean): void {
    let failure = this.#transact(commits, durable);
    let failed = commits;
    if (failure !== undefined && isFull(failure)) {
      const modest = commits.filter(addsNothing);
      if (modest.length > 0 && this.#startLogAgain()) {
        const full = failure;
        failed = commits.filter((commit) => !modest.includes(commit));
        for (const { id } of failed) this.#reply({ kind: "failed", id, failure: full });
        failure = this.#transact(modest, durable);
        failed = modest;
      }
    }
    if (failure === undefined) this.#scheduleCheckpoint();
    else for (const { id } of failed) this.#reply({ kind: "failed", id, failure });
  }

  /** Answers every commit and returns undefined, or answers none and returns why the whole transaction failed. */
  #transact(commits: readonly Commit[], durable: boolean): WorkerFailure | undefined {
    const done: number[] = [];
    const failed: { id: number; failure: WorkerFailure }[] = [];
    try {
      this.#setSynchronous(durable ? "FULL" : "NORMAL");
      this.#database.exec("BEGIN IMMEDIATE");
      for (const commit of commits) {
        const failure = this.#apply(commit);
        if (failure === undefined) done.push(commit.id);
        else failed.push({ id: commit.id, failure });
      }
      this.#database.exec("COMMIT");
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      return describe(error);
    }
    for (const { id, failure } of failed) this.#reply({ kind: "failed", id, failure });
    if (done.length > 0) this.#reply({ kind: "done", ids: done });
    return undefined;
  }

  #apply(commit: Commit): WorkerFailure | undefined {
    this.#database.exec("SAVEPOINT one");
    try {
      for (const { sql, params } of commit.statements) this.#statement(sql).run(...(params ?? []));
    } catch (error) {
      // A full disk may have rolled the whole transaction back already: then every commit of the group failed.
      if (!this.#database.isTransaction) throw error;
      this.#database.exec("ROLLBACK TO one; RELEASE one");
      return describe(error);
    }
    this.#database.exec("RELEASE one");
    return undefined;
  }

  #setSynchronous(mode: "FULL" | "NORMAL"): void {
    if (this.#synchronous === mode) return;
    this.#database.exec(`PRAGMA synchronous = ${mode}`);
    this.#synchronous = mode;
  }

  #walBytes(): number {
    return statSync(this.#walPath, { throwIfNoEntry: false })?.size ?? 0;
  }

  #scheduleCheckpoint(): void {
    if (this.#checkpointTimer !== undefined) {
      this.#checkpointTimer.refresh();
      if (this.#walBytes() > checkpointWalBytesForced) this.#checkpoint();
      return;
    }
    this.#checkpointTimer = setTimeout(() => {
      this.#checkpointTimer = undefined;
      // The log never shrinks below the reserve: only one that outgrew it is folded back.
      if (this.#walBytes() >= checkpointWalBytesMin + reserveBytes) this.#checkpoint();
      if (!this.#reserveHeld) this.#holdReserve();
    }, checkpointIdleMs);
  }

  #checkpoint(): void {
    // A checkpoint under synchronous=NORMAL or FULL syncs the log before it writes pages, and the file after.
    this.#database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    this.#holdReserve();
  }

  /**
   * A large value is written and deleted: its pages stay allocated in the log, and in the file as free pages. Without
   * space for that the database works as it is, and it is tried again later.
   */
  #holdReserve(): void {
    try {
      this.#setSynchronous("NORMAL");
      this.#database.exec("DROP TABLE IF EXISTS reserve; CREATE TABLE reserve (bytes BLOB)");
      this.#database.exec(`INSERT INTO reserve VALUES (zeroblob(${reserveBytes}))`);
      this.#database.exec("DROP TABLE reserve");
      this.#reserveHeld = this.#startLogAgain();
    } catch (error) {
      if (!isFull(describe(error))) throw error;
      this.#reserveHeld = false;
    }
  }

  /** Everything goes into the file, and the next commit is written at the log's beginning. False when there is no space. */
  #startLogAgain(): boolean {
    const row = this.#database.prepare("PRAGMA wal_checkpoint(RESTART)").get() as
      | { busy: number }
      | undefined;
    return row?.busy === 0;
  }

  close(): void {
    clearTimeout(this.#checkpointTimer);
    this.#setSynchronous("FULL");
    this.#prepared.clear();
    this.#database.close();
  }
}

function serve(port: NonNullable<typeof parentPort>, connection: Connection): void {
  const run = (batch: readonly WorkerRequest[]): void => {
    let commits: Commit[] = [];
    const flush = (): void => {
      if (commits.length > 0) {
        connection.group(
          commits,
          commits.some((commit) => commit.durable),
        );
      }
      commits = [];
    };
    for (const request of batch) {
      if (request.kind === "commit") {
        // What needs no flush and stands before the first that does, is not made to wait for it.
        if (request.durable && commits.every((commit) => !commit.durable)) flush();
        commits.push(request);
        continue;
      }
      flush();
      if (request.kind === "all") connection.all(request.id, request.statement);
      else {
        connection.close();
        port.postMessage({ kind: "done", ids: [request.id] } satisfies WorkerReply);
        port.close();
        return;
      }
    }
    flush();
  };

  port.on("message", (first: WorkerRequest) => {
    // Everything that queued up while the last flush ran is taken together: the group commit.
    const batch = [first];
    for (let next = receiveMessageOnPort(port); next !== undefined; next = receiveMessageOnPort(port)) {
      batch.push(next.message as WorkerRequest);
    }
    run(batch);
  });
}

function main(): void {
  const port = parentPort;
  if (port === null) throw new Error("database-worker is a worker thread");
  const { path, migrations, mustExist } = workerData as WorkerOptions;
  const reply = (message: WorkerReply): void => port.postMessage(message);
  let opened: ReturnType<typeof openMigrated>;
  try {
    opened = openMigrated(path, migrations, mustExist);
  } catch (error) {
    reply({ kind: "failed", id: 0, failure: describe(error) });
    port.close();
    return;
  }
  serve(port, new Connection(opened.database, path, reply));
  reply({ kind: "opened", notes: opened.notes });
}

main();
