import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Digest } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import {
  canonicalName,
  canonicalString,
  familiarName,
  familiarString,
  isNameOnly,
  matchesPattern,
  parseAnyReference,
  parseReference,
  repositoryOf,
  withDefaultTag,
  withDigest,
  withTag,
} from "./reference.ts";

const hex = "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa";
const digest = `sha256:${hex}`;

/** input → canonical, familiar */
const accepted: readonly (readonly [string, string, string])[] = [
  ["busybox", "docker.io/library/busybox", "busybox"],
  ["busybox:latest", "docker.io/library/busybox:latest", "busybox:latest"],
  ["centos:centos6", "docker.io/library/centos:centos6", "centos:centos6"],
  ["ubuntu:22.04", "docker.io/library/ubuntu:22.04", "ubuntu:22.04"],
  ["library/busybox", "docker.io/library/busybox", "busybox"],
  ["library/busybox:1", "docker.io/library/busybox:1", "busybox:1"],
  ["docker.io/busybox", "docker.io/library/busybox", "busybox"],
  ["docker.io/library/busybox", "docker.io/library/busybox", "busybox"],
  ["index.docker.io/busybox", "docker.io/library/busybox", "busybox"],
  ["index.docker.io/library/busybox:1", "docker.io/library/busybox:1", "busybox:1"],
  ["registry.hub.docker.com/busybox", "docker.io/library/busybox", "busybox"],
  ["registry.hub.docker.com/library/busybox:1", "docker.io/library/busybox:1", "busybox:1"],
  ["registry-1.docker.io/me/app", "docker.io/me/app", "me/app"],
  ["me/app", "docker.io/me/app", "me/app"],
  ["me/app:v1.2_3-4", "docker.io/me/app:v1.2_3-4", "me/app:v1.2_3-4"],
  ["a/b/c", "docker.io/a/b/c", "a/b/c"],
  ["library/a/b", "docker.io/library/a/b", "library/a/b"],
  ["localhost/app", "localhost/app", "localhost/app"],
  ["localhost:5000/app", "localhost:5000/app", "localhost:5000/app"],
  ["localhost:5000/app:tag", "localhost:5000/app:tag", "localhost:5000/app:tag"],
  ["localhost:80", "docker.io/library/localhost:80", "localhost:80"],
  ["localhost", "docker.io/library/localhost", "localhost"],
  ["host:5000/path:tag", "host:5000/path:tag", "host:5000/path:tag"],
  ["host:5000/a/b:tag", "host:5000/a/b:tag", "host:5000/a/b:tag"],
  ["127.0.0.1:5000/x", "127.0.0.1:5000/x", "127.0.0.1:5000/x"],
  ["[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"],
  ["[fe80::1]/x:y", "[fe80::1]/x:y", "[fe80::1]/x:y"],
  ["example.com/x", "example.com/x", "example.com/x"],
  ["example.com/library/x", "example.com/library/x", "example.com/library/x"],
  ["EXAMPLE.com/x", "EXAMPLE.com/x", "EXAMPLE.com/x"],
  ["Host/x", "Host/x", "Host/x"],
  ["a.b/x", "a.b/x", "a.b/x"],
  ["a-b/x", "docker.io/a-b/x", "a-b/x"],
  ["xn--n3h.com/myimage", "xn--n3h.com/myimage", "xn--n3h.com/myimage"],
  ["a__b/c", "docker.io/a__b/c", "a__b/c"],
  ["a--b", "docker.io/library/a--b", "a--b"],
  ["a---b/c", "docker.io/a---b/c", "a---b/c"],
  ["a.b", "docker.io/library/a.b", "a.b"],
  ["a_b:c", "docker.io/library/a_b:c", "a_b:c"],
  ["1", "docker.io/library/1", "1"],
  ["0a/1b", "docker.io/0a/1b", "0a/1b"],
  ["x:_", "docker.io/library/x:_", "x:_"],
  ["x:T", "docker.io/library/x:T", "x:T"],
  ["x:A.b-c_d", "docker.io/library/x:A.b-c_d", "x:A.b-c_d"],
  [`x:${"t".repeat(128)}`, `docker.io/library/x:${"t".repeat(128)}`, `x:${"t".repeat(128)}`],
  [`busybox@${digest}`, `docker.io/library/busybox@${digest}`, `busybox@${digest}`],
  [`busybox:1@${digest}`, `docker.io/library/busybox:1@${digest}`, `busybox:1@${digest}`],
  [`host:5000/path:tag@${digest}`, `host:5000/path:tag@${digest}`, `host:5000/path:tag@${digest}`],
  [`host:5000/path@${digest}`, `host:5000/path@${digest}`, `host:5000/path@${digest}`],
  [hex.slice(1), `docker.io/library/${hex.slice(1)}`, hex.slice(1)],
  [`${hex}a`, `docker.io/library/${hex}a`, `${hex}a`],
  [`me/${hex}`, `docker.io/me/${hex}`, `me/${hex}`],
  [`${hex}:tag`, `docker.io/library/${hex}:tag`, `${hex}:tag`],
  ["sha256:abc", "docker.io/library/sha256:abc", "sha256:abc"],
  ["a".repeat(237), `docker.io/library/${"a".repeat(237)}`, "a".repeat(237)],
  ["docker.io/docker.io/x", "docker.io/docker.io/x", "docker.io/x"],
];

