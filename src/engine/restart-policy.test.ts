import assert from "node:assert/strict";
import { test } from "node:test";
import { nextRestartPauseMs, shouldRestart, shouldStartWithDaemon } from "./restart-policy.ts";

const ended = { exitCode: 1, restartCount: 0, manuallyStopped: false };

const decisions: [string, number, Partial<typeof ended>, boolean][] = [
  ["no", 0, {}, false],
  ["", 0, {}, false],
  ["always", 0, { exitCode: 0 }, true],
  ["unless-stopped", 0, { exitCode: 0 }, true],
  ["unless-stopped", 0, { manuallyStopped: true }, false],
  ["on-failure", 0, {}, true],
  ["on-failure", 0, { exitCode: 0 }, false],
  ["on-failure", 2, { restartCount: 1 }, true],
  ["on-failure", 2, { restartCount: 2 }, false],
];

for (const [name, max, how, expected] of decisions) {
  test(`${name}:${max} ${JSON.stringify(how)} → ${expected}`, () => {
    assert.equal(shouldRestart({ Name: name, MaximumRetryCount: max }, { ...ended, ...how }), expected);
  });
}

test("the pause doubles from 100 ms to a minute and starts anew after a long run", () => {
  let pause = 0;
  const pauses = Array.from({ length: 12 }, () => {
    pause = nextRestartPauseMs(pause, 0);
    return pause;
  });
  assert.deepEqual(pauses.slice(0, 4), [100, 200, 400, 800]);
  assert.equal(pauses.at(-1), 60_000);
  assert.equal(nextRestartPauseMs(pause, 10_000), 100);
});

test("with the daemon: always even when stopped by hand, never what was never started", () => {
  const policy = (Name: string) => ({ Name, MaximumRetryCount: 0 });
  const state = { ...ended, manuallyStopped: true, everStarted: true };
  assert.equal(shouldStartWithDaemon(policy("always"), state), true);
  assert.equal(shouldStartWithDaemon(policy("unless-stopped"), state), false);
  assert.equal(shouldStartWithDaemon(policy("on-failure"), state), false);
  assert.equal(shouldStartWithDaemon(policy("always"), { ...state, everStarted: false }), false);
});
