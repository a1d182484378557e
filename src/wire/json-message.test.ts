import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeJsonMessage, humanSize, progressBar } from "./json-message.ts";

// Lines recorded from dockerd 20.10.
const recorded: readonly (readonly [Parameters<typeof encodeJsonMessage>[0], string])[] = [
  [
    { kind: "status", id: "one", status: "Pulling from imgs/busybox" },
    '{"status":"Pulling from imgs/busybox","id":"one"}\r\n',
  ],
  [
    { kind: "progress", id: "32f7df5ee4d1", action: "Pulling fs layer" },
    '{"status":"Pulling fs layer","progressDetail":{},"id":"32f7df5ee4d1"}\r\n',
  ],
  [
    {
      kind: "progress",
      id: "32f7df5ee4d1",
      action: "Downloading",
      detail: { current: 36445, total: 1056496 },
    },
    '{"status":"Downloading","progressDetail":{"current":36445,"total":1056496},"progress":"[=\\u003e                                                 ]  36.45kB/1.056MB","id":"32f7df5ee4d1"}\r\n',
  ],
  [
    {
      kind: "progress",
      id: "32f7df5ee4d1",
      action: "Extracting",
      detail: { current: 1056496, total: 1056496 },
    },
    '{"status":"Extracting","progressDetail":{"current":1056496,"total":1056496},"progress":"[==================================================\\u003e]  1.056MB/1.056MB","id":"32f7df5ee4d1"}\r\n',
  ],
  [
    { kind: "error", message: "unexpected EOF" },
    '{"errorDetail":{"message":"unexpected EOF"},"error":"unexpected EOF"}\r\n',
  ],
];

test("lines are byte for byte what dockerd writes", () => {
  for (const [message, line] of recorded) assert.equal(encodeJsonMessage(message), line);
});

test("sizes have four significant digits and decimal units", () => {
  const cases: readonly (readonly [number, string])[] = [
    [0, "0B"],
    [999, "999B"],
    [1000, "1kB"],
    [1984287, "1.984MB"],
    [54041, "54.04kB"],
    [123456789, "123.5MB"],
    [2e12, "2TB"],
  ];
  for (const [bytes, text] of cases) assert.equal(humanSize(bytes), text);
});

test("a bar never leaves its box", () => {
  assert.equal(progressBar({ current: 0, total: 0 }), "");
  assert.equal(progressBar({ current: 5, total: 0 }), "      5B");
  assert.equal(progressBar({ current: 20, total: 10 }), `[${"=".repeat(50)}>]      20B`);
});
