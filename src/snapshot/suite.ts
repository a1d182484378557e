import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { type TarHeader, TarWriter } from "#archive/tar-write.ts";
import { bytesOfText } from "#base/byte-string.ts";
import { type ChainId, chainIds, type DiffId, digestOf } from "#base/digest.ts";
import { newContainerId } from "#base/ids.ts";
import type { AppliedLayer, LayerKey, Snapshotter } from "./snapshotter.ts";

/** What an implementation gives the suite: a snapshotter on a directory that is empty the first time. */
export interface SnapshotterFixture extends AsyncDisposable {
  readonly root: string;
  snapshotter: Snapshotter;
  /** Another one on the same directory, as after a restart of the daemon. */
  reopen(): Promise<Snapshotter>;
}

export interface TarItem {
  readonly path: string;
  readonly type?: TarHeader["type"];
  readonly content?: string | Buffer;
  readonly link?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtimeNs?: bigint;
  readonly device?: readonly [number, number];
  readonly xattrs?: Readonly<Record<string, string>>;
}

/** A tar of the items in their order. */
export function tarOf(items: readonly TarItem[]): Buffer {
  const chunks: Buffer[] = [];
  const writer = new TarWriter((chunk) => chunks.push(Buffer.from(chunk)));
  for (const item of items) {
    const content = Buffer.from(item.content ?? "");
    const directory = item.path.endsWith("/") ? "directory" : "file";
    const type = item.type ?? (item.link === undefined ? directory : "symlink");
    writer.entry({
      path: bytesOfText(item.path),
      type,
      mode: item.mode ?? (type === "directory" ? 0o755 : 0o644),
      uid: item.uid ?? 0,
      gid: item.gid ?? 0,
      sizeBytes: type === "file" ? content.length : 0,
      mtimeNs: item.mtimeNs ?? 1_700_000_000_000_000_000n,
      linkPath: bytesOfText(item.link ?? ""),
      deviceMajor: item.device?.[0] ?? 0,
      deviceMinor: item.device?.[1] ?? 0,
      ...(item.xattrs === undefined
        ? {}
        : {
            xattrs: new Map(Object.entries(item.xattrs).map(([name, value]) => [name, Buffer.from(value)])),
          }),
    });
    if (type === "file") writer.data(content);
  }
  writer.finish();
  return Buffer.concat(chunks);
}

const nothingBelow = async (): Promise<readonly LayerKey[]> => [];

export async function applyBytes(
  fixture: SnapshotterFixture,
  bytes: Buffer,
  below: readonly LayerKey[] = [],
  chainId?: ChainId,
): Promise<AppliedLayer> {
  const path = join(fixture.root, `..`, `blob-${createHash("sha256").update(bytes).digest("hex")}`);
  writeFileSync(path, bytes);
  try {
    return await fixture.snapshotter.apply({
      source: { path },
      below: async () => below,
      ...(chainId === undefined ? {} : { chainId }),
    });
  } finally {
    rmSync(path, { force: true });
  }
}

function occupied(root: string): string[] {
  return readdirSync(root, { recursive: true, encoding: "utf8" }).filter(
    (name) => !["tmp", "trash"].includes(name),
  );
}

