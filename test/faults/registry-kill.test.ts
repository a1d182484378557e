/**
 * kill -9 of our registry while several clients push, mount and delete: what was acknowledged is there afterwards, byte
 * for byte; what was not leaves nothing; sessions that were begun can be gone on with.
 */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readdirSync } from "node:fs";
import { Agent, request } from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { mediaTypes } from "#wire/oci-image.ts";
import { type SkiffRegistry, startSkiffRegistry } from "../peers/skiff-registry.ts";

const rounds = process.env["SKIFF_PROVE"] === undefined ? 6 : 100;
const clients = 4;

let registry: SkiffRegistry;
let agent: Agent;
before(async () => {
  registry = await startSkiffRegistry();
});
after(() => registry[Symbol.asyncDispose]());

const sha = (bytes: Uint8Array): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

interface Answer {
  readonly status: number;
  readonly location: string;
  readonly range: string;
  readonly body: Buffer;
}

async function ask(method: string, path: string, body?: Buffer, type?: string): Promise<Answer> {
  return await new Promise((resolve, reject) => {
    const headers = {
      ...(type === undefined ? {} : { "content-type": type }),
      "content-length": body?.length ?? 0,
    };
    const outgoing = request(
      { host: "127.0.0.1", port: registry.port, method, path, headers, agent },
      (incoming) => {
        const chunks: Buffer[] = [];
        incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
        incoming.on("error", reject);
        incoming.on("end", () => {
          const { location = "", range = "" } = incoming.headers;
          resolve({
            status: incoming.statusCode ?? 0,
            location,
            range: String(range),
            body: Buffer.concat(chunks),
          });
        });
      },
    );
    outgoing.on("error", reject);
    outgoing.end(body);
  });
}

/** What the registry has acknowledged: path → digest of what GET must give, or undefined for what must be gone. */
type Acknowledged = Map<string, string | undefined>;

async function pushOne(
  repository: string,
  acknowledged: Acknowledged,
  open: Map<string, number>,
): Promise<void> {
  const layer = randomBytes(1 + Math.floor(Math.random() * 300_000));
  const begun = await ask("POST", `/v2/${repository}/blobs/uploads/`);
  assert.equal(begun.status, 202);
  const half = layer.length >> 1;
  const patched = await ask("PATCH", begun.location, layer.subarray(0, half));
  assert.equal(patched.status, 202);
  open.set(begun.location, half);
  const put = await ask("PUT", `${begun.location}?digest=${sha(layer)}`, layer.subarray(half));
  assert.equal(put.status, 201);
  open.delete(begun.location);
  acknowledged.set(`/v2/${repository}/blobs/${sha(layer)}`, sha(layer));
  const config = Buffer.from(JSON.stringify({ note: sha(layer) }));
  const posted = await ask("POST", `/v2/${repository}/blobs/uploads/?digest=${sha(config)}`, config);
  assert.equal(posted.status, 201);
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      config: { mediaType: mediaTypes.ociConfig, digest: sha(config), size: config.length },
      layers: [{ mediaType: mediaTypes.ociLayer, digest: sha(layer), size: layer.length }],
    }),
  );
  const tag = `t${Math.floor(Math.random() * 3)}`;
  // While it is moved, nobody can say which of the two it is.
  acknowledged.delete(`/v2/${repository}/manifests/${tag}`);
  const moved = await ask("PUT", `/v2/${repository}/manifests/${tag}`, manifest, mediaTypes.ociManifest);
  assert.equal(moved.status, 201);
  acknowledged.set(`/v2/${repository}/manifests/${sha(manifest)}`, sha(manifest));
  acknowledged.set(`/v2/${repository}/manifests/${tag}`, sha(manifest));
  const mounted = await ask(
    "POST",
    `/v2/${repository}/m/blobs/uploads/?mount=${sha(layer)}&from=${repository}`,
  );
  assert.equal(mounted.status, 201);
  acknowledged.set(`/v2/${repository}/m/blobs/${sha(layer)}`, sha(layer));
  if (Math.random() < 0.3) {
    const path = `/v2/${repository}/m/blobs/${sha(layer)}`;
    acknowledged.delete(path);
    assert.equal((await ask("DELETE", path)).status, 202);
    acknowledged.set(path, undefined);
  }
}

async function work(
  repository: string,
  acknowledged: Acknowledged,
  open: Map<string, number>,
): Promise<void> {
  for (;;) {
    try {
      await pushOne(repository, acknowledged, open);
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      // The connection broke: the registry is dead.
      return;
    }
  }
}

test(`${rounds} kills in the midst of pushes`, async () => {
  const acknowledged: Acknowledged = new Map();
  for (let round = 0; round < rounds; round += 1) {
    agent = new Agent({ keepAlive: true });
    const open = new Map<string, number>();
    const working = Array.from({ length: clients }, (_, index) => work(`k/c${index}`, acknowledged, open));
    // Also on a machine that does much else there is something to lose.
    for (const end = performance.now() + 20_000; acknowledged.size <= rounds + clients; await sleep(5))
      assert.ok(performance.now() < end, "nothing is acknowledged");
    await sleep(60 + Math.random() * 200);
    await registry.kill();
    await Promise.all(working);
    agent.destroy();
    agent = new Agent({ keepAlive: true });
    await registry.restart();
    for (const [path, digest] of acknowledged) {
      const answer = await ask("GET", path);
      assert.equal(answer.status, digest === undefined ? 404 : 200, path);
      if (digest !== undefined) assert.equal(sha(answer.body), digest, path);
    }
    for (const [path, bytes] of open) {
      const { status, range } = await ask("GET", path);
      // Its PUT may have been done and not been answered any more.
      if (status === 204) assert.ok(Number(range.split("-")[1]) + 1 >= bytes, `${path} ${range}`);
      else assert.equal(status, 404);
    }
    assertNothingElse();
    agent.destroy();
  }
  assert.ok(acknowledged.size > rounds, `only ${acknowledged.size} things were acknowledged`);
});

/** No temporary file, no partial: the restart has swept. */
function assertNothingElse(): void {
  assert.deepEqual(readdirSync(join(registry.root, "content/ingest")), []);
  assert.doesNotMatch(registry.log(), /bytes are missing|"level":"error"/);
}
