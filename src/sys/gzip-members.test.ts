import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { MemberGzip } from "./gzip-members.ts";

function compress(bytes: Buffer, pieceBytes: number): Buffer {
  const pieces: Buffer[] = [];
  using writer = MemberGzip.open((chunk) => pieces.push(Buffer.from(chunk)));
  assert.ok(writer !== undefined, "bin/setup installs libdeflate0");
  for (let at = 0; at < bytes.length; at += pieceBytes) writer.push(bytes.subarray(at, at + pieceBytes));
  writer.finish();
  return Buffer.concat(pieces);
}

test("what is compressed comes back, for Node and for gzip, whatever the pieces", () => {
  const mixed = Buffer.concat([Buffer.alloc(1_900_000, "layer "), randomBytes(1_900_000), Buffer.alloc(1)]);
  for (const bytes of [Buffer.alloc(0), Buffer.from("x"), Buffer.alloc(2 * 1024 * 1024, "ab"), mixed]) {
    for (const piece of [7_001, 1024 * 1024, 4_000_000]) {
      const packed = compress(bytes, piece);
      assert.ok(gunzipSync(packed).equals(bytes), `${bytes.length} in ${piece}`);
      const plain = execFileSync("gzip", ["-dc"], { input: packed, maxBuffer: 2 ** 24 });
      assert.ok(plain.equals(bytes), `gzip: ${bytes.length} in ${piece}`);
    }
  }
});

test("the same input gives the same bytes, whatever the pieces", () => {
  const bytes = Buffer.concat([Buffer.alloc(300_000, "abc"), randomBytes(1_000_000)]);
  assert.ok(compress(bytes, 1000).equals(compress(bytes, 77_777)));
});
