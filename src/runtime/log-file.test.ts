import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { formatTime, parseTime } from "#base/clock.ts";
import { type LogOptions, readLog, readLogBatches } from "./log-file.ts";
import { parseLogLine } from "./log-line.ts";

const root = mkdtempSync(join(tmpdir(), "skiff-log-"));
after(() => rmSync(root, { recursive: true, force: true }));

const epoch = parseTime("2026-01-02T03:04:05Z")!;
const all: LogOptions = { stdout: true, stderr: true, tail: "all", follow: false };

function entry(text: string, number = 0, stream = "stdout", more = ""): string {
  const time = formatTime(epoch + BigInt(number) * 1_000_000_007n);
  return `{"log":${JSON.stringify(text)},"stream":"${stream}"${more},"time":"${time}"}\n`;
}

function newLog(content: string): string {
  const path = join(mkdtempSync(join(root, "c-")), "x-json.log");
  writeFileSync(path, content);
  return path;
}

/** Generous: it only guards against waiting forever. */
async function until(holds: () => boolean, what: string): Promise<void> {
  for (const end = performance.now() + 20_000; !holds(); await sleep(1)) {
    assert.ok(performance.now() < end, what);
  }
}

/** Follows a log: what was read so far, and the end of it. */
function following(path: string, ended: Promise<void>): { seen: string[]; done: Promise<void> } {
  const seen: string[] = [];
  const done = (async () => {
    for await (const line of readLog(path, { ...all, follow: true, ended })) seen.push(line.line.toString());
  })();
  return { seen, done };
}

async function texts(path: string, options: Partial<LogOptions> = {}): Promise<string[]> {
  const result: string[] = [];
  for await (const line of readLog(path, { ...all, ...options })) result.push(line.line.toString());
  return result;
}

test("every kind of entry is read as it was written, plain or escaped", async () => {
  const lines = [
    "plain\n",
    "",
    "no newline",
    'quote " and \\ back\n',
    "tab\tünï – 漢\n",
    "two\\n",
    "a\\",
    "\n",
    '","time":"x\n',
  ];
  const path = newLog(lines.map((line, number) => entry(line, number)).join(""));
  assert.deepEqual(await texts(path), lines);
});

test("stream, time and attributes come with the line", async () => {
  const path = newLog(entry("out\n", 1) + entry("err\n", 2, "stderr", ',"attrs":{"tag":"x","n":1}'));
  const lines = await Array.fromAsync(readLog(path, all));
  assert.equal(lines[0]?.time, formatTime(epoch + 1_000_000_007n));
  assert.deepEqual([lines[0]?.stream, lines[0]?.attrs], ["stdout", undefined]);
  assert.deepEqual([lines[1]?.stream, { ...lines[1]?.attrs }], ["stderr", { tag: "x" }]);
  assert.deepEqual(await texts(path, { stdout: false }), ["err\n"]);
  assert.deepEqual(await texts(path, { stderr: false }), ["out\n"]);
});

test("an entry torn or corrupted is skipped, its neighbours are not", async () => {
  const bad = [
    "{",
    "not json",
    '{"log":"x\\n"}',
    '{"log":"x\\n","stream":"stdin","time":"2026-01-02T03:04:05Z"}',
    "[1]",
    "",
  ];
  const path = newLog(`${entry("a\n")}${bad.join("\n")}\n${entry("b\n")}${entry("torn\n").slice(0, 20)}`);
  assert.deepEqual(await texts(path), ["a\n", "b\n"]);
});

test("an endless line costs bounded memory and hides nothing after it", async () => {
  const path = newLog(`${"x".repeat(5 * 1024 * 1024)}\n${entry("after\n")}`);
  assert.deepEqual(await texts(path), ["after\n"]);
});

test("tail counts entries from the end, over rotated files, before other filters", async () => {
  const path = newLog(entry("4\n", 4) + entry("5\n", 5, "stderr"));
  writeFileSync(`${path}.1`, entry("2\n", 2) + entry("3\n", 3));
  writeFileSync(`${path}.2`, entry("0\n", 0) + entry("1\n", 1));
  const everything = ["0\n", "1\n", "2\n", "3\n", "4\n", "5\n"];
  for (let count = 0; count <= 8; count += 1) {
    assert.deepEqual(
      await texts(path, { tail: count }),
      count === 0 ? [] : everything.slice(-count),
      `tail ${count}`,
    );
  }
  assert.deepEqual(await texts(path, { tail: 2, stderr: false }), ["4\n"]);
  appendFileSync(path, '{"log":"unfin');
  assert.deepEqual(await texts(path, { tail: 1 }), ["5\n"]);
});

test("since and until bound by time, both inclusive", async () => {
  const path = newLog([0, 1, 2, 3, 4].map((number) => entry(`${number}\n`, number)).join(""));
  const at = (number: number): bigint => epoch + BigInt(number) * 1_000_000_007n;
  assert.deepEqual(await texts(path, { sinceNs: at(2) }), ["2\n", "3\n", "4\n"]);
  assert.deepEqual(await texts(path, { sinceNs: at(1) + 1n, untilNs: at(3) }), ["2\n", "3\n"]);
  assert.deepEqual(await texts(path, { untilNs: at(0) - 1n }), []);
});

