import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  encodeFrame,
  type Frame,
  type FrameKind,
  frameKinds,
  SessionDecoder,
  secretBytesMax,
} from "./build-session.ts";

test("frames come out as they went in, however the stream is cut", () => {
  const frame = fc.record({
    kind: fc.constantFrom(...(Object.keys(frameKinds) as FrameKind[])),
    channel: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    payload: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  });
  fc.assert(
    fc.property(fc.array(frame), fc.integer({ min: 1, max: 50 }), (frames, size) => {
      const wire = Buffer.concat(
        frames.map(({ kind, channel, payload }) => encodeFrame(kind, channel, payload)),
      );
      const found: Frame[] = [];
      const decoder = new SessionDecoder((one) => found.push({ ...one, payload: Buffer.from(one.payload) }));
      for (let at = 0; at < wire.length; at += size) decoder.push(wire.subarray(at, at + size));
      assert.deepEqual(
        found,
        frames.map((one) => ({ ...one })),
      );
    }),
  );
});

test("what is no frame, or too long, is refused before it is read", () => {
  const decoder = (): SessionDecoder => new SessionDecoder(() => {});
  assert.throws(() => decoder().push(Buffer.alloc(9, 99)), { code: "bad-frame" });
  const long = encodeFrame("value", 1);
  long.writeUInt32BE(secretBytesMax + 1, 5);
  assert.throws(() => decoder().push(long), { code: "bad-frame" });
});