/** The contract of `Snapshotter`, on any implementation (snapshotter.ts; numbers are its invariants). */
export function snapshotterSuite(name: string, open: () => Promise<SnapshotterFixture>): void {
  test(`${name}: a layer is there after its seal, and after a restart (1)`, async () => {
    await using fixture = await open();
    const tar = tarOf([{ path: "etc/" }, { path: "etc/os", content: "skiff" }]);
    const blob = gzipSync(tar);
    const layer = await applyBytes(fixture, blob);
    assert.equal(layer.diffId, digestOf(tar));
    assert.equal(layer.blobDigest, digestOf(blob));
    assert.equal(layer.blobSizeBytes, blob.length);
    assert.equal(layer.sizeBytes, 5);
    assert.equal(fixture.snapshotter.has(layer.key), false, "not before the seal");
    await fixture.snapshotter.seal([layer]);
    assert.equal(fixture.snapshotter.has(layer.key), true);
    const [chainId] = chainIds([layer.diffId]);
    assert.equal(fixture.snapshotter.find(layer.diffId, chainId as ChainId), layer.key);
    assert.equal(readFileSync(join(fixture.snapshotter.pathOf(layer.key), "etc/os"), "utf8"), "skiff");
    const again = await fixture.reopen();
    assert.deepEqual(again.listLayers(), [layer.key]);
    assert.equal(again.sizeBytes(layer.key), 5);
    assert.ok(existsSync(again.pathOf(layer.key)));
  });

  test(`${name}: what was not sealed is gone after a restart (1)`, async () => {
    await using fixture = await open();
    const layer = await applyBytes(fixture, tarOf([{ path: "a", content: "1" }]));
    const again = await fixture.reopen();
    assert.deepEqual(again.listLayers(), []);
    assert.equal(existsSync(again.pathOf(layer.key)), false);
  });

  test(`${name}: a failed apply gives its space back (4)`, async () => {
    await using fixture = await open();
    const tar = tarOf([{ path: "d/" }, { path: "d/big", content: Buffer.alloc(3_000_000, 7) }]);
    const cases: [Buffer, string][] = [
      [tar.subarray(0, 2_000_000), "truncated-archive"],
      [gzipSync(tar).subarray(0, 2000), "bad-compression"],
      [Buffer.concat([tar.subarray(0, 1024), Buffer.alloc(512, 9), tar.subarray(1024)]), "bad-archive"],
    ];
    for (const [bytes, code] of cases) await assert.rejects(applyBytes(fixture, bytes), { code });
    assert.deepEqual(occupied(fixture.root), []);
    const layer = await applyBytes(fixture, tar);
    assert.equal(layer.sizeBytes, 3_000_000, "the next one is not hindered");
  });

  test(`${name}: wrong digests are refused`, async () => {
    await using fixture = await open();
    const bytes = tarOf([{ path: "a", content: "1" }]);
    const path = join(fixture.root, "..", "blob");
    writeFileSync(path, bytes);
    const other = digestOf("other");
    const request = { source: { path }, below: nothingBelow };
    await assert.rejects(fixture.snapshotter.apply({ ...request, expectedBlobDigest: other }), {
      code: "wrong-digest",
    });
    await assert.rejects(
      fixture.snapshotter.apply({ ...request, expectedDiffId: other as string as DiffId }),
      { code: "wrong-diff-id" },
    );
    assert.deepEqual(occupied(fixture.root), []);
  });

  test(`${name}: one layer asked for by many is unpacked once, and discarded by the last`, async () => {
    await using fixture = await open();
    const bytes = tarOf([{ path: "a", content: Buffer.alloc(2_000_000, 1) }]);
    const path = join(fixture.root, "..", "blob");
    writeFileSync(path, bytes);
    const request = {
      source: { path },
      below: nothingBelow,
      expectedBlobDigest: digestOf(bytes),
      expectedDiffId: digestOf(bytes) as string as DiffId,
    };
    const layers = await Promise.all([1, 2, 3].map(() => fixture.snapshotter.apply(request)));
    assert.equal(new Set(layers).size, 1);
    const [layer] = layers as [AppliedLayer];
    await fixture.snapshotter.discard([layer, layer]);
    assert.ok(existsSync(fixture.snapshotter.pathOf(layer.key)));
    await fixture.snapshotter.discard([layer]);
    assert.equal(existsSync(fixture.snapshotter.pathOf(layer.key)), false);
  });

  test(`${name}: an abort stops a file that grows no more`, async () => {
    await using fixture = await open();
    const path = join(fixture.root, "..", "growing");
    writeFileSync(path, tarOf([{ path: "a", content: Buffer.alloc(100_000) }]).subarray(0, 50_000));
    const cells = new SharedArrayBuffer(16);
    new BigInt64Array(cells)[0] = 50_000n;
    const abort = new AbortController();
    const applying = fixture.snapshotter.apply({
      source: { path, cells },
      below: nothingBelow,
      signal: abort.signal,
    });
    setTimeout(() => abort.abort(), 50);
    await assert.rejects(applying, { kind: "cancelled" });
    assert.deepEqual(occupied(fixture.root), []);
  });

  test(`${name}: a file is followed while it grows`, async () => {
    await using fixture = await open();
    const path = join(fixture.root, "..", "growing");
    const bytes = tarOf([{ path: "a", content: Buffer.alloc(3_000_000, 5) }]);
    const cells = new BigInt64Array(new SharedArrayBuffer(16));
    writeFileSync(path, "");
    const progress: number[] = [];
    const applying = fixture.snapshotter.apply({
      source: { path, cells: cells.buffer },
      below: nothingBelow,
      onProgress: (consumed) => progress.push(consumed),
    });
    for (let at = 0; at < bytes.length; at += 500_000) {
      writeFileSync(path, bytes.subarray(at, at + 500_000), { flag: "a" });
      Atomics.store(cells, 0, BigInt(Math.min(bytes.length, at + 500_000)));
      Atomics.notify(cells, 0);
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
    Atomics.store(cells, 1, 1n);
    Atomics.notify(cells, 0);
    const layer = await applying;
    assert.equal(layer.blobSizeBytes, bytes.length);
    assert.ok(progress.length > 0 && progress.every((value) => value <= bytes.length));
  });

  test(`${name}: a layer that implies its parents takes them from below, under its chain (2)`, async () => {
    await using fixture = await open();
    const base = await applyBytes(
      fixture,
      tarOf([
        { path: "srv/", mode: 0o2770, uid: 33, gid: 44, mtimeNs: 1_600_000_000_123_456_789n },
        { path: "srv/keep", content: "k", mode: 0o4755, uid: 5 },
        { path: "lib", link: "usr/lib" },
        { path: "usr/" },
        { path: "usr/lib/", mode: 0o711 },
      ]),
    );
    const bytes = tarOf([
      { path: "srv/new", content: "n" },
      { path: "srv/linked", type: "link", link: "srv/keep" },
      { path: "lib/x", content: "x" },
    ]);
    const diffId = digestOf(bytes) as string as DiffId;
    const chainId = chainIds([base.diffId, diffId])[1] as ChainId;
    const top = await applyBytes(fixture, bytes, [base.key], chainId);
    assert.equal(top.key, `c-${chainId.slice(7)}`);
    const directory = fixture.snapshotter.pathOf(top.key);
    const parent = statSync(join(directory, "srv"), { bigint: true });
    assert.deepEqual(
      [parent.mode & 0o7777n, parent.uid, parent.gid, parent.mtimeNs],
      [0o2770n, 33n, 44n, 1_600_000_000_123_456_789n],
    );
    const linked = lstatSync(join(directory, "srv/linked"));
    assert.equal(linked.ino, lstatSync(join(directory, "srv/keep")).ino);
    assert.deepEqual([linked.mode & 0o7777, linked.size], [0o644, 1]);
    assert.equal(lstatSync(join(directory, "usr/lib")).mode & 0o7777, 0o711);
    assert.equal(readFileSync(join(directory, "usr/lib/x"), "utf8"), "x");
    assert.equal(existsSync(join(directory, "lib")), false, "the link below is followed, not replaced");
    await fixture.snapshotter.seal([base, top]);
    assert.equal(fixture.snapshotter.find(diffId, chainId), top.key);
    const elsewhere = chainIds([digestOf("other") as string as DiffId, diffId])[1] as ChainId;
    assert.equal(fixture.snapshotter.find(diffId, elsewhere), undefined);
  });

  test(`${name}: the same layer alone implies plain parents, still under its chain (2)`, async () => {
    await using fixture = await open();
    const layer = await applyBytes(fixture, tarOf([{ path: "opt/x", content: "x" }]));
    assert.match(layer.key, /^c-/);
    assert.equal(statSync(join(fixture.snapshotter.pathOf(layer.key), "opt")).mode & 0o7777, 0o755);
  });

  test(`${name}: writable layers come, are listed and go`, async () => {
    await using fixture = await open();
    const id = newContainerId();
    const layer = await fixture.snapshotter.createWritable(id);
    assert.deepEqual(fixture.snapshotter.writableOf(id), layer);
    writeFileSync(join(layer.upperDir, "f"), "12345");
    mkdirSync(join(layer.upperDir, "d"));
    symlinkSync("f", join(layer.upperDir, "l"));
    assert.equal(await fixture.snapshotter.writableUsage(id), 6);
    assert.deepEqual(await fixture.snapshotter.listWritable(), [id]);
    await assert.rejects(fixture.snapshotter.createWritable(id));
    await fixture.snapshotter.removeWritable(id);
    assert.equal(existsSync(layer.upperDir), false);
    assert.deepEqual(await fixture.snapshotter.listWritable(), []);
    await fixture.snapshotter.removeWritable(id);
  });

  test(`${name}: a layer goes with its row`, async () => {
    await using fixture = await open();
    const layer = await applyBytes(fixture, tarOf([{ path: "a", content: "1" }]));
    await fixture.snapshotter.seal([layer]);
    await fixture.snapshotter.removeLayer(layer.key);
    assert.equal(fixture.snapshotter.has(layer.key), false);
    assert.equal(existsSync(fixture.snapshotter.pathOf(layer.key)), false);
    assert.deepEqual((await fixture.reopen()).listLayers(), []);
  });
}
