import assert from "node:assert/strict";
import { test } from "node:test";
import { formatTime } from "#base/clock.ts";
import { humanDuration, statusText } from "./container-status-text.ts";

const second = 1000;
const hour = 3600 * second;
const day = 24 * hour;

/** go-units `HumanDuration`. */
const durations: [number, string][] = [
  [999, "Less than a second"],
  [second, "1 second"],
  [59 * second, "59 seconds"],
  [60 * second, "About a minute"],
  [119 * second, "About a minute"],
  [120 * second, "2 minutes"],
  [59 * 60 * second, "59 minutes"],
  [hour, "About an hour"],
  [1.49 * hour, "About an hour"],
  [1.5 * hour, "2 hours"],
  [47 * hour, "47 hours"],
  [48 * hour, "2 days"],
  [13 * day, "13 days"],
  [14 * day, "2 weeks"],
  [59 * day, "8 weeks"],
  [60 * day, "2 months"],
  [729 * day, "24 months"],
  [730 * day, "2 years"],
];

for (const [ms, text] of durations) {
  test(`${ms} ms is ${text}`, () => assert.equal(humanDuration(ms), text));
}

const now = 1_800_000_000_000_000_000n;
const ago = (seconds: number): string => formatTime(now - BigInt(seconds) * 1_000_000_000n);

const texts: [Parameters<typeof statusText>[0], string | undefined, string][] = [
  [{ status: "created", exitCode: 0, startedAt: ago(1), finishedAt: ago(1) }, undefined, "Created"],
  [{ status: "running", exitCode: 0, startedAt: ago(5), finishedAt: ago(9) }, undefined, "Up 5 seconds"],
  [
    { status: "running", exitCode: 0, startedAt: ago(5), finishedAt: ago(9) },
    "starting",
    "Up 5 seconds (health: starting)",
  ],
  [
    { status: "running", exitCode: 0, startedAt: ago(5), finishedAt: ago(9) },
    "healthy",
    "Up 5 seconds (healthy)",
  ],
  [
    { status: "paused", exitCode: 0, startedAt: ago(7200), finishedAt: ago(1) },
    undefined,
    "Up 2 hours (Paused)",
  ],
  [
    { status: "exited", exitCode: 0, startedAt: ago(200), finishedAt: ago(180) },
    undefined,
    "Exited (0) 3 minutes ago",
  ],
  [
    { status: "restarting", exitCode: 3, startedAt: ago(9), finishedAt: ago(1) },
    undefined,
    "Restarting (3) 1 second ago",
  ],
  [
    { status: "removing", exitCode: 0, startedAt: ago(9), finishedAt: ago(1) },
    undefined,
    "Removal In Progress",
  ],
  [{ status: "dead", exitCode: 0, startedAt: ago(9), finishedAt: ago(1) }, undefined, "Dead"],
];

for (const [state, health, text] of texts) {
  test(`status ${text}`, () => assert.equal(statusText(state, now, health), text));
}
