import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { encodeFrame, FrameDecoder } from "./stdio-frames.ts";

test("the header is Docker's", () => {
  assert.deepEqual([...encodeFrame("stderr", Buffer.from("hi"))], [2, 0, 0, 0, 0, 0, 0, 2, 0x68, 0x69]);
});

test("frames come apart as they went together, however they are cut", () => {
  const frame = fc.tuple(fc.constantFrom("stdout", "stderr"), fc.uint8Array({ maxLength: 20 }));
  fc.assert(
    fc.property(
      fc.array(frame, { maxLength: 8 }),
      fc.array(fc.nat(30), { minLength: 1, maxLength: 20 }),
      (frames, cuts) => {
        const bytes = Buffer.concat(
          frames.map(([stream, payload]) => encodeFrame(stream as "stdout", payload)),
        );
        const got = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
        const decoder = new FrameDecoder((stream, part) => got[stream].push(Buffer.from(part)));
        let at = 0;
        for (let index = 0; at < bytes.length; index += 1) {
          const end = at + 1 + cuts[index % cuts.length]!;
          decoder.push(bytes.subarray(at, end));
          at = end;
        }
        for (const stream of ["stdout", "stderr"] as const) {
          const expected = Buffer.concat(
            frames.filter(([name]) => name === stream).map(([, payload]) => payload),
          );
          assert.deepEqual(Buffer.concat(got[stream]), expected);
        }
      },
    ),
  );
});
