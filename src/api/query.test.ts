import assert from "node:assert/strict";
import { test } from "node:test";
import { parseQuery } from "./query.ts";

test("keys and values as Go reads them", () => {
  const query = parseQuery("a=1&a=2&b&c=x+y%2Fz&&d=a=b&%C3%A4=1");
  assert.equal(query.get("a"), "1");
  assert.deepEqual(query.all("a"), ["1", "2"]);
  assert.equal(query.get("b"), "");
  assert.equal(query.get("c"), "x y/z");
  assert.equal(query.get("d"), "a=b");
  assert.equal(query.get("ä"), "1");
  assert.equal(query.get("none"), undefined);
  assert.deepEqual(query.all("none"), []);
});

for (const [text, expected] of [
  ["x=1", true],
  ["x=true", true],
  ["x=yes", true],
  ["x=0", false],
  ["x=False", false],
  ["x=no", false],
  ["x=none", false],
  ["x=", false],
  ["x", false],
  ["", false],
] as const) {
  test(`bool of ${JSON.stringify(text)} is ${expected}`, () =>
    assert.equal(parseQuery(text).bool("x"), expected));
}

test("an absent bool is what the caller says", () => {
  assert.equal(parseQuery("").bool("x", true), true);
  assert.equal(parseQuery("x=0").bool("x", true), false);
});

test("integers", () => {
  assert.equal(parseQuery("x=-12").integer("x"), -12);
  assert.equal(parseQuery("").integer("x", 7), 7);
  assert.equal(parseQuery("x=").integer("x", 7), 7);
  for (const bad of ["x=1a", "x=1.5", "x=9999999999999999999", "x=%20"]) {
    assert.throws(() => parseQuery(bad).integer("x"), {
      kind: "invalid",
      message: /strconv\.ParseInt: parsing/,
    });
  }
});

test("bad escapes are refused", () => {
  assert.throws(() => parseQuery("a=%zz"), { kind: "invalid", message: 'invalid URL escape "%zz"' });
  assert.throws(() => parseQuery("a=%ff"), { kind: "invalid" });
});

test("a key called __proto__ is a key", () => {
  assert.equal(parseQuery("__proto__=1").get("__proto__"), "1");
  assert.equal(parseQuery("a=1").get("toString"), undefined);
});
