import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { silentLog } from "#base/log.ts";
import { openDatabase } from "./sqlite-database.ts";

function scratch(): { path: string } & Disposable {
  const directory = mkdtempSync(join(tmpdir(), "skiff-state-"));
  return {
    path: join(directory, "state.db"),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true }),
  };
}

const log = silentLog;
const insert = "INSERT INTO meta (key, value) VALUES (?, ?)";

test("what is committed is there after reopening", async () => {
  using place = scratch();
  {
    await using database = await openDatabase(place.path, { log });
    await database.commit([{ sql: insert, params: ["a", "1"] }]);
    await database.commit([{ sql: insert, params: ["b", "2"] }], { durable: false });
  }
  await using database = await openDatabase(place.path, { log });
  assert.deepEqual(
    (await database.all("SELECT key, value FROM meta ORDER BY key")).map((row) => ({ ...row })),
    [
      { key: "a", value: "1" },
      { key: "b", value: "2" },
    ],
  );
});

test("a commit is all or nothing, and one that fails takes no other of its group with it", async () => {
  using place = scratch();
  await using database = await openDatabase(place.path, { log });
  const outcomes = await Promise.allSettled([
    database.commit([{ sql: insert, params: ["a", "1"] }]),
    database.commit([
      { sql: insert, params: ["b", "1"] },
      { sql: insert, params: ["a", "again"] },
    ]),
    database.commit([{ sql: insert, params: ["c", "1"] }]),
  ]);
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ["fulfilled", "rejected", "fulfilled"],
  );
  assert.equal((outcomes[1] as PromiseRejectedResult).reason.kind, "conflict");
  const rows = await database.all<{ key: string }>("SELECT key FROM meta ORDER BY key");
  assert.deepEqual(
    rows.map(({ key }) => key),
    ["a", "c"],
  );
});

test("reads see every commit that was asked for before them", async () => {
  using place = scratch();
  await using database = await openDatabase(place.path, { log });
  const writes = Array.from({ length: 50 }, (_, index) =>
    database.commit([{ sql: insert, params: [`k${index}`, "v"] }], { durable: index % 2 === 0 }),
  );
  const [row] = await database.all<{ n: number }>("SELECT count(*) AS n FROM meta");
  assert.equal(row?.n, 50);
  await Promise.all(writes);
});

test("a newer schema is refused, an older one migrated after a copy", async () => {
  using place = scratch();
  const first = ["CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT"];
  const second = [...first, "ALTER TABLE meta ADD COLUMN extra TEXT"];
  {
    await using database = await openDatabase(place.path, { log, migrations: first });
    await database.commit([{ sql: insert, params: ["a", "1"] }]);
  }
  {
    await using database = await openDatabase(place.path, { log, migrations: second });
    assert.equal((await database.all("SELECT key, extra FROM meta")).length, 1);
  }
  await assert.rejects(openDatabase(place.path, { log, migrations: first }), {
    code: "newer-schema",
    message: new RegExp(`${place.path} has schema version 2, but this skiffd knows versions up to 1`),
  });
  await using copy = await openDatabase(`${place.path}.schema-1`, { log, migrations: first });
  assert.equal((await copy.all("SELECT key FROM meta")).length, 1);
});

test("a migration that fails leaves the old schema whole", async () => {
  using place = scratch();
  const first = ["CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT"];
  {
    await using database = await openDatabase(place.path, { log, migrations: first });
    await database.commit([{ sql: insert, params: ["a", "1"] }]);
  }
  const broken = [...first, "CREATE TABLE other (id TEXT); CREATE TABLE meta (id TEXT)"];
  await assert.rejects(openDatabase(place.path, { log, migrations: broken }), /already exists/);
  await using database = await openDatabase(place.path, { log, migrations: first });
  assert.equal((await database.all("SELECT name FROM sqlite_schema WHERE name = 'other'")).length, 0);
});

for (const [name, damage] of [
  ["emptied", (path: string) => truncateSync(path, 0)],
  ["overwritten", (path: string) => writeFileSync(path, "this is no database at all, not even close")],
  [
    "with a broken page",
    (path: string) => {
      const bytes = readFileSync(path);
      bytes.fill(0x5a, 4096, 12_288);
      writeFileSync(path, bytes);
    },
  ],
  ["cut short", (path: string) => truncateSync(path, 8192)],
] as const) {
  test(`a database file ${name} is refused, never taken for an empty one`, async () => {
    using place = scratch();
    {
      await using database = await openDatabase(place.path, { log });
      await database.commit([{ sql: insert, params: ["a", "1"] }]);
    }
    damage(place.path);
    await assert.rejects(openDatabase(place.path, { log }), {
      code: "corrupt-database",
      message: /is damaged/,
    });
  });
}

test("a missing file is refused where the data root is in use", async () => {
  using place = scratch();
  await assert.rejects(openDatabase(place.path, { log, mustExist: true }), { code: "database-missing" });
  assert.equal(existsSync(place.path), false);
});

test("after closing, requests are refused", async () => {
  using place = scratch();
  const database = await openDatabase(place.path, { log });
  await database[Symbol.asyncDispose]();
  await assert.rejects(database.commit([{ sql: insert, params: ["a", "1"] }]), { code: "state-closed" });
});
