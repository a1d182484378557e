import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { pushLayout } from "../peers/images.ts";
import { assertSame, fingerprint } from "./fingerprint.ts";
import { bigLayerLayout, manyFilesLayout } from "./made-images.ts";
import { type Figures, interleave } from "./measure.ts";
import { describeLayout, fiveLayerLayout, type Layout } from "./pull-image.ts";
import type { BenchSide } from "./sides.ts";

type RowFigures = Map<string, ReadonlyMap<string, Figures>>;

export const pullFive = (sides: readonly BenchSide[], rounds: number): Promise<RowFigures> =>
  pullRow("pull-5", fiveLayerLayout(), fingerprint(), sides, rounds);

/** One layer of 1 GB, or of 300 MB. */
export const pullBig = (sides: readonly BenchSide[], rounds: number, full: boolean): Promise<RowFigures> =>
  pullRow("pull-big", bigLayerLayout(full ? 1_000_000_000 : 300_000_000), fingerprint("data"), sides, rounds);

/** 60,000 small files in ten layers, or 12,000. */
export const pullMany = (sides: readonly BenchSide[], rounds: number, full: boolean): Promise<RowFigures> =>
  pullRow("pull-many", manyFilesLayout(full ? 6_000 : 1_200), fingerprint("many"), sides, rounds);

/**
 * `docker pull` of an image by each engine's own client. What is timed ends when the client returns. Skiff has then flushed
 * the whole image (one syncfs) and keeps the compressed blobs beside the layers; dockerd and podman flush no layer and keep
 * no blob. In the round that is not counted a container looks at every file of the image (`look`), and all sides must see
 * the same.
 */
async function pullRow(
  name: string,
  layout: Layout,
  look: string,
  sides: readonly BenchSide[],
  rounds: number,
): Promise<RowFigures> {
  console.log(`${name}: ${describeLayout(layout.path)}`);
  const repository = name.replace("-", "");
  for (const side of sides)
    pushLayout(layout.path, `${side.registry.address}/${repository}:latest`, { netnsOf: side.netnsOf });
  const seen = new Map<string, string>();
  const figures = await interleave(sides, rounds, async (side, round) => {
    const reference = `${side.registry.address}/${repository}:latest`;
    // What was written before must not be flushed on this side's time.
    execFileSync("sync");
    const from = performance.now();
    const pulled = side.cli("pull", "-q", reference);
    const took = (performance.now() - from) / 1000;
    assert.equal(pulled.status, 0, `${side.name}: ${pulled.stderr}`);
    const shown = side.cli("image", "inspect", "-f", "{{.Id}}", reference).stdout.trim();
    assert.equal(shown.replace("sha256:", ""), layout.id.replace("sha256:", ""), side.name);
    if (round < 0) {
      const looked = side.cli("run", "--rm", "--network", "none", reference, "sh", "-c", look);
      assert.equal(looked.status, 0, `${side.name}: ${looked.stderr}`);
      seen.set(side.name, looked.stdout);
    }
    assert.equal(side.cli("rmi", reference).status, 0, side.name);
    await sleep(1000);
    return took;
  });
  assertSame(name, seen);
  return new Map([[name, figures]]);
}
