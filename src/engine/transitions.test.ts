import assert from "node:assert/strict";
import { test } from "node:test";
import { type ContainerHappening, containerStatuses, isUp, nextStatus, requireNext } from "./transitions.ts";

const legal: [string, ContainerHappening, string][] = [
  ["created", "start", "running"],
  ["created", "startFailed", "created"],
  ["created", "remove", "removing"],
  ["running", "exit", "exited"],
  ["running", "exitRestart", "restarting"],
  ["running", "pause", "paused"],
  ["paused", "resume", "running"],
  ["paused", "exit", "exited"],
  ["paused", "exitRestart", "restarting"],
  ["restarting", "start", "running"],
  ["restarting", "startFailed", "restarting"],
  ["restarting", "giveUp", "exited"],
  ["exited", "start", "running"],
  ["exited", "startFailed", "exited"],
  ["exited", "remove", "removing"],
  ["removing", "removeFailed", "dead"],
  ["dead", "remove", "removing"],
];
const happenings = [...new Set(legal.map(([, happening]) => happening))];

test("exactly these transitions are legal", () => {
  for (const status of containerStatuses) {
    for (const happening of happenings) {
      const expected = legal.find(([from, what]) => from === status && what === happening)?.[2];
      assert.equal(nextStatus(status, happening), expected, `${status} ${happening}`);
    }
  }
  assert.throws(() => requireNext("exited", "pause"), { name: "AssertionFailure" });
});

test("what Docker calls running", () => {
  assert.deepEqual(containerStatuses.filter(isUp), ["running", "paused", "restarting"]);
});
