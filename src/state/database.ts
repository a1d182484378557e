/**
 * Durable state: SQLite in WAL mode in a worker thread, the only user of node:sqlite.
 *
 * 1. A commit with `durable` (the default) survives power loss when its promise resolves (synchronous=FULL); commits
 *    that wait together share one flush (group commit).
 * 2. A commit with `durable: false` is atomic and ordered with the others, and survives the death of the process.
 * 3. The schema is migrated forward on open, after a copy of the old file; a newer schema is refused.
 */
export type SqlValue = string | number | bigint | null | Uint8Array;

export interface Statement {
  readonly sql: string;
  readonly params?: readonly SqlValue[];
}

export interface Database extends AsyncDisposable {
  all<Row extends Record<string, SqlValue>>(sql: string, params?: readonly SqlValue[]): Promise<Row[]>;
  /** All statements in one transaction, or none. */
  commit(statements: readonly Statement[], options?: { durable?: boolean }): Promise<void>;
}
