import assert from "node:assert/strict";
import { it } from "node:test";
import { limits } from "#base/limits.ts";
import { FrameReader, FrameWriter, frameTypes, tags } from "./shim-protocol.ts";

it("frames survive the way through a byte stream, whatever its chunks are", () => {
  const first = new FrameWriter(frameTypes.signal)
    .number(tags.signal, 9)
    .number(tags.sequence, 2n ** 40n)
    .finish();
  const second = new FrameWriter(frameTypes.execExited)
    .text(tags.id, "ü")
    .number(tags.exitCode, 137)
    .finish();
  const bytes = Buffer.concat([first, second]);
  for (let size = 1; size <= bytes.length; size += 1) {
    const reader = new FrameReader();
    const frames = [];
    for (let at = 0; at < bytes.length; at += size) {
      reader.push(bytes.subarray(at, at + size));
      for (let frame = reader.next(); frame !== undefined; frame = reader.next()) frames.push(frame);
    }
    assert.equal(frames.length, 2);
    assert.equal(frames[0]?.number(tags.signal), 9);
    assert.equal(frames[0]?.bigint(tags.sequence), 2n ** 40n);
    assert.equal(frames[1]?.text(tags.id), "ü");
    assert.equal(frames[1]?.number(tags.exitCode), 137);
    assert.equal(frames[1]?.has(tags.text), false);
  }
});

it("the bytes on the wire are those that native/frame.h describes", () => {
  const frame = new FrameWriter(frameTypes.resize).number(tags.rows, 0x0102).text(tags.text, "ab").finish();
  assert.equal(frame.toString("hex"), "150000000c2008000000020100000000000" + "01c020000006162");
});

it("negative numbers are two's complement", () => {
  const frame = new FrameWriter(frameTypes.launch).number(tags.oomScore, -500).finish();
  const reader = new FrameReader();
  reader.push(frame);
  assert.equal(BigInt.asIntN(64, reader.next()?.bigint(tags.oomScore) ?? 0n), -500n);
});

it("refuses what cannot be sent", () => {
  assert.throws(() => new FrameWriter(frameTypes.openExec).text(tags.argument, "a\0b"), { code: "nul-byte" });
  const long = new FrameWriter(frameTypes.openExec).text(tags.argument, "x".repeat(limits.shimFrameBytesMax));
  assert.throws(() => long.finish(), { code: "frame-too-long" });
});

it("refuses frames that are none", () => {
  for (const hex of [
    "00000000",
    "ffffffff",
    "01001000" + "00",
    "0600000004" + "09ffffffff",
    "0300000004" + "0901",
  ]) {
    const reader = new FrameReader();
    reader.push(Buffer.from(hex, "hex"));
    assert.throws(() => reader.next(), { code: "shim-protocol" }, hex);
  }
});
