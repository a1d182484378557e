import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { binarySize, formatDuration, humanDuration, humanSize, parseDuration, parseSize } from "./units.ts";

describe("sizes", () => {
  const read: readonly (readonly [string, number])[] = [
    ["32", 32],
    ["32b", 32],
    ["32kb", 32768],
    ["32K", 32768],
    ["32KiB", 32768],
    ["32 MB", 32 * 2 ** 20],
    ["1.5g", 1.5 * 2 ** 30],
    ["1t", 2 ** 40],
    ["2p", 2 ** 51],
    ["0", 0],
  ];
  for (const [text, bytes] of read) it(`reads ${text}`, () => assert.equal(parseSize(text), bytes));

  const refused: readonly (readonly [string, string])[] = [
    ["", "invalid size: ''"],
    ["abc", "invalid size: 'abc'"],
    ["-5", "invalid size: '-5'"],
    ["1x", "invalid suffix: 'x'"],
    ["1kbb", "invalid suffix: 'kbb'"],
    ["1bb", "invalid suffix: 'bb'"],
  ];
  for (const [text, message] of refused)
    it(`refuses ${text}`, () => assert.throws(() => parseSize(text), { message }));

  const shown: readonly (readonly [number, string, string])[] = [
    [0, "0B", "0B"],
    [999, "999B", "999B"],
    [1000, "1kB", "1kB"],
    [1984287, "1.984MB", "1.98MB"],
    [4489000, "4.489MB", "4.49MB"],
    [123456789, "123.5MB", "123MB"],
    [1.2e9, "1.2GB", "1.2GB"],
    [5e15, "5PB", "5PB"],
  ];
  for (const [bytes, four, three] of shown) {
    it(`shows ${bytes}`, () => assert.deepEqual([humanSize(bytes), humanSize(bytes, 3)], [four, three]));
  }
  it("shows powers of 1024 too", () => assert.equal(binarySize(25276502016), "23.54GiB"));
});

describe("spans", () => {
  const second = 1000;
  const minute = 60 * second;
  const hour = 60 * minute;
  const day = 24 * hour;
  const spans: readonly (readonly [number, string])[] = [
    [450, "Less than a second"],
    [second, "1 second"],
    [47 * second, "47 seconds"],
    [minute, "About a minute"],
    [3 * minute, "3 minutes"],
    [35 * minute, "35 minutes"],
    [hour, "About an hour"],
    [hour + 45 * minute, "2 hours"],
    [3 * hour, "3 hours"],
    [2 * day, "2 days"],
    [6 * day, "6 days"],
    [14 * day, "2 weeks"],
    [29 * day, "4 weeks"],
    [60 * day, "2 months"],
    [23 * 30 * day, "23 months"],
    [2 * 365 * day, "2 years"],
  ];
  for (const [ms, text] of spans) it(text, () => assert.equal(humanDuration(ms), text));

  it("Go's durations read and written", () => {
    for (const text of ["0s", "1ns", "1.5µs", "2ms", "1s", "1m30s", "2h0m5s", "-3s"]) {
      assert.equal(formatDuration(parseDuration(text)), text);
    }
  });
});
