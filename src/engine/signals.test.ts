import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSignal, stopSignalOf } from "./signals.ts";

test("signals by number and name", () => {
  for (const [text, number] of [
    ["9", 9],
    ["KILL", 9],
    ["sigterm", 15],
    ["SIGHUP", 1],
    ["RTMIN+3", 37],
    ["SIGRTMAX-1", 63],
  ] as const) {
    assert.equal(parseSignal(text), number, text);
  }
  for (const bad of ["", "0", "65", "NOPE", "SIG", "RTMIN+99", "-9", "constructor"]) {
    assert.throws(() => parseSignal(bad), { message: `Invalid signal: ${bad}` });
  }
  assert.equal(stopSignalOf({ StopSignal: "" }), 15);
});
