import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createCipheriv, createHash, randomBytes } from "node:crypto";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { BlockGzip, gzipBlockBytes, gzipBlockOutputMax } from "./gzip-members.ts";

function open(): BlockGzip {
  const gzip = BlockGzip.open();
  assert.ok(gzip !== undefined, "bin/setup installs libdeflate0");
  return gzip;
}

function compress(gzip: BlockGzip, block: Buffer): Buffer {
  const output = Buffer.alloc(gzipBlockOutputMax);
  return output.subarray(0, gzip.compress(block, output));
}

/** Bytes that nothing can shrink, the same each time. */
function noise(bytes: number): Buffer {
  return createCipheriv("aes-128-ctr", Buffer.alloc(16), Buffer.alloc(16)).update(Buffer.alloc(bytes));
}

test("a block comes back, for Node and for gzip, whatever it is made of", () => {
  using gzip = open();
  const text = Buffer.alloc(gzipBlockBytes, "layer ");
  const mixed = Buffer.concat([
    text.subarray(0, 200_000),
    noise(400_000),
    text.subarray(0, 300_000),
    noise(148_576),
  ]);
  const small = [Buffer.alloc(0), Buffer.from("x"), randomBytes(100_000)];
  for (const bytes of [...small, text, noise(gzipBlockBytes), mixed]) {
    const packed = compress(gzip, bytes);
    assert.ok(gunzipSync(packed).equals(bytes), `${bytes.length} bytes`);
    const plain = execFileSync("gzip", ["-dc"], { input: packed, maxBuffer: 2 ** 24 });
    assert.ok(plain.equals(bytes), `gzip: ${bytes.length} bytes`);
  }
});

test("what does not shrink is stored, and only that", () => {
  using gzip = open();
  const pure = noise(gzipBlockBytes);
  assert.ok(compress(gzip, pure).length < pure.length + 1000);
  // Spread as evenly as noise, and yet the same again and again.
  const ramp = Buffer.from(Array.from({ length: gzipBlockBytes }, (_, index) => (index * 7) & 255));
  assert.ok(compress(gzip, ramp).length < ramp.length / 50);
  const half = Buffer.concat([
    pure.subarray(0, gzipBlockBytes / 2),
    Buffer.alloc(gzipBlockBytes / 2, "text "),
  ]);
  assert.ok(compress(gzip, half).length < gzipBlockBytes * 0.51);
});

test("a block gives the same bytes whichever compressor takes it, and after whatever", () => {
  using one = open();
  using other = open();
  const blocks = [noise(gzipBlockBytes), Buffer.alloc(gzipBlockBytes, "abc"), noise(300_001)];
  const sums = (gzip: BlockGzip, order: readonly number[]): string[] => {
    const found: string[] = [];
    for (const at of order)
      found[at] = createHash("sha256").update(compress(gzip, blocks[at]!)).digest("hex");
    return found;
  };
  assert.deepEqual(sums(one, [0, 1, 2]), sums(other, [2, 1, 0]));
});
