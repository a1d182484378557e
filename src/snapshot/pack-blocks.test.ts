import assert from "node:assert/strict";
import { createCipheriv, createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { gunzipSync } from "node:zlib";
import { LayerWorkers } from "./layer-workers.ts";
import { closeBlocks, helperFailed, sharedBlocks } from "./pack-blocks.ts";
import { runPack } from "./pack-job.ts";

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
  const blocks = sharedBlocks();
  const helping = workers.run<"pack-help">({ kind: "pack-help", blocks });
  let begun = 0;
  // More blocks than there are slots: some are out by then.
  const checkAborted = (): void => {
    begun += 1;
    if (begun > 9) throw new Error("given up");
  };
  let written = 0;
  const job = { kind: "pack", source: { directory: layer }, output, blocks } as const;
  const pack = (): unknown => runPack(job, checkAborted, (bytes) => (written = bytes));
  assert.throws(pack, /given up/);
  await helping;
  assert.ok(written > 0);
  assert.equal(existsSync(output), false);
});

test("helpers of a pack that never began end, before and after they are asked", async () => {
  const blocks = sharedBlocks();
  const waiting = workers.run<"pack-help">({ kind: "pack-help", blocks });
  // It is at its wait when another thread has done something that was asked for later.
  await workers.run<"pack">({ kind: "pack", source: { directory: layer } });
  closeBlocks(blocks);
  await waiting;
  await workers.run<"pack-help">({ kind: "pack-help", blocks });
});

test("a helper that failed before it took anything does not matter", async () => {
  const blocks = sharedBlocks();
  helperFailed(blocks);
  const job = { kind: "pack", source: { directory: layer }, output: join(home, "alone"), blocks } as const;
  assert.equal((await workers.run<"pack">(job)).diffId, (await pack(0)).diffId);
});