const format = "invalid reference format";
const rejected: readonly (readonly [string, string])[] = [
  ["", format],
  [" ", format],
  ["busybox ", format],
  [" busybox", format],
  ["busy box", format],
  ["busybox\n", format],
  ["busybox\0", format],
  [":tag", format],
  ["@sha256:abc", format],
  ["busybox:", format],
  ["busybox@", format],
  ["busybox:tag:tag", format],
  ["busybox:-tag", format],
  ["busybox:.tag", format],
  ["busybox:tag/", format],
  [`busybox:${"t".repeat(129)}`, format],
  ["busybox:tägg", format],
  ["/busybox", format],
  ["busybox/", format],
  ["a//b", format],
  ["a/../b", format],
  ["../a", format],
  ["a/./b", format],
  ["./a", format],
  ["..", format],
  ["-a", format],
  ["a-", format],
  ["_a", format],
  ["a_", format],
  [".a", format],
  ["a.", format],
  ["a..b", format],
  ["a___b", format],
  ["a._b", format],
  ["me/-app", format],
  ["me/app-", format],
  ["-host.com/x", format],
  ["host-.com/x", format],
  ["host.com:/x", format],
  ["host.com:port/x", format],
  ["host.com:5000/", format],
  ["host.com:5000", ""],
  ["[::1]", format],
  ["[::g]:5/x", format],
  ["https://host/x", format],
  ["http://localhost:5000/x", format],
  ["host:5000/path@sha256:short", format],
  ["a$b", format],
  ["a*", format],
  ["a?b", format],
  ["a;b", format],
  ["a%2fb", format],
  ["a\\b", format],
  ["-f", format],
  ["--help", format],
  ["Foo", `${format}: repository name (library/Foo) must be lowercase`],
  ["busyBox:tag", `${format}: repository name (library/busyBox) must be lowercase`],
  ["me/App", `${format}: repository name (me/App) must be lowercase`],
  ["docker.io/Foo", `${format}: repository name (library/Foo) must be lowercase`],
  ["host:5000/Foo", `${format}: repository name (Foo) must be lowercase`],
  ["Host/Foo", `${format}: repository name (Foo) must be lowercase`],
  [hex, `invalid repository name (${hex}), cannot specify 64-byte hexadecimal strings`],
  [`x@sha256:${hex.slice(1)}`, "invalid checksum digest length"],
  [`x@sha256:${hex}a`, "invalid checksum digest length"],
  [`x@sha256:${hex.slice(2).toUpperCase()}AB`, "invalid checksum digest format"],
  [`x@md5:${hex.slice(32)}`, "unsupported digest algorithm"],
  [`x@sha512:${hex}${hex}`, "unsupported digest algorithm"],
  ["a".repeat(238), `${format}: repository name must not be more than 255 characters`],
  [`host.com/${"a/".repeat(130)}b`, `${format}: repository name must not be more than 255 characters`],
  ["x".repeat(5000), format],
];

test("accepted names have Docker's canonical and familiar forms", () => {
  for (const [input, canonical, familiar] of accepted) {
    const reference = parseReference(input);
    assert.equal(canonicalString(reference), canonical, input);
    assert.equal(familiarString(reference), familiar, input);
  }
});

test("rejected names carry Docker's text", () => {
  for (const [input, message] of rejected) {
    if (message === "") {
      assert.equal(canonicalString(parseReference(input)), `docker.io/library/${input}`);
      continue;
    }
    assert.throws(
      () => parseReference(input),
      (error) => error instanceof EngineError && error.kind === "invalid" && error.message === message,
      `${JSON.stringify(input)} → ${message}`,
    );
  }
});

test("the table is as long as it is meant to be", () => {
  assert.ok(accepted.length + rejected.length >= 120);
});

