import assert from "node:assert/strict";
import { createCipheriv, createHash } from "node:crypto";
import { Agent, request } from "node:http";
import { startRegistry } from "../peers/registry.ts";
import { startRegistryServe } from "../peers/registry-serve.ts";
import { type Figures, interleave } from "./measure.ts";

interface RegistrySide {
  readonly name: string;
  readonly port: number;
}

interface Answer {
  readonly status: number;
  readonly location: string | undefined;
  readonly bytes: Buffer;
}

const blobSizes = [1_000_000, 10_000_000, 100_000_000];
const manifestReads = 300;
const repository = "bench/blobs";

/**
 * Our registry server against Debian's docker-registry, both processes of their own on loopback, spoken to by one client
 * over kept-alive connections: a blob up (a POST and one PUT, a new digest each time), the same one down, and reads of a
 * manifest by its tag. Every answer's bytes are hashed or compared, in the timed part on both sides. An upload is durable
 * on both before it is answered.
 */
export async function registryRow(
  _sides: readonly unknown[],
  rounds: number,
): Promise<Map<string, ReadonlyMap<string, Figures>>> {
  await using ours = await startRegistryServe();
  await using theirs = await startRegistry();
  const sides: RegistrySide[] = [
    { name: "skiff", port: Number(ours.address.split(":")[1]) },
    { name: "docker-registry", port: theirs.port },
  ];
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  try {
    const figures = new Map<string, ReadonlyMap<string, Figures>>();
    for (const size of blobSizes) {
      const pushed = new Map<string, string>();
      const label = `${size / 1e6} MB`;
      const up = await interleave(sides, rounds, async (side, round) => {
        const bytes = noise(round + 1, size);
        const digest = digestOf(bytes);
        pushed.set(side.name, digest);
        const from = performance.now();
        await push(agent, side, digest, bytes);
        return performance.now() - from;
      });
      const down = await interleave(sides, rounds, async (side) => {
        const digest = pushed.get(side.name)!;
        const from = performance.now();
        const { status, bytes } = await call(agent, side, "GET", `/v2/${repository}/blobs/${digest}`);
        assert.equal(status, 200, side.name);
        assert.equal(digestOf(bytes), digest, side.name);
        return performance.now() - from;
      });
      figures.set(`registry push ${label}`, up);
      figures.set(`registry pull ${label}`, down);
    }
    figures.set("registry manifest", await manifests(agent, sides, rounds));
    return figures;
  } finally {
    agent.destroy();
  }
}

async function manifests(
  agent: Agent,
  sides: readonly RegistrySide[],
  rounds: number,
): Promise<Map<string, Figures>> {
  const config = Buffer.from(
    JSON.stringify({ architecture: "amd64", os: "linux", rootfs: { type: "layers" } }),
  );
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: {
        mediaType: "application/vnd.oci.image.config.v1+json",
        digest: digestOf(config),
        size: config.length,
      },
      layers: [],
    }),
  );
  const path = `/v2/${repository}/manifests/latest`;
  for (const side of sides) {
    await push(agent, side, digestOf(config), config);
    const { status } = await call(agent, side, "PUT", path, manifest);
    assert.equal(status, 201, side.name);
  }
  return await interleave(sides, rounds, async (side) => {
    const samples: number[] = [];
    for (let index = 0; index < manifestReads; index += 1) {
      const from = performance.now();
      const { status, bytes } = await call(agent, side, "GET", path);
      samples.push(performance.now() - from);
      assert.equal(status, 200, side.name);
      assert.ok(bytes.equals(manifest), side.name);
    }
    return samples;
  });
}

function noise(seed: number, size: number): Buffer {
  return createCipheriv("aes-128-ctr", Buffer.alloc(16, seed), Buffer.alloc(16)).update(Buffer.alloc(size));
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

async function push(agent: Agent, side: RegistrySide, digest: string, bytes: Buffer): Promise<void> {
  const begun = await call(agent, side, "POST", `/v2/${repository}/blobs/uploads/`);
  assert.equal(begun.status, 202, side.name);
  const location = new URL(begun.location!, `http://127.0.0.1:${side.port}`);
  location.searchParams.set("digest", digest);
  const { status } = await call(agent, side, "PUT", `${location.pathname}${location.search}`, bytes);
  assert.equal(status, 201, side.name);
}

function call(
  agent: Agent,
  { port }: RegistrySide,
  method: string,
  path: string,
  body?: Buffer,
): Promise<Answer> {
  const isManifest = path.includes("/manifests/");
  const type = isManifest ? "application/vnd.oci.image.manifest.v1+json" : "application/octet-stream";
  const headers = {
    "content-length": body?.length ?? 0,
    ...(body === undefined ? {} : { "content-type": type }),
    ...(isManifest ? { accept: type } : {}),
  };
  return new Promise((resolve, reject) => {
    const sent = request({ host: "127.0.0.1", port, method, path, agent, headers }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on("data", (chunk: Buffer) => chunks.push(chunk));
      answer.on("error", reject);
      answer.on("end", () => {
        const { location } = answer.headers;
        resolve({ status: answer.statusCode ?? 0, location, bytes: Buffer.concat(chunks) });
      });
    });
    sent.on("error", reject);
    sent.end(body);
  });
}
