import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { type SmallDisk, smallDisk } from "../peers/small-disk.ts";
import { openImages, pull } from "./image-setup.ts";
import { imageOf, layerTar, type ScriptedImage, ScriptedRegistry } from "./scripted-registry.ts";

/** A disk that is too small: a clean error in Docker's words, the space given back, and the next pull works. */

/** A layer that is small on the wire and large on the disk. */
function swelling(megabytes: number): ScriptedImage {
  const folder = mkdtempSync(join(tmpdir(), "skiff-swell-"));
  try {
    writeFileSync(join(folder, "zeros"), Buffer.alloc(megabytes * 1024 * 1024, "x"));
    return imageOf([execFileSync("tar", ["-C", folder, "-cf", "-", "."], { maxBuffer: 2 ** 30 })]);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function freeAgain(disk: SmallDisk, before: number): Promise<void> {
  // What was unpacked is deleted in the background.
  for (let waited = 0; waited < 20_000; waited += 50) {
    if (before - disk.freeBytes() < 1024 * 1024) return;
    await sleep(50);
  }
  assert.fail(`${before - disk.freeBytes()} bytes were not given back`);
}

test("the disk is full while a layer is unpacked, while it is downloaded, and during an import", async () => {
  using disk = smallDisk(48);
  await using registry = await ScriptedRegistry.start();
  registry.serve("swells", swelling(80));
  registry.serve("large", imageOf([layerTar("large", 60 * 1024 * 1024)]));
  registry.serve("fits", imageOf([layerTar("fits", 2 * 1024 * 1024)]));
  const name = `${registry.address}/a/b`;
  const root = join(disk.path, "root");
  mkdirSync(root);
  await using setup = await openImages({ root, keepRoot: true });
  await pull(setup, name, "fits");
  const before = disk.freeBytes();
  for (const tag of ["swells", "large"]) {
    await assert.rejects(pull(setup, name, tag), { message: /no space left on device$/ });
    assert.equal(setup.images.store.listAll().length, 1);
    assert.equal(setup.snapshotter.listLayers().length, 1);
    assert.deepEqual(readdirSync(join(root, "content", "ingest")), []);
    await freeAgain(disk, before);
  }
  const archive = gzipSync(layerTar("import", 60 * 1024 * 1024), { level: 1 });
  const request = {
    source: "-",
    body: Readable.from(chunksOf(archive)),
    repository: "x",
    tag: "",
    message: "",
    changes: [],
    platform: "",
  };
  await assert.rejects(
    setup.images.import(request, () => {}, new AbortController().signal),
    { message: /no space left on device$/ },
  );
  assert.deepEqual(readdirSync(join(root, "tmp")), []);
  await freeAgain(disk, before);
  // Reading and removing still work, and so does the next pull.
  assert.equal(setup.images.list({ all: false, sharedSize: false, filters: undefined }).length, 1);
  await setup.images.remove(`${name}:fits`, { force: false, prune: true });
  await pull(setup, name, "fits");
});

function* chunksOf(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
}
