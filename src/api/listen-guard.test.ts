import assert from "node:assert/strict";
import { test } from "node:test";
import { foreignRequest, type Guard } from "./listen-guard.ts";
import { parseHead } from "./listen-head.ts";

const tcp: Guard = { isOwnName: (name) => name === "build.example" || name === "build", encrypted: false };
const tls: Guard = { ...tcp, encrypted: true };
const unix: Guard = { isOwnName: undefined, encrypted: false };

function refused(guard: Guard, headers: readonly string[], target = "/info", version = "1.1"): boolean {
  const head = parseHead(`GET ${target} HTTP/${version}\r\n${headers.join("\r\n")}\r\n\r\n`);
  return foreignRequest(head, guard) !== undefined;
}

for (const [host, foreign] of [
  ["127.0.0.1:2375", false],
  ["192.168.1.7", false],
  ["[::1]:2375", false],
  ["[fe80::1]", false],
  ["localhost", false],
  ["localhost:2375", false],
  ["LOCALHOST.:2375", false],
  ["api.moby.localhost", false],
  ["build.example:2375", false],
  ["Build", false],
  ["build.example.", false],
  ["evil.example", true],
  ["evil.example:2375", true],
  ["build.example.evil", true],
  ["localhost.evil.example", true],
  ["127.0.0.1.evil.example", true],
  ["evil-localhost", true],
  ["127.0.0.1@evil.example", true],
  ["localhost,evil.example", true],
  ["", true],
] as const) {
  test(`Host ${JSON.stringify(host)} over TCP is ${foreign ? "foreign" : "ours"}`, () => {
    assert.equal(refused(tcp, [`Host: ${host}`]), foreign);
    assert.equal(refused(unix, [`Host: ${host}`]), false);
  });
}

test("a request without a host is refused over TCP", () => {
  assert.equal(refused(tcp, ["Accept: */*"], "/info", "1.0"), true);
  assert.equal(refused(unix, ["Accept: */*"], "/info", "1.0"), false);
});

test("a target in absolute form counts as a second host", () => {
  assert.equal(refused(tcp, ["Host: localhost"], "http://localhost/info"), false);
  assert.equal(refused(tcp, ["Host: localhost"], "http://evil.example/info"), true);
});

for (const [origin, plainForeign, tlsForeign] of [
  ["http://localhost:2375", false, true],
  ["https://localhost:2375", true, false],
  ["http://localhost", true, true],
  ["http://evil.example", true, true],
  ["http://localhost:2375.evil.example", true, true],
  ["null", true, true],
  ["file://", true, true],
  ["", true, true],
] as const) {
  test(`Origin ${JSON.stringify(origin)} is told by scheme, host and port`, () => {
    const headers = ["Host: localhost:2375", `Origin: ${origin}`];
    assert.equal(refused(tcp, headers), plainForeign);
    assert.equal(refused(tls, headers), tlsForeign);
    assert.equal(refused(unix, headers), false);
  });
}

for (const [site, foreign] of [
  ["same-origin", false],
  ["none", false],
  ["cross-site", true],
  ["same-site", true],
  ["Cross-Site", true],
  ["", true],
] as const) {
  test(`Sec-Fetch-Site ${JSON.stringify(site)} counts on every listener`, () => {
    const headers = ["Host: localhost", `Sec-Fetch-Site: ${site}`];
    for (const guard of [tcp, tls, unix]) assert.equal(refused(guard, headers), foreign);
  });
}

test("what is refused is told in one bounded line", () => {
  const head = parseHead(`GET / HTTP/1.1\r\nHost: ${"x".repeat(5000)}\u001b[31m\r\n\r\n`);
  const text = foreignRequest(head, tcp) ?? "";
  assert.ok(text.length < 400);
  assert.match(text, /^request refused: Host "x+" is foreign to this daemon$/);
});
