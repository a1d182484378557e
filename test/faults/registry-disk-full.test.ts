/** Our registry on a disk that is full: a clean answer, the space given back, and everything works when there is some. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { test } from "node:test";
import { DistributionLab, imageManifest, sha, withDigest } from "../conformance/distribution-lab.ts";
import { smallDisk } from "../peers/small-disk.ts";

test("a full disk: pushes answer 507 and leave nothing, deletes and a sweep make room", async () => {
  using disk = smallDisk(24);
  await using lab = await DistributionLab.open({ root: join(disk.path, "registry") });
  const kept = await lab.pushImage("a", "kept");
  const big = randomBytes(6 * 1024 * 1024);
  const bigDigest = await lab.putBlob("a", big);
  const free = disk.freeBytes();
  const tooBig = randomBytes(free + 1024 * 1024);
  const answers = [
    await lab.ask("POST", `/v2/a/blobs/uploads/?digest=${sha(tooBig)}`, { body: tooBig }),
    await lab.ask("PUT", withDigest(await lab.begin("a"), sha(tooBig)), { body: tooBig }),
    await lab.ask("PATCH", await lab.begin("a"), { body: tooBig }),
  ];
  for (const answer of answers) {
    assert.deepEqual(
      [answer.status, answer.body.toString().includes("no space left on device")],
      [507, true],
    );
  }
  assert.ok(disk.freeBytes() >= free - 256 * 1024, `${free} bytes were free, now ${disk.freeBytes()}`);
  assert.equal(lab.registry.store.totals().uploads, 0);
  {
    using _ = disk.fill();
    const text = randomBytes(256 * 1024);
    const annotations = { pad: text.toString("hex") };
    for (const answer of [
      await lab.ask("POST", `/v2/a/blobs/uploads/?digest=${sha(text)}`, { body: text }),
      await lab.putManifest("a", "t", imageManifest(kept.config, [kept.layer], { annotations })),
    ]) {
      assert.equal(answer.status, 507, answer.body.toString());
    }
    assert.deepEqual((await lab.ask("GET", "/v2/a/manifests/kept")).body, kept.bytes);
    assert.equal((await lab.ask("DELETE", `/v2/a/blobs/${bigDigest}`)).status, 202);
    await lab.registry.store.sweepContent();
    await lab.putBlob("a", text);
  }
  await lab.pushImage("a", "later");
  await lab.reopen();
  assert.deepEqual((await lab.ask("GET", "/v2/a/manifests/kept")).body, kept.bytes);
});
