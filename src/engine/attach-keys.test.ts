import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { DetachScanner, parseDetachKeys } from "./attach-keys.ts";

test("spellings of keys", () => {
  assert.deepEqual([...parseDetachKeys("")], [0x10, 0x11]);
  assert.deepEqual([...parseDetachKeys("ctrl-a,x,ctrl-@,ctrl-[,ctrl-\\")], [1, 0x78, 0, 0x1b, 0x1c]);
  for (const bad of ["ctrl-", "ctrl-A", "ab", "ctrl-p,", "ä"]) {
    assert.throws(() => parseDetachKeys(bad), { message: `Invalid detach keys (${bad}) provided` });
  }
});

function scan(keys: Buffer, chunks: readonly Buffer[]): { passed: Buffer; detached: boolean } {
  const scanner = new DetachScanner(keys);
  const passed: Buffer[] = [];
  for (const chunk of chunks) {
    const result = scanner.push(chunk);
    passed.push(result.passed);
    if (result.detached) return { passed: Buffer.concat(passed), detached: true };
  }
  return { passed: Buffer.concat(passed), detached: false };
}

test("the sequence is found however the input is cut, and nothing before it is lost", () => {
  const letters = fc.constantFrom("a", "b");
  fc.assert(
    fc.property(
      fc.array(letters, { minLength: 1, maxLength: 4 }),
      fc.array(fc.array(letters, { maxLength: 4 }), { maxLength: 8 }),
      (keyLetters, pieces) => {
        const keys = Buffer.from(keyLetters.join(""));
        const text = pieces.map((piece) => piece.join("")).join("");
        const result = scan(
          keys,
          pieces.map((piece) => Buffer.from(piece.join(""))),
        );
        const at = text.indexOf(keys.toString());
        assert.equal(result.detached, at >= 0);
        if (at >= 0) assert.equal(result.passed.toString(), text.slice(0, at));
        // What is held back at the end is a beginning of the sequence.
        else {
          assert.ok(text.startsWith(result.passed.toString()));
          assert.ok(keys.toString().startsWith(text.slice(result.passed.length)));
        }
      },
    ),
  );
});
