import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { Client, image, prepare } from "./client.ts";
import type { BenchSide } from "./sides.ts";

/**
 * What was acknowledged is there after a crash: a created container survives, a removed one does not come back. Skiff is
 * killed (SIGKILL) and started again; of dockerd, which keeps a container as a file, the files are looked at. The flushes
 * that make it hold for a power failure too are counted by row `flushes`.
 */
export async function verifyDurable(side: BenchSide): Promise<void> {
  prepare([side]);
  const client = new Client(side.socket);
  const kept = await client.create({ Image: image(side), Cmd: ["true"] });
  const removed = await client.create({ Image: image(side), Cmd: ["true"] });
  await client.expect(204, "DELETE", `/containers/${removed}`);
  client.close();
  if (side.crash === undefined) {
    const file = (id: string): string => join(side.dataRoot, "containers", id, "config.v2.json");
    assert.equal(existsSync(file(kept)), true, side.name);
    assert.equal(existsSync(file(removed)), false, side.name);
  } else await side.crash();
  const after = new Client(side.socket);
  await after.expect(200, "GET", `/containers/${kept}/json`);
  await after.expect(404, "GET", `/containers/${removed}/json`);
  await after.expect(204, "DELETE", `/containers/${kept}`);
  after.close();
  console.log(
    `durable: ${side.name}: a created container ${side.crash === undefined ? "is on disk" : "survives kill -9"}, a removed one stays away`,
  );
}
