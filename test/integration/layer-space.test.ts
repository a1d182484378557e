import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { digestOf } from "#base/digest.ts";
import { silentLog } from "#base/log.ts";
import { createDiskStore } from "#content/disk-store.ts";
import { openLayerPools } from "#snapshot/layer-pools.ts";
import { createOverlaySnapshotter } from "#snapshot/overlay.ts";
import { tarOf } from "#snapshot/suite.ts";

/** A file system of 4 MiB and 200 inodes at a temporary place. */
async function withSmallDisk(run: (root: string) => Promise<void>): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), "skiff-small-"));
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m,nr_inodes=200", "tmpfs", root]);
  try {
    await run(root);
  } finally {
    execFileSync("umount", [root]);
    rmdirSync(root);
  }
}

test("a full disk is a clear error, all space comes back, and a layer that fits goes in", async () => {
  await withSmallDisk(async (root) => {
    const blob = join(mkdtempSync(join(tmpdir(), "skiff-blob-")), "blob");
    await using pools = openLayerPools({ work: { size: 1 } });
    const snapshotter = await createOverlaySnapshotter({
      root: join(root, "overlay2"),
      log: silentLog,
      pools,
    });
    const free = (): number[] => {
      const { bfree, ffree } = statfsSync(root);
      return [bfree, ffree];
    };
    const apply = async (bytes: Buffer): Promise<unknown> => {
      writeFileSync(blob, bytes);
      return await snapshotter.apply({ source: { path: blob }, below: async () => [] });
    };
    const before = free();
    const big = tarOf([{ path: "big", content: Buffer.alloc(6_000_000, 1) }]);
    const many = tarOf(Array.from({ length: 300 }, (_, index) => ({ path: `f${index}`, content: "" })));
    for (const bytes of [big, many]) {
      await assert.rejects(apply(bytes), {
        code: "ENOSPC",
        kind: "unavailable",
        message: /no space left on device/,
      });
      assert.deepEqual(readdirSync(join(root, "overlay2/tmp")), []);
      assert.deepEqual(free(), before);
    }
    await apply(tarOf([{ path: "small", content: Buffer.alloc(1_000_000, 1) }]));
    rmSync(join(blob, ".."), { recursive: true });
  });
});

test("a full disk while a blob is written: the writer and its reader are told, the partial goes on abort", async () => {
  await withSmallDisk(async (root) => {
    const store = await createDiskStore({ root, log: silentLog });
    const bytes = Buffer.alloc(8_000_000, 3);
    const writer = await store.ingest({ digest: digestOf(bytes), sizeBytes: bytes.length });
    await assert.rejects(
      async () => {
        for (let at = 0; at < bytes.length; at += 100_000)
          await writer.write(bytes.subarray(at, at + 100_000));
        await writer.commit();
      },
      { code: "ENOSPC" },
    );
    assert.equal(new BigInt64Array(writer.file.cells)[1], 2n);
    await writer.abort();
    assert.deepEqual(readdirSync(join(root, "ingest")), []);
    await store.put(Buffer.alloc(1_000_000));
  });
});
