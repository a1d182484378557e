import assert from "node:assert/strict";
import { test } from "node:test";
import { fixedTime } from "./logs.ts";

test("timestamps always have nine digits", () => {
  assert.equal(fixedTime("2026-01-02T03:04:05.12Z"), "2026-01-02T03:04:05.120000000Z");
  assert.equal(fixedTime("2026-01-02T03:04:05Z"), "2026-01-02T03:04:05.000000000Z");
  assert.equal(fixedTime("nonsense"), "nonsense");
});
