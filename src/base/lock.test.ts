import assert from "node:assert/strict";
import { test } from "node:test";
import { Semaphore } from "./lock.ts";

/** Asks for `count` slots; `held` grows as they are given. */
function ask(semaphore: Semaphore, count: number): Disposable[] {
  const held: Disposable[] = [];
  for (let index = 0; index < count; index += 1) {
    void semaphore.acquire().then((holder) => held.push(holder));
  }
  return held;
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("a semaphore gives slots in order and takes them back once", async () => {
  const semaphore = new Semaphore(2);
  const held = ask(semaphore, 3);
  await settled();
  assert.equal(held.length, 2);
  assert.equal(semaphore.tryAcquire(), undefined);
  held[0]![Symbol.dispose]();
  held[0]![Symbol.dispose]();
  await settled();
  assert.equal(held.length, 3);
  held[1]![Symbol.dispose]();
  held[2]![Symbol.dispose]();
  assert.ok(semaphore.tryAcquire());
  assert.ok(semaphore.tryAcquire());
  assert.equal(semaphore.tryAcquire(), undefined);
});

test("more slots let those in who wait; fewer hold for who comes next", async () => {
  const semaphore = new Semaphore(1);
  const held = ask(semaphore, 5);
  await settled();
  semaphore.resize(4);
  await settled();
  assert.equal(held.length, 4);
  semaphore.resize(2);
  for (const holder of held.splice(0, 2)) holder[Symbol.dispose]();
  await settled();
  assert.equal(held.length, 2, "two are held, and there are two slots");
  held[0]![Symbol.dispose]();
  await settled();
  assert.equal(held.length, 3, "the fifth took the place of one that went");
});