test("ids and digests are not names", () => {
  assert.deepEqual(parseAnyReference(hex), { kind: "id", digest });
  assert.deepEqual(parseAnyReference(digest), { kind: "id", digest });
  assert.equal(parseAnyReference(hex.slice(0, 12)).kind, "name");
  assert.throws(() => parseAnyReference(`${digest}x y`));
});

test("tags and digests are replaced, not added", () => {
  const reference = parseReference("a:b");
  assert.equal(familiarString(withTag(reference, "c")), "a:c");
  assert.equal(familiarString(withDigest(reference, digest as Digest)), `a@${digest}`);
  assert.equal(familiarString(withDefaultTag(repositoryOf(reference))), "a:latest");
  assert.equal(familiarString(withDefaultTag(reference)), "a:b");
  assert.equal(isNameOnly(repositoryOf(reference)), true);
  assert.equal(isNameOnly(reference), false);
  assert.throws(() => withTag(reference, "-c"), { message: "invalid tag format" });
});

test("the reference filter matches as Go's path.Match", () => {
  const cases: readonly (readonly [string, string, boolean])[] = [
    ["busybox", "busybox:latest", true],
    ["busybox:latest", "busybox:latest", true],
    ["busy*", "busybox:latest", true],
    ["*:latest", "busybox:latest", true],
    ["*", "me/app:1", false],
    ["*/*", "me/app:1", true],
    ["me/*", "me/app:1", true],
    ["*/app", "me/app:1", true],
    ["b?sybox", "busybox:1", true],
    ["b[a-z]sybox", "busybox:1", true],
    ["b[^u]sybox", "busybox:1", false],
    ["b[^x]sybox", "busybox:1", true],
    ["busy\\*", "busybox:1", false],
    ["*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaa:1", false],
    ["", "busybox:1", false],
    ["**x", "busybox:1", true],
  ];
  for (const [pattern, name, expected] of cases) {
    assert.equal(matchesPattern(pattern, parseReference(name)), expected, `${pattern} on ${name}`);
  }
  for (const broken of ["[", "[]", "a[b", "a\\", "[a-]", "[-a]", "[^]"]) {
    assert.throws(() => matchesPattern(broken, parseReference("x")), { message: "syntax error in pattern" });
  }
  const evil = `${"*a".repeat(60)}b`;
  const started = performance.now();
  assert.equal(matchesPattern(evil, parseReference("a".repeat(200))), false);
  assert.ok(performance.now() - started < 2000);
});

const component = fc.stringMatching(/^[a-z0-9]{1,8}(?:(?:[._]|__|-{1,3})[a-z0-9]{1,8}){0,2}$/);
const domain = fc.oneof(
  fc.constant("docker.io"),
  fc.constant("localhost:5000"),
  fc.stringMatching(/^[a-z]{1,6}\.[a-z]{2,4}(?::[0-9]{1,5})?$/),
);
const tag = fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}$/);

test("parse is the inverse of both spellings", () => {
  fc.assert(
    fc.property(
      domain,
      fc.array(component, { minLength: 1, maxLength: 4 }),
      fc.option(tag),
      fc.boolean(),
      (host, parts, name, digested) => {
        const path = parts.join("/");
        const text = `${host}/${path}${name === null ? "" : `:${name}`}${digested ? `@${digest}` : ""}`;
        const first = parseReference(text);
        assert.deepEqual(parseReference(canonicalString(first)), first);
        // Docker's own quirk: a hub path whose first component looks like a registry has no familiar form.
        const lead = first.path.split("/")[0] ?? "";
        if (first.domain === "docker.io" && /[.]|^localhost$/.test(lead)) return;
        assert.deepEqual(parseReference(familiarString(first)), first);
        assert.equal(canonicalName(first).endsWith(familiarName(first)), true);
      },
    ),
    { numRuns: 2000 },
  );
});

test("any text gives a reference that prints and parses back, or Docker's error", () => {
  const piece = fc.oneof(
    fc.constantFrom("/", ":", "@", ".", "-", "_", "a", "B", "0", "sha256:", hex, "localhost", "[::1]", " "),
    fc.string({ maxLength: 4 }),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 10 }), (pieces) => {
      const text = pieces.join("");
      try {
        const reference = parseReference(text);
        assert.deepEqual(parseReference(canonicalString(reference)), reference);
        assert.ok(!/[\s\0]|\/\//.test(canonicalString(reference)));
        // A tag may have two dots, as in Docker: after its first character it is the end of a name, never a directory's.
        assert.ok(!canonicalName(reference).includes(".."));
        assert.ok(canonicalName(reference).length <= 255);
      } catch (error) {
        assert.ok(error instanceof EngineError && error.kind === "invalid", String(error));
      }
    }),
    { numRuns: 5000 },
  );
});
