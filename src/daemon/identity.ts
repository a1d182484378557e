import { randomUUID } from "node:crypto";
import { statfsSync } from "node:fs";
import type { Database } from "#state/database.ts";

/** Docker's names of file systems by their magic number (statfs(2)). */
const filesystems: ReadonlyMap<number, string> = new Map([
  [0xef53, "extfs"],
  [0x58465342, "xfs"],
  [0x9123683e, "btrfs"],
  [0x01021994, "tmpfs"],
  [0x794c7630, "overlayfs"],
  [0x2fc12fc1, "zfs"],
  [0xf2f52010, "f2fs"],
]);

export function filesystemName(path: string): string {
  return filesystems.get(statfsSync(path).type) ?? "<unknown>";
}

/** The daemon's identity in `info`: made once, kept with its state. */
export async function persistentId(database: Database): Promise<string> {
  const key = "daemon-id";
  const [row] = await database.all<{ value: string }>("SELECT value FROM meta WHERE key = ?", [key]);
  if (row !== undefined) return row.value;
  const id = randomUUID();
  await database.commit([{ sql: "INSERT INTO meta (key, value) VALUES (?, ?)", params: [key, id] }]);
  return id;
}
