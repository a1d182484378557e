import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createCipheriv, createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { gunzipSync } from "node:zlib";
import { LayerWorkers } from "./layer-workers.ts";
import { helperFailed, sharedBlocks } from "./pack-blocks.ts";

const home = mkdtempSync(join(tmpdir(), "skiff-pack-"));
const layer = join(home, "layer");
const workers = new LayerWorkers({ size: 3 });
let next = 0;

after(async () => {
  await workers[Symbol.asyncDispose]();
  rmSync(home, { recursive: true });
});

mkdirSync(layer);
for (let file = 0; file < 20; file += 1) {
  const noise = createCipheriv("aes-128-ctr", Buffer.alloc(16, file), Buffer.alloc(16));
  const text = Buffer.alloc(500_000, `line ${file} of a program\n`);
  writeFileSync(join(layer, `f${file}`), Buffer.concat([noise.update(Buffer.alloc(300_000)), text]));
}

/** Packs the layer with so many threads beside the one that packs. */
async function pack(helpers: number): Promise<{ bytes: Buffer; diffId: string; told: number[] }> {
  next += 1;
  const output = join(home, `out-${next}`);
  const blocks = sharedBlocks();
  const told: number[] = [];
  const job = { kind: "pack", source: { directory: layer }, output, blocks } as const;
  const packing = workers.run<"pack">(job, { onProgress: (bytes) => told.push(bytes) });
  const helping = Array.from({ length: helpers }, () =>
    workers.run<"pack-help">({ kind: "pack-help", blocks }),
  );
  const { diffId, blobDigest, blobSizeBytes, diffSizeBytes } = await packing;
  // They end by themselves.
  await Promise.all(helping);
  const bytes = readFileSync(output);
  assert.equal(blobDigest, `sha256:${createHash("sha256").update(bytes).digest("hex")}`);
  assert.equal(blobSizeBytes, bytes.length);
  const tar = gunzipSync(bytes);
  assert.equal(diffSizeBytes, tar.length);
  assert.equal(diffId, `sha256:${createHash("sha256").update(tar).digest("hex")}`);
  return { bytes, diffId, told };
}

test("a layer is packed to the same bytes by one thread and by three, and told of as it grows", async () => {
  const alone = await pack(0);
  for (const helpers of [1, 2, 2, 2]) {
    const helped = await pack(helpers);
    assert.ok(helped.bytes.equals(alone.bytes), `${helpers} helpers`);
  }
  assert.equal(alone.told.at(-1), alone.bytes.length);
  assert.deepEqual(
    alone.told,
    [...alone.told].sort((left, right) => left - right),
  );
  // Half of it is noise, and not made larger.
  assert.ok(alone.bytes.length > 6_000_000 && alone.bytes.length < 6_200_000, String(alone.bytes.length));
});

test("a pack that is given up leaves nothing, and its helpers end", async () => {
  const output = join(home, "given-up");
  const fifo = join(home, "fifo");
  execFileSync("mkfifo", [fifo]);
  const blocks = sharedBlocks();
  const stop = new AbortController();
  const begun = Promise.withResolvers<void>();
  const packing = workers.run<"pack">(
    { kind: "pack", source: { path: fifo }, output, blocks },
    { signal: stop.signal, onProgress: () => begun.resolve() },
  );
  const helping = workers.run<"pack-help">({ kind: "pack-help", blocks });
  const writer = await open(fifo, "w");
  // More blocks than there are slots: some must be out.
  await writer.writeFile(Buffer.alloc(8 * 1024 * 1024));
  await begun.promise;
  stop.abort();
  const rest = writer.writeFile(Buffer.alloc(8 * 1024 * 1024)).catch(() => {});
  await assert.rejects(packing, { kind: "cancelled" });
  await Promise.all([helping, rest]);
  await writer.close();
  assert.equal(existsSync(output), false);
});

test("a helper that failed before it took anything does not matter", async () => {
  const blocks = sharedBlocks();
  helperFailed(blocks);
  const job = { kind: "pack", source: { directory: layer }, output: join(home, "alone"), blocks } as const;
  assert.equal((await workers.run<"pack">(job)).diffId, (await pack(0)).diffId);
});
