import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { systemClock } from "#base/clock.ts";
import { limits } from "#base/limits.ts";
import { EventBus } from "./events.ts";

test("a hundred readers get every event once and in order, few of them in one turn", async () => {
  const bus = new EventBus(systemClock);
  const got: string[][] = [];
  const readers = Array.from({ length: 100 }, () => bus.subscribe());
  const reading = readers.map(async (reader) => {
    const mine: string[] = [];
    got.push(mine);
    for await (const { action } of reader) mine.push(action);
  });
  await turn();
  bus.publish("container", "a", "id", {});
  bus.publish("container", "b", "id", {});
  for (let count = 0; count < 50; count += 1) await Promise.resolve();
  const early = got.filter((mine) => mine.length > 0).length;
  assert.ok(early > 0 && early < 50, `${early} at once`);
  for (let count = 0; count < 5; count += 1) await turn();
  bus.publish("container", "c", "id", {});
  for (let count = 0; count < 5; count += 1) await turn();
  assert.ok(got.every((mine) => mine.join() === "a,b,c"));
  for (const reader of readers) reader[Symbol.dispose]();
  await Promise.all(reading);
});

test("a reader that does not read loses what is too much, and knows how much", async () => {
  const bus = new EventBus(systemClock);
  using reader = bus.subscribe();
  for (let count = 0; count < limits.eventBacklogMax + 7; count += 1) {
    bus.publish("container", String(count), "id", {});
  }
  assert.equal(reader.dropped, 7);
  let next = 0;
  for await (const { action } of reader) {
    assert.equal(action, String(next));
    next += 1;
    if (next === limits.eventBacklogMax) break;
  }
});
