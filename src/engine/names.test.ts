import assert from "node:assert/strict";
import { test } from "node:test";
import { checkContainerName, generateContainerName } from "./names.ts";
import { nameAdjectives, nameSurnames } from "./names-words.ts";

test("names: Docker's rule and words", () => {
  assert.equal(checkContainerName("/web_1.a-b"), "web_1.a-b");
  for (const bad of ["c", "-x", "a b", "a/b", "ä1", "_a", `a${"b".repeat(300)}`]) {
    assert.throws(() => checkContainerName(bad), {
      kind: "invalid",
      message: `Invalid container name (${bad.slice(0, 255)}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`,
    });
  }
});

test("generated names have Docker's form, pass its rule and avoid what is taken", () => {
  const taken = new Set<string>();
  for (let count = 0; count < 500; count += 1) {
    const name = generateContainerName((candidate) => !taken.has(candidate));
    assert.match(name, /^[a-z]+_[a-z]+\d*$/);
    assert.equal(checkContainerName(name), name);
    taken.add(name);
  }
  assert.equal(taken.size, 500);
  for (const words of [nameAdjectives, nameSurnames]) assert.equal(new Set(words).size, words.length);
  let attempts = 0;
  const late = generateContainerName(() => {
    attempts += 1;
    return attempts > 3;
  });
  assert.match(late, /\d$/);
});
