/** Build, commit, load and push while the disk has less and less room: done whole, or refused clearly with all space back. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { until } from "../clients/real-lab.ts";
import { leftOver } from "../peers/left-over.ts";
import { type SmallDisk, smallDisk } from "../peers/small-disk.ts";
import { ImageKillLab } from "./image-kill-lab.ts";
import {
  type Prepare,
  prepareBuild,
  prepareCommit,
  prepareLoad,
  preparePush,
} from "./image-kill-operations.ts";

const resources = new AsyncDisposableStack();
let disk: SmallDisk;
let lab: ImageKillLab;
let round = 0;

before(async () => {
  disk = resources.use(smallDisk(64));
  const dataRoot = join(disk.path, "data");
  mkdirSync(dataRoot);
  lab = resources.use(await ImageKillLab.open({ dataRoot }));
});
after(() => resources.disposeAsync());

const kilobyte = 1024;

/** Takes all room but so much. */
function leave(bytes: number): Disposable {
  if (bytes === 0) return disk.fill();
  const filler = join(disk.path, "filler");
  execFileSync("fallocate", ["-l", String(disk.freeBytes() - bytes), filler]);
  return { [Symbol.dispose]: () => rmSync(filler, { force: true }) };
}

/** The content is 3.2 MB: each of these ends somewhere else in what an operation writes. */
const rooms = (
  process.env["SKIFF_PROVE"] === undefined ? [0, 2000, 3600] : [0, 300, 2000, 3600, 5600, 7400, 9000]
).map((size) => size * kilobyte);

const operations: readonly (readonly [string, Prepare, RegExp])[] = [
  // A command that finds no room says so itself.
  ["build", prepareBuild, /no space left on device|returned a non-zero code/],
  ["commit", prepareCommit, /no space left on device/],
  ["load", prepareLoad, /no space left on device/],
  ["push", preparePush, /no space left on device/],
];

for (const [name, prepare, refusal] of operations) {
  test(`${name} with little room`, async () => {
    let refused = 0;
    for (const room of rooms) {
      const free = disk.freeBytes();
      round += 1;
      const operation = await prepare(lab, round);
      const prepared = disk.freeBytes();
      {
        using _full = leave(room);
        const outcome = await operation.run({});
        if (operation.acknowledged(outcome)) await operation.checkBytes();
        else {
          refused += 1;
          assert.match(outcome.text, refusal, `with ${room / kilobyte} KiB`);
          if (!/no space left on device/i.test(outcome.text))
            assert.match(outcome.text, /write error|space/i);
          assert.equal(await operation.exists(), false);
        }
      }
      assert.deepEqual(await leftOver(lab.daemon), [], `with ${room / kilobyte} KiB`);
      if (!(await operation.exists())) {
        // Steps of a build that were made stay, as dangling images.
        const kept = name === "build" ? 5000 * kilobyte : 200 * kilobyte;
        await until("the space is back", () => prepared - disk.freeBytes() < kept);
      }
      const again = await operation.run({});
      assert.ok(operation.acknowledged(again), again.text);
      await operation.check();
      await operation.remove();
      await until("all space is back", () => free - disk.freeBytes() < 500 * kilobyte);
    }
    assert.ok(refused >= 2, `refused ${refused} times: the disk was not full`);
  });
}
