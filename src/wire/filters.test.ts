import assert from "node:assert/strict";
import { test } from "node:test";
import {
  filterPattern,
  hasLabel,
  matchLabels,
  parseFilters,
  parseGoDuration,
  parseInstant,
} from "./filters.ts";

const accepted = new Set(["name", "label"]);

test("both spellings, and nothing", () => {
  assert.deepEqual([...parseFilters('{"name":["a","b"]}', accepted)], [["name", ["a", "b"]]]);
  assert.deepEqual([...parseFilters('{"name":{"a":true,"b":false}}', accepted)], [["name", ["a"]]]);
  for (const text of [undefined, "", "null", "{}"]) assert.equal(parseFilters(text, accepted).size, 0);
});

test("bad filters are refused", () => {
  assert.throws(() => parseFilters('{"foo":["a"]}', accepted), {
    message: "invalid filter 'foo'",
    kind: "invalid",
  });
  for (const text of ["{", "[]", '"x"', '{"name":1}', '{"name":[1]}', '{"__proto__":["a"]}']) {
    assert.throws(() => parseFilters(text, accepted), { kind: "invalid" }, text);
  }
});

test("labels", () => {
  const labels = { a: "1", b: "" };
  assert.equal(hasLabel("a", labels), true);
  assert.equal(hasLabel("a=1", labels), true);
  assert.equal(hasLabel("a=2", labels), false);
  assert.equal(hasLabel("constructor", labels), false);
  assert.equal(matchLabels(["a", "b="], labels), true);
  assert.equal(matchLabels(["a", "c"], labels), false);
  assert.equal(matchLabels(["a"], null), false);
});

test("patterns: parts, regular expressions, and none that may run for ever", () => {
  assert.equal(filterPattern("name", "eb")("web1"), true);
  assert.equal(filterPattern("name", "^/?web\\d$")("web1"), true);
  assert.equal(filterPattern("name", "^eb")("web1"), false);
  assert.equal(filterPattern("name", "(")("("), true);
  for (const text of ["(a+)+$", "(?=a)", "a*b*c*d*e*", "(a)\\1"]) {
    assert.throws(() => filterPattern("name", text), { kind: "invalid" }, text);
  }
});

test("instants and durations", () => {
  const now = 1_000_000_000_000_000_000n;
  assert.equal(parseInstant("1700000000", now), 1_700_000_000_000_000_000n);
  assert.equal(parseInstant("1700000000.5", now), 1_700_000_000_500_000_000n);
  assert.equal(parseInstant("2001-09-09T01:46:40Z", now), now);
  assert.equal(parseInstant("2001-09-09T01:46:40.25Z", now), now + 250_000_000n);
  assert.equal(parseInstant("10m", now), now - 600_000_000_000n);
  assert.equal(parseGoDuration("1h30m1.5s"), 5_401_500_000_000n);
  for (const bad of ["yesterday", "10", "1x", ""]) assert.equal(parseGoDuration(bad), undefined, bad);
  assert.equal(parseInstant("yesterday", now), undefined);
});
