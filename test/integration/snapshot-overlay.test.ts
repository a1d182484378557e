import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLog } from "#base/log.ts";
import { openLayerPools } from "#snapshot/layer-pools.ts";
import { createOverlaySnapshotter } from "#snapshot/overlay.ts";
import { type SnapshotterFixture, snapshotterSuite } from "#snapshot/suite.ts";
import { openDatabase } from "#state/sqlite-database.ts";

snapshotterSuite("overlay", async (): Promise<SnapshotterFixture> => {
  const base = mkdtempSync(join(tmpdir(), "skiff-snapshot-"));
  const root = join(base, "overlay2");
  const database = await openDatabase(join(base, "state.db"), { log: silentLog });
  const pools = openLayerPools();
  const options = { root, database, log: silentLog, pools };
  return {
    root,
    snapshotter: await createOverlaySnapshotter(options),
    reopen: () => createOverlaySnapshotter(options),
    async [Symbol.asyncDispose]() {
      await pools[Symbol.asyncDispose]();
      await database[Symbol.asyncDispose]();
      rmSync(base, { recursive: true });
    },
  };
});
