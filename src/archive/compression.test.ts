import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { createDecompressor, detectFormat } from "./compression.ts";

const text = Buffer.from("layer ".repeat(50_000));

function inflate(kind: "gzip" | "zstd", bytes: Buffer, pieceBytes: number): Buffer {
  const pieces: Buffer[] = [];
  const decompressor = createDecompressor(kind, (chunk) => pieces.push(Buffer.from(chunk)));
  try {
    for (let at = 0; at < bytes.length; at += pieceBytes)
      decompressor.push(bytes.subarray(at, at + pieceBytes));
    decompressor.finish();
    return Buffer.concat(pieces);
  } finally {
    decompressor.close();
  }
}

const kinds = [
  ["gzip", gzipSync],
  ["zstd", zstdCompressSync],
] as const;

for (const [kind, compress] of kinds) {
  test(`${kind}: one member, any cut`, () => {
    const bytes = compress(text);
    for (const piece of [1, 7, 1000, bytes.length]) assert.ok(inflate(kind, bytes, piece).equals(text));
  });

  test(`${kind}: members follow each other, zeros pad`, () => {
    const bytes = Buffer.concat([compress(text), compress(Buffer.from("tail")), Buffer.alloc(700)]);
    const expected = Buffer.concat([text, Buffer.from("tail")]);
    for (const piece of [1, 3, 512, bytes.length]) assert.ok(inflate(kind, bytes, piece).equals(expected));
    const first = compress(text).length;
    assert.ok(inflate(kind, bytes, first).equals(expected), "boundary at the cut");
  });

  test(`${kind}: every truncation is an error`, () => {
    const bytes = compress(Buffer.from("some bytes that matter"));
    for (let length = 0; length < bytes.length; length += 1) {
      assert.throws(
        () => inflate(kind, bytes.subarray(0, length), 5),
        { code: "bad-compression" },
        `${length}`,
      );
    }
  });

  test(`${kind}: garbage after the data is an error`, () => {
    const bytes = Buffer.concat([compress(text), Buffer.from("garbage")]);
    for (const piece of [1, bytes.length - 7, bytes.length]) {
      assert.throws(() => inflate(kind, bytes, piece), { code: "bad-compression" });
    }
    const afterPadding = Buffer.concat([compress(text), Buffer.alloc(5), Buffer.from("x")]);
    for (const piece of [1, afterPadding.length]) {
      assert.throws(() => inflate(kind, afterPadding, piece), { code: "bad-compression" });
    }
  });

  test(`${kind}: a flipped bit is an error`, () => {
    const bytes = compress(text);
    const broken = Buffer.from(bytes);
    const at = broken.length - 3;
    broken[at] = (broken[at] ?? 0) ^ 1;
    if (kind === "gzip") assert.throws(() => inflate(kind, broken, 4096), { code: "bad-compression" });
  });
}

test("zstd: skippable frames are skipped", () => {
  const skippable = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4]);
  const bytes = Buffer.concat([skippable, zstdCompressSync(text), skippable]);
  for (const piece of [1, 5, bytes.length]) assert.ok(inflate("zstd", bytes, piece).equals(text));
});

test("kinds are told by their first bytes", () => {
  assert.equal(detectFormat(gzipSync("")), "gzip");
  assert.equal(detectFormat(zstdCompressSync("")), "zstd");
  assert.equal(detectFormat(Buffer.alloc(512)), "none");
  assert.equal(detectFormat(Buffer.from("etc/passwd")), "none");
  assert.equal(detectFormat(Buffer.from("BZh91AY&SY")), "bzip2");
  assert.equal(detectFormat(Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0])), "xz");
});
