import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { openRegistry, type Registry, type RequestRecord } from "./registry.ts";

const parts = new AsyncDisposableStack();
const records: RequestRecord[] = [];
const blob = randomBytes(12 * 1024 * 1024);
const digest = `sha256:${createHash("sha256").update(blob).digest("hex")}`;
let root: string;
let registry: Registry;
let port: number;

before(async () => {
  root = mkdtempSync(join(tmpdir(), "skiff-registry-"));
  parts.defer(() => rmSync(root, { recursive: true }));
  registry = await openRegistry({ root, observe: (record) => records.push(record) });
  parts.defer(() => registry.close());
  const server = createServer((request, response) => registry.handle(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  parts.defer(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  port = (server.address() as AddressInfo).port;
  const path = `http://127.0.0.1:${port}/v2/a/blobs/uploads/?digest=${digest}`;
  assert.equal((await fetch(path, { method: "POST", body: blob })).status, 201);
});
after(() => parts.disposeAsync());

/** Files of the registry that this process has open, the database apart. */
function openFiles(): string[] {
  const targets = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return "";
    }
  });
  return targets.filter((target) => target.startsWith(root) && !target.includes("registry.db"));
}

async function eventually(check: () => boolean, what: string): Promise<void> {
  for (const end = performance.now() + 10_000; !check(); await sleep(5)) {
    assert.ok(performance.now() < end, what);
  }
}

async function say(text: string): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => undefined);
  await new Promise<void>((resolve) => socket.write(text, () => resolve()));
  return socket;
}

const get = `GET /v2/a/blobs/${digest} HTTP/1.1\r\nhost: x\r\n\r\n`;

test("a reader that goes away in the midst, with more requests behind, leaves no file open", async () => {
  for (const count of [1, 4]) {
    records.length = 0;
    const socket = await say(get.repeat(count));
    await new Promise((resolve) => socket.once("data", resolve));
    socket.pause();
    await eventually(() => openFiles().length > 0, "the blob is open");
    socket.destroy();
    await eventually(() => openFiles().length === 0, `${openFiles().length} files are still open`);
    await eventually(() => records.length >= 1, "it is recorded");
    const [first] = records;
    assert.deepEqual([first?.route, first?.status], ["blob", 200]);
    assert.ok(first !== undefined && first.bytesOut < blob.length);
  }
});

test("readers that do not read hold two buffers each and no more", async () => {
  const before = process.memoryUsage().arrayBuffers;
  const sockets = await Promise.all(Array.from({ length: 24 }, () => say(get)));
  for (const socket of sockets) socket.pause();
  await eventually(() => openFiles().length === sockets.length, "all are open");
  await sleep(50);
  const held = process.memoryUsage().arrayBuffers - before;
  for (const socket of sockets) socket.destroy();
  await eventually(() => openFiles().length === 0, "all are closed");
  // Sixteen with two pieces of 1 MiB, the others with 256 KiB; the garbage of tests before may be among it.
  assert.ok(held < 48 * 1024 * 1024, `${held} bytes`);
});

test("a refused body is read away, so that the client sees why; one without end is cut off", async () => {
  const path = "/v2/a/manifests/t";
  const head = (length: number) =>
    `PUT ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: ${length}\r\n\r\n`;
  const small = await say(head(6_000_000));
  let answer = "";
  small.on("data", (bytes: Buffer) => {
    answer += bytes.toString();
  });
  await new Promise<void>((resolve) => small.write(Buffer.alloc(6_000_000, " "), () => resolve()));
  await eventually(() => answer.includes('"SIZE_INVALID"'), "the answer came");
  assert.match(answer, /^HTTP\/1\.1 413 /);
  const endless = await say(head(1_000_000_000));
  let sent = 0;
  const closed = new Promise<void>((resolve) => endless.once("close", () => resolve()));
  const more = (): void => {
    while (!endless.destroyed && endless.write(Buffer.alloc(1024 * 1024, " "))) sent += 1;
    if (!endless.destroyed) endless.once("drain", more);
  };
  more();
  await closed;
  assert.ok(sent < 200, `${sent} MiB were taken`);
});

test("closing breaks off what is under way and refuses the rest; a session goes on afterwards", async () => {
  const begun = await fetch(`http://127.0.0.1:${port}/v2/a/blobs/uploads/`, { method: "POST" });
  const upload = begun.headers.get("location")!;
  const socket = await say(`PATCH ${upload} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n0123456789`);
  const status = async () => (await fetch(`http://127.0.0.1:${port}${upload}`)).headers.get("range");
  while ((await status()) !== "0-9") await sleep(5);
  await registry.close();
  assert.equal((await fetch(`http://127.0.0.1:${port}/v2/`)).status, 503);
  registry = await openRegistry({ root });
  assert.equal(await status(), "0-9");
  socket.destroy();
});

test("a web page that a browser has open changes nothing, and reads as anybody", async () => {
  const headers = { origin: "http://example.test" };
  const base = `http://127.0.0.1:${port}/v2/a`;
  const refused = await fetch(`${base}/blobs/uploads/`, { method: "POST", headers });
  assert.deepEqual([refused.status, /DENIED/.test(await refused.text())], [403, true]);
  assert.equal((await fetch(`${base}/blobs/${digest}`, { method: "HEAD", headers })).status, 200);
});

test("a manifest that is refused leaves no repository", async () => {
  const before = registry.store.totals().repositories;
  const body = JSON.stringify({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: {
      mediaType: "application/vnd.oci.image.config.v1+json",
      digest: `sha256:${"0".repeat(64)}`,
      size: 1,
    },
    layers: [],
  });
  const answer = await fetch(`http://127.0.0.1:${port}/v2/tried/manifests/1`, {
    method: "PUT",
    headers: { "content-type": "application/vnd.oci.image.manifest.v1+json" },
    body,
  });
  assert.equal(answer.status, 404);
  assert.equal(registry.store.totals().repositories, before);
});
