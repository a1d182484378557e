import { readdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

/** Keys of the rows that may be left over, and the column that holds them. */
const keys = { container: "id", image: "id", reference: "name", layer: "key", volume: "name" } as const;

/** Every path below the roots of a stopped daemon, and every row's key: two daemons without containers are alike in it. */
export function inventory({ dataRoot, execRoot }: { dataRoot: string; execRoot: string }): string[] {
  const walk = (folder: string, prefix: string): string[] =>
    readdirSync(folder, { withFileTypes: true }).flatMap((entry) => [
      `${prefix}/${entry.name}`,
      ...(entry.isDirectory() ? walk(join(folder, entry.name), `${prefix}/${entry.name}`) : []),
    ]);
  const database = new DatabaseSync(join(dataRoot, "state.db"), { readOnly: true });
  try {
    const rows = Object.entries(keys).flatMap(([table, column]) =>
      database
        .prepare(`SELECT ${column} AS key FROM ${table}`)
        .all()
        // A registry of a test has a port of its own in its images' names.
        .map((row) => `row ${table} ${String(row["key"]).replace(/^127\.0\.0\.1:\d+/, "registry")}`),
    );
    return [...walk(dataRoot, "data"), ...walk(execRoot, "run"), ...rows].sort();
  } finally {
    database.close();
  }
}
