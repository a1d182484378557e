import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { sendToUnixSocket } from "./datagram.ts";
import { listenerKind, tcpState } from "./socket-option.ts";

const directory = mkdtempSync(join(tmpdir(), "skiff-socket-"));
test.after(() => rmSync(directory, { recursive: true }));

function fdOf(owner: Server | Socket): number {
  return (owner as unknown as { _handle: { fd: number } })._handle.fd;
}

test("a descriptor is told by what it listens for", async () => {
  const unix = createServer().listen(join(directory, "s"));
  const six = createServer().listen(0, "::1");
  const tcp = createServer((socket) => socket.resume()).listen(0, "127.0.0.1");
  await Promise.all([once(unix, "listening"), once(six, "listening"), once(tcp, "listening")]);
  assert.equal(listenerKind(fdOf(unix)), "unix");
  assert.equal(listenerKind(fdOf(tcp)), "tcp");
  assert.equal(listenerKind(fdOf(six)), "tcp");
  const client = connect((tcp.address() as AddressInfo).port, "127.0.0.1");
  await once(client, "connect");
  assert.equal(listenerKind(fdOf(client)), undefined, "connected, it does not listen");
  assert.equal(listenerKind(-1), undefined);
  assert.equal(listenerKind(99_999), undefined);

  client.end("x");
  await once(client, "close");
  for (const server of [unix, six, tcp]) server.close();
});

test("the kernel's view of a connection", async () => {
  const server = createServer((socket) => socket.pipe(socket)).listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = connect((server.address() as AddressInfo).port, "127.0.0.1");
  await once(client, "connect");
  client.write("there");
  await once(client, "data");
  const before = tcpState(fdOf(client));
  assert.ok(before !== undefined);
  assert.deepEqual([before.retransmits, before.probes], [0, 0]);
  const start = performance.now();
  await new Promise((resolve) => setTimeout(resolve, 60));
  const after = tcpState(fdOf(client));
  assert.ok(after !== undefined && after.lastAckMs >= before.lastAckMs + 40);
  assert.ok(after.lastAckMs <= before.lastAckMs + (performance.now() - start) + 100);
  client.destroy();
  server.close();
  assert.equal(tcpState(-1), undefined);
});

test("a datagram to nobody is an error, not a wait", () => {
  assert.throws(() => sendToUnixSocket(join(directory, "none"), "x"), { errno: "ENOENT" });
  assert.throws(() => sendToUnixSocket("@skiff-nobody-is-here", "x"), { errno: "ECONNREFUSED" });
  assert.throws(() => sendToUnixSocket(`/${"x".repeat(200)}`, "x"), { errno: "ENAMETOOLONG" });
});
