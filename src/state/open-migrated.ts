import {
  chmodSync,
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  fsyncSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";

/** "SKIF": tells our file from any other SQLite database (pragma application_id). */
const applicationId = 0x534b4946;

/** A database that skiffd must not start with. `code` is `newer-schema`, `corrupt-database` or `database-missing`. */
export class UnusableDatabase extends Error {
  readonly code: string;

  constructor(code: "newer-schema" | "corrupt-database" | "database-missing", message: string) {
    super(message);
    this.name = "UnusableDatabase";
    this.code = code;
  }
}

/**
 * Opens the state file in WAL mode and brings its schema to the newest step. A new file is made whole under another
 * name and renamed, so an empty file under the real name is damage, never a first start.
 * Blocks: for the worker thread only.
 */
export function openMigrated(
  path: string,
  migrations: readonly string[],
  mustExist: boolean,
): { database: DatabaseSync; notes: string[] } {
  const notes: string[] = [];
  if (!existsSync(path)) {
    if (mustExist || existsSync(`${path}-wal`)) throw missing(path);
    createFile(path, migrations);
  }
  if (statSync(path).size === 0) throw damaged(path, "the file is empty");
  const database = new DatabaseSync(path, { enableForeignKeyConstraints: true });
  try {
    configure(database);
    examine(database, path, migrations.length);
    migrate(database, path, migrations, notes);
  } catch (error) {
    database.close();
    throw isDamage(error) ? damaged(path, (error as Error).message) : error;
  }
  return { database, notes };
}

function missing(path: string): UnusableDatabase {
  return new UnusableDatabase(
    "database-missing",
    `the state database ${path} is missing, but its data root is in use: restore the file, or move the data root away to start empty`,
  );
}

function damaged(path: string, detail: string): UnusableDatabase {
  return new UnusableDatabase(
    "corrupt-database",
    `the state database ${path} is damaged (${detail}): restore a copy of it, or move the data root away to start empty`,
  );
}

/** SQLITE_CORRUPT (11) and SQLITE_NOTADB (26), whatever their extended code. */
function isDamage(error: unknown): boolean {
  const code = (error as { errcode?: number }).errcode;
  return typeof code === "number" && ((code & 0xff) === 11 || (code & 0xff) === 26);
}

function configure(database: DatabaseSync): void {
  // Exclusive: the daemon's lock on the root makes it the only user, and SQLite then needs no shared-memory file.
  database.exec("PRAGMA locking_mode = EXCLUSIVE");
  database.exec("PRAGMA journal_mode = WAL");
  database.exec("PRAGMA synchronous = FULL");
  database.exec("PRAGMA wal_autocheckpoint = 0");
  database.exec("PRAGMA temp_store = MEMORY");
}

function pragmaNumber(database: DatabaseSync, name: string): number {
  return Number(Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0]);
}

function examine(database: DatabaseSync, path: string, newest: number): void {
  if (pragmaNumber(database, "application_id") !== applicationId) {
    throw damaged(path, "it is not a state database of skiffd");
  }
  const version = pragmaNumber(database, "user_version");
  if (version > newest) {
    throw new UnusableDatabase(
      "newer-schema",
      `the state database ${path} has schema version ${version}, but this skiffd knows versions up to ${newest}: start the newer skiffd, or restore the copy from before its upgrade`,
    );
  }
  const verdict = Object.values(database.prepare("PRAGMA quick_check(1)").get() ?? {})[0];
  if (verdict !== "ok") throw damaged(path, String(verdict));
}

function migrate(database: DatabaseSync, path: string, migrations: readonly string[], notes: string[]): void {
  const from = pragmaNumber(database, "user_version");
  if (from === migrations.length) return;
  if (from > 0) {
    const copy = `${path}.schema-${from}`;
    database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    copyFileSync(path, `${copy}.tmp`, constants.COPYFILE_FICLONE);
    syncPath(`${copy}.tmp`);
    renameSync(`${copy}.tmp`, copy);
    syncPath(dirname(path));
    notes.push(`schema ${from} migrated to ${migrations.length}; the file from before is kept as ${copy}`);
  }
  for (let step = from; step < migrations.length; step += 1) {
    database.exec(`BEGIN IMMEDIATE; ${migrations[step]}; PRAGMA user_version = ${step + 1}; COMMIT`);
  }
}

function createFile(path: string, migrations: readonly string[]): void {
  const temporary = `${path}.new`;
  for (const suffix of ["", "-wal", "-shm", "-journal"]) rmSync(`${temporary}${suffix}`, { force: true });
  const database = new DatabaseSync(temporary);
  configure(database);
  database.exec(`PRAGMA application_id = ${applicationId}`);
  migrate(database, temporary, migrations, []);
  database.close();
  // Its log takes the mode over. It names images, mounts and environments: nobody else's business.
  chmodSync(temporary, 0o600);
  syncPath(temporary);
  renameSync(temporary, path);
  syncPath(dirname(path));
}

function syncPath(path: string): void {
  const file = openSync(path, "r");
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
