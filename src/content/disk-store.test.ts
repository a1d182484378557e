import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { digestOf, hexOf } from "#base/digest.ts";
import { silentLog } from "#base/log.ts";
import type { ContentStore } from "./content-store.ts";
import { createDiskStore } from "./disk-store.ts";

async function withStore(
  run: (store: ContentStore, root: string, reopen: () => Promise<ContentStore>) => Promise<void>,
): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), "skiff-content-"));
  const reopen = (): Promise<ContentStore> => createDiskStore({ root, log: silentLog });
  try {
    await run(await reopen(), root, reopen);
  } finally {
    rmSync(root, { recursive: true });
  }
}

const bytes = Buffer.from("a blob of some bytes");
const digest = digestOf(bytes);
const partials = (root: string): string[] => readdirSync(join(root, "ingest"));

test("small bytes are put and read back, also by another store (1)", async () => {
  await withStore(async (store, _root, reopen) => {
    assert.equal(await store.put(bytes), digest);
    assert.equal(await store.put(bytes), digest);
    for (const each of [store, await reopen()]) {
      assert.equal(await each.has(digest), true);
      assert.equal(await each.size(digest), bytes.length);
      assert.ok((await each.read(digest, 100)).equals(bytes));
      assert.deepEqual(await each.list(), [digest]);
    }
    await assert.rejects(store.read(digest, 5), { code: "blob-too-large" });
    assert.equal(statSync(store.pathOf(digest)).mode & 0o777, 0o600);
    await store.remove(digest);
    await store.remove(digest);
    await assert.rejects(store.read(digest, 100), { kind: "notFound" });
  });
});

test("an ingest is no blob before its commit, and resumes where it stopped (2)", async () => {
  await withStore(async (store, root, reopen) => {
    {
      await using writer = await store.ingest({ digest, sizeBytes: bytes.length });
      assert.equal(writer.offset, 0);
      await writer.write(bytes.subarray(0, 7));
    }
    assert.equal(await store.has(digest), false);
    const again = await reopen();
    await using writer = await again.ingest({ digest, sizeBytes: bytes.length });
    assert.equal(writer.offset, 7);
    await writer.write(bytes.subarray(7, 9));
    await writer.write(bytes.subarray(9));
    assert.deepEqual(await writer.commit(), { digest, sizeBytes: bytes.length });
    assert.ok((await again.read(digest, 100)).equals(bytes));
    assert.deepEqual(partials(root), []);
  });
});

test("a blob that is short keeps its partial, a wrong one does not", async () => {
  await withStore(async (store, root) => {
    {
      await using writer = await store.ingest({ digest, sizeBytes: bytes.length });
      await writer.write(bytes.subarray(0, 3));
      await assert.rejects(writer.commit(), { code: "short-blob" });
    }
    assert.deepEqual(partials(root), [hexOf(digest)]);
    {
      await using writer = await store.ingest({ digest, sizeBytes: bytes.length });
      await writer.restart();
      assert.equal(writer.offset, 0);
      await writer.write(Buffer.alloc(bytes.length, 1));
      await assert.rejects(writer.commit(), { code: "wrong-digest" });
    }
    assert.deepEqual(partials(root), []);
    assert.equal(await store.has(digest), false);
    await using writer = await store.ingest({ digest, sizeBytes: 4 });
    await assert.rejects(writer.write(bytes), { code: "long-blob" });
    await writer.abort();
    assert.deepEqual(partials(root), []);
  });
});

test("a second writer waits for the first and finds the blob there", async () => {
  await withStore(async (store) => {
    const first = await store.ingest({ digest });
    const second = store.ingest({ digest });
    const early = await Promise.race([
      second.then(() => "early"),
      new Promise((resolve) => setTimeout(resolve, 30)),
    ]);
    assert.equal(early, undefined);
    await first.write(bytes);
    await first.commit();
    await using writer = await second;
    assert.equal(writer.offset, bytes.length);
    await writer.commit();
  });
});

test("readers follow the cells of a growing file", async () => {
  await withStore(async (store) => {
    const writer = await store.ingest({ digest, sizeBytes: bytes.length });
    const cells = new BigInt64Array(writer.file.cells);
    await writer.write(bytes.subarray(0, 5));
    while (cells[0] !== 5n) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(readFileSync(writer.file.path).length, 5);
    assert.equal(cells[1], 0n);
    await writer.write(bytes.subarray(5));
    await writer.end();
    assert.deepEqual([...cells], [BigInt(bytes.length), 1n]);
    await writer.commit({ verifiedDigest: digest });
    const other = await store.ingest({ digest: digestOf("x") });
    const otherCells = new BigInt64Array(other.file.cells);
    await other.restart();
    assert.equal(otherCells[1], 2n, "a reader of the old bytes is told");
    const fresh = new BigInt64Array(other.file.cells);
    await other[Symbol.asyncDispose]();
    assert.equal(fresh[1], 2n);
  });
});

test("many small chunks and more than the queue holds", async () => {
  await withStore(async (store) => {
    const chunks = Array.from({ length: 3000 }, (_, index) => Buffer.alloc(4096, index));
    const whole = Buffer.concat(chunks);
    const writer = await store.ingest({ digest: digestOf(whole) });
    for (const chunk of chunks) await writer.write(chunk);
    assert.equal((await writer.commit()).sizeBytes, whole.length);
  });
});

test("an open store drops what a crash left, keeps what may be resumed", async () => {
  await withStore(async (_store, root, reopen) => {
    writeFileSync(join(root, "ingest", "put-1"), "x");
    writeFileSync(join(root, "ingest", hexOf(digest)), "a bl");
    writeFileSync(join(root, "blobs/sha256", "notadigest"), "x");
    const again = await reopen();
    assert.deepEqual(partials(root), [hexOf(digest)]);
    assert.deepEqual(await again.list(), []);
    assert.equal(existsSync(join(root, "blobs/sha256/notadigest")), true);
  });
});

test("sync flushes what was put lazily, once", async () => {
  const root = mkdtempSync(join(tmpdir(), "skiff-content-"));
  const flushed: string[] = [];
  const store = await createDiskStore({
    root,
    log: silentLog,
    syncFileSystem: async (directory) => {
      flushed.push(directory);
    },
  });
  await store.put(bytes, { durable: false });
  await store.put(Buffer.from("other"), { durable: false });
  await store.sync();
  await store.sync();
  assert.equal(flushed.length, 1);
  rmSync(root, { recursive: true });
});
