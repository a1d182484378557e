import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { pushLayout } from "../peers/images.ts";
import { type Figures, interleave } from "./measure.ts";
import { describeLayout, fiveLayerLayout } from "./pull-image.ts";
import type { BenchSide } from "./sides.ts";

/** Names, kinds, modes, owners, sizes, times, links and bytes of every file of the image, as one line. */
const fingerprint = [
  "cd /",
  "folders='bin boot etc home lib lib64 media mnt opt root sbin srv usr var layer1 layer2 layer3 layer4'",
  // Left out: what the engine puts into /etc, whose time dockerd changes by it, and sizes of folders.
  "own='-path /etc/hosts -o -path /etc/hostname -o -path /etc/resolv.conf -o -path /etc/mtab'",
  "for folder in $folders; do find /$folder \\( $own \\) -prune -o ! -type d -printf '%p %y %m %U %G %s %T@ %l\\n' -o ! -path /etc -printf '%p %y %m %U %G %T@\\n'; done | LC_ALL=C sort >/tmp/list",
  "for folder in $folders; do find /$folder \\( $own \\) -prune -o -type f -print0; done | LC_ALL=C sort -z | xargs -0 sha256sum >>/tmp/list",
  "wc -l </tmp/list",
  "sha256sum </tmp/list",
].join("\n");

/**
 * `docker pull` of the five-layer image by each engine's own client. What is timed ends when the client returns. Skiff
 * has then flushed the whole image (one syncfs) and keeps the compressed blobs beside the layers; dockerd and podman
 * flush no layer and keep no blob. In the round that is not counted a container looks at every file of the image, and
 * all sides must see the same.
 */
export async function pullRow(
  sides: readonly BenchSide[],
  rounds: number,
): Promise<Map<string, ReadonlyMap<string, Figures>>> {
  const layout = fiveLayerLayout();
  console.log(`pull-5: ${describeLayout(layout.path)}`);
  for (const side of sides)
    pushLayout(layout.path, `${side.registry.address}/five:latest`, { netnsOf: side.netnsOf });
  const seen = new Map<string, string>();
  const figures = await interleave(sides, rounds, async (side, round) => {
    const reference = `${side.registry.address}/five:latest`;
    // What was written before must not be flushed on this side's time.
    execFileSync("sync");
    const from = performance.now();
    const pulled = side.cli("pull", "-q", reference);
    const took = (performance.now() - from) / 1000;
    assert.equal(pulled.status, 0, `${side.name}: ${pulled.stderr}`);
    const shown = side.cli("image", "inspect", "-f", "{{.Id}}", reference).stdout.trim();
    assert.equal(shown.replace("sha256:", ""), layout.id.replace("sha256:", ""), side.name);
    if (round < 0) {
      const looked = side.cli("run", "--rm", "--network", "none", reference, "sh", "-c", fingerprint);
      assert.equal(looked.status, 0, `${side.name}: ${looked.stderr}`);
      seen.set(side.name, looked.stdout);
    }
    assert.equal(side.cli("rmi", reference).status, 0, side.name);
    await sleep(1000);
    return took;
  });
  const distinct = new Set(seen.values());
  assert.equal(distinct.size, 1, `the engines unpacked different files: ${JSON.stringify([...seen])}`);
  console.log(`pull-5: the same on every side: ${[...distinct][0]!.trim().replace(/\s+/g, " ")}`);
  return new Map([["pull-5", figures]]);
}
