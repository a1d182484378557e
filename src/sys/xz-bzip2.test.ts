import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { createStreamDecoder, type DecodedFormat } from "./xz-bzip2.ts";

const texts: readonly Buffer[] = [
  Buffer.from("x"),
  randomBytes(300_000),
  Buffer.concat([Buffer.alloc(5_000_000), randomBytes(100), Buffer.alloc(2_000_000, "ab")]),
];
const compressed = (format: DecodedFormat, text: Buffer): Buffer =>
  execFileSync(format, ["-c", "-1"], { input: text, maxBuffer: 64 * 1024 ** 2 });

function decode(format: DecodedFormat, parts: readonly Uint8Array[]): Buffer {
  const pieces: Buffer[] = [];
  const decoder = createStreamDecoder(format, (chunk) => pieces.push(Buffer.from(chunk)));
  try {
    for (const part of parts) decoder.push(part);
    decoder.finish();
  } finally {
    decoder.close();
    decoder.close();
  }
  return Buffer.concat(pieces);
}

for (const format of ["xz", "bzip2"] as const) {
  test(`${format}: what the program writes is read back, however it is cut`, () => {
    for (const text of texts) {
      const whole = compressed(format, text);
      assert.ok(decode(format, [whole]).equals(text));
      const cut = [
        whole.subarray(0, 1),
        whole.subarray(1, 7),
        whole.subarray(7, 70_000),
        whole.subarray(70_000),
      ];
      assert.ok(decode(format, cut).equals(text));
    }
  });

  test(`${format}: streams follow each other, zeros may end them`, () => {
    const one = compressed(format, Buffer.from("one"));
    const two = compressed(format, Buffer.from("two"));
    assert.equal(decode(format, [one, two]).toString(), "onetwo");
    assert.equal(decode(format, [Buffer.concat([one, two]), Buffer.alloc(64)]).toString(), "onetwo");
  });

  test(`${format}: what is cut, changed or foreign is refused`, () => {
    const whole = compressed(format, randomBytes(100_000));
    const damaged = Buffer.from(whole);
    damaged.writeUInt8(damaged.readUInt8(50_000) ^ 0xff, 50_000);
    for (const bad of [
      whole.subarray(0, 40_000),
      whole.subarray(0, whole.length - 1),
      damaged,
      Buffer.from("plain text that is long enough to be looked at"),
      Buffer.concat([whole, Buffer.from("garbage behind the end")]),
      Buffer.alloc(0),
    ])
      assert.throws(() => decode(format, [bad]), { code: "bad-compression" });
  });
}

test("xz: a header that claims more memory than is allowed is refused", () => {
  const greedy = execFileSync("xz", ["-c", "--lzma2=dict=256MiB"], { input: "x" });
  assert.throws(() => decode("xz", [greedy]), /memory/);
});
