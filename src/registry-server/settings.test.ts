import assert from "node:assert/strict";
import { test } from "node:test";
import { parseListen, parseTime, processDefaults, readSettings } from "./settings.ts";

const read = (given: Record<string, unknown>) => readSettings(given, processDefaults);

test("nothing given: loopback, a grace of an hour, no collections of its own", () => {
  const settings = read({});
  assert.deepEqual(settings.listen, { host: "127.0.0.1", port: 5000 });
  assert.deepEqual([settings.gcIntervalMs, settings.gcGraceMs, settings.accessLog], [0, 3_600_000, "-"]);
  assert.deepEqual([settings.readOnly, settings.issueTokens, settings.tls], [false, false, undefined]);
});

test("texts and native values mean the same", () => {
  const texts = read({ "read-only": "true", "max-connections": "7", "gc-interval": "90m" });
  const natives = read({ "read-only": true, "max-connections": 7, "gc-interval": "1h30m" });
  assert.deepEqual(texts, natives);
  assert.equal(read({ htpasswd: "/u", "anonymous-pull": true }).issueTokens, true);
});

const addresses: readonly (readonly [string, string | undefined])[] = [
  ["5000", "127.0.0.1 5000"],
  [":5000", "127.0.0.1 5000"],
  ["0.0.0.0:80", "0.0.0.0 80"],
  ["[::1]:5000", "::1 5000"],
  ["registry.example:443", "registry.example 443"],
  ["::1:5000", undefined],
  ["[x]:1", undefined],
  ["localhost", undefined],
  ["a b:1", undefined],
  ["h:65536", undefined],
  ["http://h:1", undefined],
];
for (const [text, expected] of addresses) {
  test(`address ${text}`, () => {
    const found = parseListen(text);
    assert.equal(found && `${found.host} ${found.port}`, expected);
  });
}

const times: readonly (readonly [string, number | undefined])[] = [
  ["0", 0],
  ["250ms", 250],
  ["1.5s", 1500],
  ["1h30m", 5_400_000],
  ["10", undefined],
  ["-1s", undefined],
  ["1d", undefined],
  ["", undefined],
];
for (const [text, expected] of times) test(`time ${text}`, () => assert.equal(parseTime(text), expected));

const refused: readonly (readonly [Record<string, unknown>, RegExp])[] = [
  [{ listen: "0.0.0.0:5000" }, /not loopback and there is no TLS: give --tls-cert/],
  [{ listen: "example.org:5000" }, /not loopback/],
  [{ listen: "127.0.0.1.example.org:5000" }, /not loopback/],
  [{ listen: "x" }, /not HOST:PORT/],
  [{ "tls-cert": "/c" }, /tls-cert and tls-key belong together/],
  [{ "token-realm": "http://t/" }, /belong together/],
  [{ "token-realm": 'http://t/"x' }, /quotes/],
  [{ "token-realm": "ftp://t/" }, /no http or https URL/],
  [{ "token-service": "a\r\nx: y" }, /plain ASCII/],
  [{ acl: "/a" }, /acl needs htpasswd/],
  [{ "anonymous-pull": true }, /anonymous-pull needs htpasswd/],
  [{ "issue-tokens": "true" }, /issue-tokens needs htpasswd/],
  [{ "max-connections": 0 }, /from 1 to/],
  [{ "max-connections": "many" }, /must be a whole number/],
  [{ "read-only": "yes" }, /must be true or false/],
  [{ "gc-interval": "1d" }, /no time such as/],
  [{ "log-level": "loud" }, /none of/],
  [{ listn: "x", "gc-grace": "x" }, /listn is no setting of the registry; .*gc-grace/],
  [
    {
      htpasswd: "/u",
      "token-realm": "https://t/",
      "token-service": "s",
      "token-issuer": "i",
      "token-keys": "/k",
    },
    /exclude each other/,
  ],
];
for (const [given, message] of refused) {
  test(`refused: ${JSON.stringify(given).slice(0, 60)}`, () => assert.throws(() => read(given), { message }));
}

test("what is loud enough is taken", () => {
  assert.equal(read({ listen: "0.0.0.0:5000", "insecure-plain-http": true }).listen.host, "0.0.0.0");
  const tls = { "tls-cert": "/c", "tls-key": "/k" };
  assert.deepEqual(read({ listen: "0.0.0.0:5000", ...tls }).tls, { certificate: "/c", key: "/k" });
  assert.equal(read({ listen: "127.9.9.9:5000" }).listen.host, "127.9.9.9");
});
