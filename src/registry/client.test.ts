import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { EngineError } from "#base/errors.ts";
import { parseChallenges } from "./challenge.ts";
import { decodeRegistryAuth } from "./credentials.ts";
import { endpointsFor, isInsecure, validateMirror } from "./endpoints.ts";
import { isLinkLocal } from "./link-local.ts";
import { plainText } from "./registry-error.ts";
import { retryAfterMs } from "./timing.ts";

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");

test("X-Registry-Auth", () => {
  assert.equal(decodeRegistryAuth(undefined), undefined);
  assert.equal(decodeRegistryAuth(""), undefined);
  assert.equal(decodeRegistryAuth("e30="), undefined);
  assert.equal(decodeRegistryAuth(encode(null)), undefined);
  assert.equal(decodeRegistryAuth(encode({ username: "u", password: "p" }))?.password, "p");
  assert.equal(decodeRegistryAuth(encode({ Username: "u", PassWord: "p" }))?.username, "u");
  const packed = Buffer.from("u:p:q").toString("base64");
  assert.deepEqual(
    [
      decodeRegistryAuth(encode({ auth: packed }))?.username,
      decodeRegistryAuth(encode({ auth: packed }))?.password,
    ],
    ["u", "p:q"],
  );
  // Standard base64 with padding, as older clients send it.
  const standard = Buffer.from(JSON.stringify({ username: "u>?", password: "p" })).toString("base64");
  assert.equal(decodeRegistryAuth(standard)?.username, "u>?");
  for (const bad of ["{}", "!!!", encode([]), encode("x"), encode({ username: 5 }), "A".repeat(70_000)]) {
    assert.throws(() => decodeRegistryAuth(bad), EngineError, bad.slice(0, 20));
  }
});

test("challenges", () => {
  const one = parseChallenges(
    'Bearer realm="https://a/token",service="s",scope="repository:x:pull,push"',
  )[0]!;
  assert.equal(one.scheme, "bearer");
  assert.equal(one.parameters.get("realm"), "https://a/token");
  assert.equal(one.parameters.get("scope"), "repository:x:pull,push");
  const two = parseChallenges('Basic realm="a, b", Bearer realm="c", error = insufficient_scope');
  assert.deepEqual(
    two.map(({ scheme }) => scheme),
    ["basic", "bearer"],
  );
  assert.equal(two[1]?.parameters.get("error"), "insufficient_scope");
  assert.equal(parseChallenges('Basic realm="a\\"b"')[0]?.parameters.get("realm"), 'a"b');
  assert.deepEqual(parseChallenges(undefined), []);
  assert.deepEqual(parseChallenges("x".repeat(20_000)), []);
  fc.assert(fc.property(fc.string({ maxLength: 60 }), (text) => parseChallenges(text).length <= 60));
  fc.assert(
    fc.property(fc.array(fc.constantFrom("Bearer ", "realm=", '"', ",", "=", " ", "a", "\\")), (parts) => {
      parseChallenges(parts.join(""));
    }),
  );
});

test("where a registry is looked for", () => {
  const bases = (domain: string, config = {}): string[] =>
    endpointsFor(domain, { mirrors: [], insecureRegistries: [], ...config }).map(({ base }) => base);
  assert.deepEqual(bases("docker.io"), ["https://registry-1.docker.io"]);
  assert.deepEqual(bases("docker.io", { mirrors: ["http://m:5000/"] }), [
    "http://m:5000",
    "https://registry-1.docker.io",
  ]);
  assert.deepEqual(bases("example.com", { mirrors: ["http://m:5000/"] }), ["https://example.com"]);
  assert.deepEqual(bases("localhost:5000"), ["https://localhost:5000", "http://localhost:5000"]);
  assert.deepEqual(bases("r.lan:5000", { insecureRegistries: ["r.lan:5000"] }).length, 2);
  assert.deepEqual(bases("10.1.2.3:5000", { insecureRegistries: ["10.0.0.0/8"] }).length, 2);
  assert.deepEqual(bases("11.1.2.3:5000", { insecureRegistries: ["10.0.0.0/8"] }).length, 1);
});

test("which registries are insecure", () => {
  const yes: readonly (readonly [string, readonly string[]])[] = [
    ["localhost", []],
    ["localhost:1", []],
    ["127.0.0.1:5000", []],
    ["127.9.9.9", []],
    ["[::1]:5000", []],
    ["a.b", ["a.b"]],
    ["a.b:1", ["a.b"]],
    ["[fd00::5]:1", ["fd00::/8"]],
  ];
  const no: readonly (readonly [string, readonly string[]])[] = [
    ["128.0.0.1", []],
    ["localhost.evil.com", []],
    ["127.0.0.1.evil.com", []],
    ["a.b:1", ["a.b:2"]],
    ["x.a.b", ["a.b"]],
    ["10.0.0.1", ["10.0.0.0/99"]],
    ["registry-1.docker.io", ["0.0.0.0/0"]],
  ];
  for (const [domain, list] of yes) assert.equal(isInsecure(domain, list), true, domain);
  for (const [domain, list] of no) assert.equal(isInsecure(domain, list), false, domain);
});

test("mirrors are checked as dockerd does", () => {
  assert.equal(validateMirror("https://m.example.com/"), "https://m.example.com");
  assert.equal(validateMirror("http://m:5000/sub/"), "http://m:5000/sub");
  for (const bad of ["m.example.com", "ftp://m/", "http://u:p@m/", "http://m/?q", "http://m/#f"]) {
    assert.throws(() => validateMirror(bad), { message: /^invalid mirror: / });
  }
});

test("small readers", () => {
  for (const address of ["169.254.1.1", "[fe80::1]", "fe80::1%eth0", "::ffff:169.254.169.254"]) {
    assert.equal(isLinkLocal(address), true, address);
  }
  for (const address of ["169.253.1.1", "fd00::1", "example.com", "127.0.0.1"]) {
    assert.equal(isLinkLocal(address), false, address);
  }
  assert.equal(retryAfterMs("3", 0), 3000);
  assert.equal(retryAfterMs("Thu, 01 Jan 1970 00:00:10 GMT", 4000), 6000);
  assert.equal(retryAfterMs("soon", 0), undefined);
  assert.equal(retryAfterMs("-5", 0), undefined);
  assert.equal(plainText("a\u001b[31mb\u202ec\n"), "a [31mb c ");
});
