import assert from "node:assert/strict";
import test from "node:test";
import { releaseBytes } from "./release-bytes.ts";

test("bytes that have their buffer to themselves are released, others stay", () => {
  const own = new Uint8Array(100_000);
  releaseBytes(own);
  assert.equal(own.length, 0);
  assert.equal(own.buffer.byteLength, 0);
  const whole = new Uint8Array(100).fill(7);
  const part = whole.subarray(1);
  releaseBytes(part);
  assert.deepEqual([part.length, whole[5]], [99, 7]);
  const shared = new Uint8Array(new SharedArrayBuffer(8));
  releaseBytes(shared);
  assert.equal(shared.length, 8);
  releaseBytes(new Uint8Array(0));
});
