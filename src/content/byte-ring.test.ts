import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { RingReader, RingWriter } from "./byte-ring.ts";

const signal = new AbortController().signal;

/** A thread that hashes all it reads, in pieces of at most `bytesMax`. */
async function hashingReader(
  buffer: SharedArrayBuffer,
  bytesMax: number,
): Promise<{ readonly result: Promise<{ hex: string; bytes: number; failed: boolean }> }> {
  const ring = new URL("./byte-ring.ts", import.meta.url).href;
  const code = `
    const { workerData, parentPort } = require("node:worker_threads");
    import(${JSON.stringify(ring)}).then(({ RingReader }) => {
      parentPort.postMessage("ready");
      const hash = require("node:crypto").createHash("sha256");
      const reader = new RingReader(workerData, () => {});
      let bytes = 0;
      for (;;) {
        const read = reader.read(${bytesMax});
        if (read === undefined || read === "failed") {
          parentPort.postMessage({ hex: hash.digest("hex"), bytes, failed: read === "failed" });
          return;
        }
        hash.update(read);
        bytes += read.length;
      }
    });`;
  const worker = new Worker(code, { eval: true, workerData: buffer });
  await once(worker, "message");
  const result = once(worker, "message").then(([message]) => message);
  return { result };
}

async function writeAll(writer: RingWriter, chunks: readonly Buffer[]): Promise<void> {
  for (const chunk of chunks) await writer.write(chunk, signal);
}

test("bytes arrive whole and in order, in pieces of any size, through a ring that is smaller than they are", async () => {
  for (const [ringBytes, bytesMax] of [
    [1_000, 300],
    [4_096, 1_000_000],
    [65_536, 7],
  ] as const) {
    const writer = new RingWriter(ringBytes);
    const reader = await hashingReader(writer.buffer, bytesMax);
    const sizes = [0, 1, 999, 1_000, 1_001, 5_000, 70_000, 3, 0, 512];
    const chunks = sizes.map((size) => randomBytes(size));
    await writeAll(writer, chunks);
    writer.settle("complete");
    const whole = Buffer.concat(chunks);
    const expected = createHash("sha256").update(whole).digest("hex");
    assert.deepEqual(await reader.result, { hex: expected, bytes: whole.length, failed: false });
  }
});

test("a broken stream is told after what came before it", async () => {
  const writer = new RingWriter(1_000);
  const reader = await hashingReader(writer.buffer, 1_000);
  await writeAll(writer, [Buffer.alloc(2_500, "x")]);
  writer.settle("failed");
  writer.settle("complete");
  const { bytes, failed } = await reader.result;
  assert.deepEqual([bytes, failed], [2_500, true]);
});

test("a writer before a full ring gives up when it is told to", async () => {
  const writer = new RingWriter(100);
  const abort = new AbortController();
  const writing = writer.write(Buffer.alloc(200), abort.signal);
  assert.ok(writing !== undefined);
  abort.abort(new Error("enough"));
  await assert.rejects(writing, /enough/);
});

test("a reader gives up when it is told to", () => {
  const writer = new RingWriter(100);
  const reader = new RingReader(writer.buffer, () => {
    throw new Error("not wanted");
  });
  assert.throws(() => reader.read(10), /not wanted/);
});