test("lines on chunk borders are whole: random lengths through 600 kB", async () => {
  const lines = Array.from(
    { length: 4000 },
    (_, number) => `${number}:${"y".repeat((number * 7919) % 400)}\n`,
  );
  const path = newLog(lines.map((line, number) => entry(line, number)).join(""));
  assert.deepEqual(await texts(path), lines);
  assert.deepEqual(await texts(path, { tail: 3999 }), lines.slice(1));
});

test("follow gives what is appended at once and ends with the container", async () => {
  const path = newLog(entry("0\n"));
  const ended = Promise.withResolvers<void>();
  const { seen, done } = following(path, ended.promise);
  await until(() => seen.length === 1, "what is there");
  // A poll would find each of these a whole period after the one before; a busy machine delays now and then.
  let soonestMs = Number.POSITIVE_INFINITY;
  for (let number = 1; number <= 5; number += 1) {
    appendFileSync(path, entry(`${number}\n`).slice(0, 9));
    appendFileSync(path, entry(`${number}\n`).slice(9));
    const written = performance.now();
    await until(() => seen.length === number + 1, "what is appended");
    soonestMs = Math.min(soonestMs, performance.now() - written);
  }
  assert.ok(soonestMs < 200, "told by inotify, not by the poll");
  appendFileSync(path, entry("6\n"));
  ended.resolve();
  await done;
  assert.deepEqual(seen, ["0\n", "1\n", "2\n", "3\n", "4\n", "5\n", "6\n"]);
});

test("follow goes on over rotation and truncation without losing or repeating an entry", async () => {
  const path = newLog(entry("0\n"));
  const ended = Promise.withResolvers<void>();
  const { seen, done } = following(path, ended.promise);
  const expected = ["0\n"];
  for (let number = 1; number <= 60; number += 1) {
    if (number % 10 === 0) {
      // One rotated file is kept: whoever is two behind has lost something, here as with Docker.
      await until(() => seen.length > number - 10, "the reader is no further behind");
      renameSync(path, `${path}.1`);
      writeFileSync(path, "");
    }
    appendFileSync(path, entry(`${number}\n`, number));
    expected.push(`${number}\n`);
    if (number % 3 === 0) await sleep(15);
  }
  ended.resolve();
  await done;
  assert.deepEqual(seen, expected);

  const again = Promise.withResolvers<void>();
  const single = newLog(entry("long enough to be longer than what follows\n"));
  const second = following(single, again.promise);
  await until(() => second.seen.length === 1, "what is there");
  truncateSync(single, 0);
  appendFileSync(single, entry("new\n"));
  await until(() => second.seen.length === 2, "what came after the truncation");
  again.resolve();
  await second.done;
  assert.deepEqual(second.seen, ["long enough to be longer than what follows\n", "new\n"]);
});

test("follow waits for a log that is not there yet, and ends on abort and on until", async () => {
  const path = join(mkdtempSync(join(root, "c-")), "late.log");
  assert.deepEqual(await texts(path), []);
  const ended = Promise.withResolvers<void>();
  const late = following(path, ended.promise);
  await sleep(30);
  writeFileSync(path, entry("late\n"));
  await until(() => late.seen.length === 1, "what came late");
  ended.resolve();
  await late.done;
  assert.deepEqual(late.seen, ["late\n"]);

  const aborter = new AbortController();
  const seen: string[] = [];
  for await (const line of readLog(path, { ...all, follow: true, signal: aborter.signal })) {
    seen.push(line.line.toString());
    setTimeout(() => aborter.abort(), 10);
  }
  assert.deepEqual(seen, ["late\n"]);

  const soon = BigInt(Date.now() + 300) * 1_000_000n;
  const started = performance.now();
  assert.deepEqual(await texts(path, { follow: true, untilNs: soon }), ["late\n"]);
  assert.ok(performance.now() - started < 20_000);
});

test("the tail of a large log is found from its end", async () => {
  const path = newLog("");
  const block = entry(`${"z".repeat(80)}\n`).repeat(20_000);
  for (let count = 0; count < 16; count += 1) appendFileSync(path, block);
  let tailMs = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 5; round += 1) {
    const started = performance.now();
    let lines = 0;
    for await (const batch of readLogBatches(path, { ...all, tail: 100 })) lines += batch.length;
    tailMs = Math.min(tailMs, performance.now() - started);
    assert.equal(lines, 100);
  }
  assert.ok(tailMs < 100, `tail took ${tailMs} ms at best`);
});

test("a plain entry is parsed as JSON.parse would", () => {
  for (const text of [
    entry("x\n"),
    entry("x", 3, "stderr"),
    entry("\\n\n"),
    entry('","stream":"stdout","time":"2026-01-02T03:04:05Z"}\n'),
  ]) {
    const bytes = Buffer.from(text);
    const expected = JSON.parse(text) as { log: string; stream: string; time: string };
    const parsed = parseLogLine(bytes, 0, bytes.length - 1);
    assert.deepEqual(
      [parsed?.line.toString(), parsed?.stream, parsed?.time],
      [expected.log, expected.stream, expected.time],
    );
  }
});
