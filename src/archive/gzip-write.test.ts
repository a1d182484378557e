import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { GzipWriter } from "./gzip-write.ts";

function compress(bytes: Buffer, pieceBytes: number): Buffer {
  const pieces: Buffer[] = [];
  using writer = new GzipWriter((chunk) => pieces.push(Buffer.from(chunk)));
  for (let at = 0; at < bytes.length; at += pieceBytes) writer.push(bytes.subarray(at, at + pieceBytes));
  writer.finish();
  return Buffer.concat(pieces);
}

test("what is compressed comes back, whatever the pieces", () => {
  const mixed = Buffer.concat([Buffer.alloc(900_000, "layer "), randomBytes(900_000), Buffer.alloc(1)]);
  for (const bytes of [Buffer.alloc(0), Buffer.from("x"), mixed]) {
    for (const piece of [7_001, 262_144, 4_000_000]) {
      assert.ok(gunzipSync(compress(bytes, piece)).equals(bytes), `${bytes.length} in ${piece}`);
    }
  }
});

test("the same input gives the same bytes", () => {
  const bytes = Buffer.alloc(300_000, "abc");
  assert.ok(compress(bytes, 1000).equals(compress(bytes, 1000)));
});
