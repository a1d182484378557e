import assert from "node:assert/strict";
import { test } from "node:test";
import { createChunkedDecoder } from "./listen-body.ts";
import { type BodySink, borrowedPieces } from "./listen-pieces.ts";

/** Decodes `text` in pieces of `step` bytes; `rest` is what lies behind the body. */
function decodeAll(
  text: string,
  step: number,
  joined: boolean,
): { body: string; rest: string; done: boolean } {
  const decoder = createChunkedDecoder();
  let body = "";
  let rest = "";
  for (let at = 0; at < text.length; at += step) {
    let bytes: Buffer = Buffer.from(text.slice(at, at + step), "latin1");
    while (bytes.length > 0 && !decoder.done) {
      const { piece, used } = decoder.decode(bytes, joined);
      body += piece?.toString("latin1") ?? "";
      assert.ok(used > 0, "a decoder that is not done takes something");
      bytes = bytes.subarray(used);
    }
    rest += bytes.toString("latin1");
  }
  return { body, rest, done: decoder.done };
}

test("a chunked body is the same however it is cut", () => {
  const text = '3\r\nabc\r\n1;x="y z"\r\nd\r\n00A \r\n0123456789\r\n2\n\r\n\n0\r\nTrailer: t\r\n\r\nnext';
  for (const joined of [false, true]) {
    for (let step = 1; step <= text.length; step += 1) {
      assert.deepEqual(
        decodeAll(text, step, joined),
        { body: "abcd0123456789\r\n", rest: "next", done: true },
        `${step}`,
      );
    }
  }
});

test("one piece of several chunks is moved together in place", () => {
  const bytes = Buffer.from("1\r\na\r\n2\r\nbc\r\n3\r\nd");
  const { piece, used } = createChunkedDecoder().decode(bytes, true);
  assert.equal(piece?.toString(), "abcd");
  assert.equal(used, bytes.length);
  assert.equal(piece?.buffer, bytes.buffer);
});

test("broken framing is refused", () => {
  const long = "1;".padEnd(5000, "x");
  for (const text of [
    "\r\n",
    "g\r\n",
    " 1\r\n",
    "1 2\r\n",
    "1\r\r\n",
    "1\r\nab",
    "1\r\na\rb",
    "1234567890abc\r\n",
    long,
  ]) {
    assert.throws(() => decodeAll(text, text.length, true), { status: 400 }, text.slice(0, 20));
  }
  assert.throws(() => decodeAll(`0\r\n${"a: b\r\n".repeat(3000)}`, 7, true), { status: 431 });
});

test("lent pieces: one at a time, then the end or what went wrong", async () => {
  let sink: BodySink | undefined;
  const freed: (string | undefined)[] = [];
  const pieces = borrowedPieces({
    begin: (to) => {
      sink = to;
    },
    more: (used) => freed.push(used?.toString()),
    end: () => {
      sink = undefined;
    },
  });
  const first = pieces.next();
  assert.equal(sink?.piece(Buffer.from("one")), false);
  assert.equal((await first).value?.toString(), "one");
  const second = pieces.next();
  assert.deepEqual(freed, ["one"]);
  sink?.piece(Buffer.from("two"));
  sink?.end();
  assert.equal((await second).value?.toString(), "two");
  assert.equal((await pieces.next()).done, true);
  await pieces.return?.();
  assert.equal(sink, undefined);
});

test("a body that breaks off is told to who waits and to who comes later", async () => {
  let sink: BodySink | undefined;
  const pieces = borrowedPieces({
    begin: (to) => {
      sink = to;
    },
    more: () => {},
    end: () => {},
  });
  const next = pieces.next();
  sink?.fail(new Error("cut"));
  await assert.rejects(next, /cut/);
  await assert.rejects(pieces.next(), /cut/);
});
