/** Registries that are away, refuse or lie, through the client: message, status, exit code, and nothing of the image stays. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type Client, clientPrograms, createClient } from "../clients/real-lab.ts";
import {
  imageOf,
  layerTar,
  type Script,
  ScriptedRegistry,
  sendError,
} from "../integration/scripted-registry.ts";
import { call } from "../peers/engine-call.ts";
import { leftOver } from "../peers/left-over.ts";
import { freePort } from "../peers/registry.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";

const resources = new AsyncDisposableStack();
let daemon: TestDaemon;
let client: Client;
let registry: ScriptedRegistry;

before(async () => {
  const folder = mkdtempSync(join(tmpdir(), "skiff-bad-registry-"));
  resources.defer(() => rmSync(folder, { recursive: true, force: true }));
  registry = resources.use(await ScriptedRegistry.start());
  registry.serve("tag", imageOf([layerTar("one", 300_000), layerTar("two", 50_000)]));
  daemon = resources.use(await startSkiffd());
  client = createClient(clientPrograms[0], daemon.host, folder);
});
after(() => resources.disposeAsync());

interface Lie {
  readonly what: string;
  readonly script: Script;
  readonly reference?: string;
  readonly message: RegExp;
  /** Of the API's answer, where the failure comes before the first progress line; else it is told in the stream, with 200. */
  readonly status: number;
  /** The client tries again for some seconds: asked once, not in every way. */
  readonly slow?: boolean;
}

const isBlob = (path: string): boolean => path.includes("/blobs/");
const isManifest = (path: string): boolean => path.includes("/manifests/");

const lies: readonly Lie[] = [
  {
    what: "asks for a login",
    script: ({ response }) => {
      response.setHeader("www-authenticate", 'Basic realm="test"');
      sendError(response, 401, "UNAUTHORIZED", "authentication required");
      return true;
    },
    message: /no basic auth credentials/,
    status: 500,
  },
  {
    what: "denies the repository",
    script: ({ url, response }) => {
      if (!isManifest(url.pathname)) return false;
      sendError(response, 403, "DENIED", "requested access to the resource is denied");
      return true;
    },
    message: /pull access denied for \S+, repository does not exist or may require 'docker login': denied:/,
    status: 404,
  },
  {
    what: "does not know the tag",
    script: () => false,
    reference: "a/b:nope",
    message: /manifest for \S+\/a\/b:nope not found: manifest unknown/,
    status: 404,
  },
  {
    what: "serves another manifest than the digest asked for",
    script: ({ url, response }) => {
      if (!isManifest(url.pathname)) return false;
      const { type, bytes } = registry.manifests.get("tag")!;
      response.writeHead(200, { "content-type": type }).end(`${bytes.toString("utf8")} `);
      return true;
    },
    reference: `a/b@sha256:${"1".repeat(64)}`,
    message: /manifest verification failed for digest sha256:1{64}/,
    status: 500,
  },
  {
    what: "serves something that is no manifest",
    script: ({ url, response }) => {
      if (!isManifest(url.pathname)) return false;
      response.writeHead(200, { "content-type": "text/html" }).end("<html>hello</html>");
      return true;
    },
    message: /text\/html|unsupported|unknown|invalid/,
    status: 500,
  },
  {
    what: "cuts every layer short",
    script: ({ url, response }) => {
      const bytes = registry.blobs.get(url.pathname.split("/").at(-1)!);
      if (!isBlob(url.pathname) || bytes === undefined || bytes.length < 10_000) return false;
      // A range is not understood either, so that it cannot be had in pieces.
      response.writeHead(200, { "content-length": 1000 });
      response.end(bytes.subarray(0, 1000));
      return true;
    },
    message: /unexpected EOF|size|length|verification failed/i,
    status: 200,
    slow: true,
  },
  {
    what: "serves other bytes of the right length",
    script: ({ url, response }) => {
      const bytes = registry.blobs.get(url.pathname.split("/").at(-1)!);
      if (!isBlob(url.pathname) || bytes === undefined || bytes.length < 10_000) return false;
      const changed = Buffer.from(bytes);
      changed[changed.length - 1]! ^= 1;
      response.writeHead(200, { "content-length": changed.length }).end(changed);
      return true;
    },
    message:
      /filesystem layer verification failed for digest sha256:[0-9a-f]{64}|unexpected|invalid|checksum/,
    status: 200,
  },
  {
    what: "has lost a layer",
    script: ({ url, response }) => {
      const bytes = registry.blobs.get(url.pathname.split("/").at(-1)!);
      if (!isBlob(url.pathname) || bytes === undefined || bytes.length < 10_000) return false;
      sendError(response, 404, "BLOB_UNKNOWN", "blob unknown to registry");
      return true;
    },
    message: /unknown blob|blob unknown/,
    status: 200,
  },
];

async function refusedByClient(name: string, message: RegExp): Promise<void> {
  const pull = await client.run(["pull", name]);
  assert.match(pull.stderr, message);
  assert.equal(pull.code, 1);
  const run = await client.run(["run", "--rm", name, "true"]);
  assert.match(run.stderr, message);
  assert.equal(run.code, 125);
}

for (const { what, script, reference = "a/b:tag", message, status, slow } of lies) {
  test(`a registry that ${what}`, async () => {
    registry.script = script;
    const name = `${registry.address}/${reference}`;
    if (slow !== true) await refusedByClient(name, message);
    const answer = await call(daemon.socket, "POST", `/images/create?fromImage=${encodeURIComponent(name)}`);
    assert.match(answer.text, message);
    assert.equal(answer.status, status, answer.text);
    if (status === 200) {
      const last = JSON.parse(answer.text.trim().split("\n").at(-1)!) as {
        error?: string;
        errorDetail?: object;
      };
      assert.match(last.error ?? "", message);
      assert.ok(last.errorDetail);
    }
    assert.equal(await client.out("images", "-aq"), "");
    assert.equal(await client.out("ps", "-aq"), "");
    assert.deepEqual(await leftOver(daemon, { partialsMayStay: true }), []);
  });
}

test("a registry that is away", async () => {
  const address = `127.0.0.1:${await freePort()}`;
  const pull = await client.run(["pull", `${address}/a/b:tag`]);
  assert.equal(pull.code, 1);
  assert.match(pull.stderr, new RegExp(`dial tcp ${address}: connect: connection refused`));
  const run = await client.run(["run", "--rm", `${address}/a/b:tag`]);
  assert.equal(run.code, 125);
  assert.deepEqual(await leftOver(daemon, { partialsMayStay: true }), []);
});

test("once the registry is honest the same pull works", async () => {
  registry.script = () => false;
  await client.out("pull", "-q", `${registry.address}/a/b:tag`);
  await client.out("rmi", `${registry.address}/a/b:tag`);
  assert.deepEqual(await leftOver(daemon), []);
});
