/** Uploads as a property: whatever a client sends in whatever order, a session is what its accepted chunks make it. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { DistributionLab, location, sha, withDigest } from "./distribution-lab.ts";

let lab: DistributionLab;
before(async () => {
  lab = await DistributionLab.open();
});
after(() => lab[Symbol.asyncDispose]());

type Step =
  | { readonly kind: "chunk" | "append"; readonly bytes: number }
  | { readonly kind: "misplaced"; readonly by: number; readonly bytes: number }
  | { readonly kind: "mislabelled"; readonly bytes: number; readonly more: number }
  | { readonly kind: "status" }
  | { readonly kind: "restart" };

const size = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 60_000, max: 140_000 }));
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constantFrom("chunk" as const, "append" as const), bytes: size }),
  },
  fc.record({
    kind: fc.constant("misplaced" as const),
    by: fc.oneof(fc.integer({ min: -50, max: -1 }), fc.integer({ min: 1, max: 50 })),
    bytes: size,
  }),
  fc.record({ kind: fc.constant("mislabelled" as const), bytes: size, more: fc.integer({ min: 1, max: 9 }) }),
  fc.constantFrom({ kind: "status" as const }, { kind: "status" as const }, { kind: "restart" as const }),
);

const rangeOf = (length: number): string => `0-${Math.max(0, length - 1)}`;

/** One request; `accepted`: what the session holds so far. Returns what it must hold afterwards. */
async function send(upload: string, accepted: Buffer, one: Step): Promise<Buffer> {
  if (one.kind === "restart") {
    await lab.reopen();
    return accepted;
  }
  if (one.kind === "status") {
    const answer = await lab.ask("GET", upload);
    assert.deepEqual([answer.status, answer.headers.range], [204, rangeOf(accepted.length)]);
    return accepted;
  }
  const body = randomBytes(one.bytes);
  const label = (start: number, length: number) => ({ "content-range": `${start}-${start + length - 1}` });
  const at = accepted.length;
  switch (one.kind) {
    case "append": {
      const answer = await lab.ask("PATCH", upload, { body });
      assert.deepEqual([answer.status, answer.headers.range], [202, rangeOf(at + body.length)]);
      return Buffer.concat([accepted, body]);
    }
    case "chunk": {
      const answer = await lab.ask("PATCH", upload, { headers: label(at, body.length), body });
      assert.deepEqual([answer.status, answer.headers.range], [202, rangeOf(at + body.length)]);
      return Buffer.concat([accepted, body]);
    }
    case "misplaced": {
      const start = Math.max(0, at + one.by);
      if (start === at) return accepted;
      const answer = await lab.ask("PATCH", upload, { headers: label(start, body.length), body });
      assert.deepEqual([answer.status, answer.headers.range], [416, rangeOf(at)]);
      return accepted;
    }
    case "mislabelled": {
      const headers = { ...label(at, body.length + one.more), "transfer-encoding": "chunked" };
      assert.equal((await lab.ask("PATCH", upload, { headers, body })).status, 400);
      return accepted;
    }
  }
}

test("any sequence of chunks, refused ones, questions and restarts ends in the bytes that were accepted", async () => {
  let count = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 10 }),
      fc.option(size, { nil: undefined }),
      fc.constantFrom("sha256" as const, "sha512" as const),
      async (steps, last, algorithm) => {
        count += 1;
        const repository = `up/r${count}`;
        const upload = await lab.begin(repository);
        let accepted: Buffer = Buffer.alloc(0);
        for (const one of steps) {
          accepted = await send(upload, accepted, one);
        }
        const body = last === undefined ? undefined : randomBytes(last);
        const whole = body === undefined ? accepted : Buffer.concat([accepted, body]);
        const path = withDigest(upload, sha(whole, algorithm));
        const put = await lab.ask("PUT", path, body === undefined ? {} : { body });
        assert.equal(put.status, 201, put.body.toString());
        const got = await lab.ask("GET", location(put));
        assert.equal(got.body.equals(whole), true);
        assert.equal((await lab.ask("GET", upload)).status, 404);
      },
    ),
    { numRuns: process.env["SKIFF_PROVE"] === undefined ? 25 : 600 },
  );
});

test("of two requests that write to one session the later goes on where the earlier got, which ends", async () => {
  const upload = await lab.begin("up/two");
  const socket = connect(lab.port, "127.0.0.1");
  socket.on("error", () => undefined);
  socket.write(`PATCH ${upload} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n0123456789`);
  const ended = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  socket.resume();
  let range: unknown;
  while (range !== "0-9") range = (await lab.ask("GET", upload)).headers.range;
  const answer = await lab.ask("PATCH", upload, { headers: { "content-range": "10-12" }, body: "abc" });
  assert.deepEqual([answer.status, answer.headers.range], [202, "0-12"]);
  socket.end();
  await ended;
  const put = await lab.ask("PUT", withDigest(upload, sha("0123456789abc")));
  assert.equal(put.status, 201);
});
