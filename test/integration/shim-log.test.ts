import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { parseTime } from "#base/clock.ts";
import { demultiplex, Rig, runToEnd } from "./shim-rig.ts";

interface Line {
  readonly log: string;
  readonly stream: string;
  readonly time: string;
}

let rig: Rig;

before(async () => {
  rig = await Rig.start();
});

after(async () => {
  const left = await rig.leftOver();
  await rig[Symbol.asyncDispose]();
  assert.deepEqual(left, []);
});

function lines(path: string): Line[] {
  const text = readFileSync(path, "utf8");
  assert.ok(text === "" || text.endsWith("\n"), "the file consists of whole lines");
  return text
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Line);
}

describe("the log", () => {
  it("is byte for byte Docker's json-file format", async () => {
    writeFileSync(
      join(rig.layer, "sample"),
      Buffer.concat([
        Buffer.from('a\tb\rc"d\\e<f>&g\u007f\u0001\n'),
        Buffer.from([0xff, 0xfe]),
        Buffer.from("é\u2028\u2029x\n"),
        Buffer.from([0xed, 0xa0, 0x80, 0xc0, 0x80, 0xf0, 0x9f, 0x98, 0x80, 0xe2, 0x82, 0x0a]),
        Buffer.from("no newline"),
      ]),
    );
    const container = rig.container({ args: ["cat", "/sample"] });
    await runToEnd(rig.host, container);
    const text = readFileSync(container.logPath, "utf8").replace(/"time":"[^"]*"/g, '"time":"T"');
    assert.equal(
      text,
      [
        '{"log":"a\\u0009b\\rc\\"d\\\\e\\u003cf\\u003e\\u0026g\u007f\\u0001\\n","stream":"stdout","time":"T"}',
        '{"log":"\\ufffd\\ufffdé\\u2028\\u2029x\\n","stream":"stdout","time":"T"}',
        '{"log":"\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd😀\\ufffd\\ufffd\\n","stream":"stdout","time":"T"}',
        '{"log":"no newline","stream":"stdout","time":"T"}',
        "",
      ].join("\n"),
    );
    assert.equal(statSync(container.logPath).mode & 0o777, 0o640);
  });

  it("splits lines of more than 16 KiB, the parts with one time", async () => {
    const script =
      "head -c 16384 /dev/zero | tr '\\0' a; echo; head -c 40000 /dev/zero | tr '\\0' b; printf '\\nend'";
    const container = rig.container({ args: ["sh", "-c", script] });
    await runToEnd(rig.host, container);
    const found = lines(container.logPath);
    assert.deepEqual(
      found.map((line) => [line.log.length, line.log.slice(0, 1), line.log.endsWith("\n")]),
      [
        [16384, "a", false],
        [1, "\n", true],
        [16384, "b", false],
        [16384, "b", false],
        [40000 - 2 * 16384 + 1, "b", true],
        [3, "e", false],
      ],
    );
    assert.equal(found[2]?.time, found[4]?.time);
    for (const line of found) assert.ok(parseTime(line.time) !== undefined, line.time);
  });

  it("carries attrs where they are asked for", async () => {
    const container = rig.container({ args: ["echo", "x"] });
    const attrsJson = '{"tag":"t\\u003c"}';
    const run = await runToEnd(rig.host, {
      ...container,
      launch: { ...container.launch, log: { ...container.launch.log, attrsJson } },
    });
    assert.equal(run.exitCode, 0);
    const text = readFileSync(container.logPath, "utf8");
    assert.match(text, /^\{"log":"x\\n","stream":"stdout","attrs":\{"tag":"t\\u003c"\},"time":"[^"]+"\}\n$/);
  });

  it("goes on in the same file over restarts", async () => {
    const container = rig.container({ args: ["echo", "again"] });
    await runToEnd(rig.host, container);
    await runToEnd(rig.host, container);
    assert.deepEqual(
      lines(container.logPath).map((line) => line.log),
      ["again\n", "again\n"],
    );
  });

  it("is not written with the driver none", async () => {
    const container = rig.container({ args: ["echo", "x"] });
    const log = { ...container.launch.log, driver: "none" } as const;
    const run = await runToEnd(rig.host, { ...container, launch: { ...container.launch, log } });
    assert.equal(demultiplex(run.output).stdout, "x\n");
    assert.ok(!readdirSync(container.stateDir).some((name) => name.endsWith(".log")));
  });
});

describe("rotation", () => {
  for (const maxFiles of [1, 3]) {
    it(`keeps ${maxFiles} files and loses only what is older`, async () => {
      const script = "i=10000; while [ $i -lt 13000 ]; do echo $i; i=$((i+1)); done";
      const container = rig.container({ args: ["sh", "-c", script] });
      const log = { ...container.launch.log, maxBytes: 20_000, maxFiles };
      await runToEnd(rig.host, { ...container, launch: { ...container.launch, log } });
      const names = readdirSync(container.stateDir).filter((name) => name.includes("json.log"));
      assert.equal(names.length, maxFiles);
      const kept: string[] = [];
      for (let i = maxFiles - 1; i >= 0; i -= 1) {
        const path = i === 0 ? container.logPath : `${container.logPath}.${i}`;
        const size = statSync(path).size;
        // Docker rotates before a line when the file has reached the size: a file exceeds it by less than a line.
        assert.ok(size < 20_000 + 100, `${path}: ${size}`);
        if (i > 0) assert.ok(size >= 20_000, `${path}: ${size}`);
        kept.push(...lines(path).map((line) => line.log.trim()));
      }
      const expected = Array.from({ length: kept.length }, (_, i) => String(13_000 - kept.length + i));
      assert.deepEqual(kept, expected);
    });
  }
});

describe("a full disk", () => {
  it("costs log lines, which are counted, and nothing else", async () => {
    const small = join(rig.root, "small");
    mkdirSync(small);
    assert.equal(spawnSync("mount", ["-t", "tmpfs", "-o", "size=64k", "none", small]).status, 0);
    try {
      const script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; exit 8";
      const container = rig.container({ args: ["sh", "-c", script] });
      const path = join(small, "json.log");
      const log = { ...container.launch.log, path };
      const run = await runToEnd(rig.host, { ...container, launch: { ...container.launch, log } });
      assert.equal(run.exitCode, 8);
      const sent = demultiplex(run.output).stdout.trimEnd().split("\n");
      assert.equal(sent.length, 3000);
      const kept = lines(path);
      const exit = await run.shim.exited;
      assert.ok(kept.length > 100 && kept.length < 3000);
      assert.equal(exit.droppedLogLines, 3000 - kept.length);
      for (const [i, line] of kept.entries()) assert.equal(line.log, `line ${i}\n`);
      // Its log is on that file system until it ends.
      await rig.leftOver();
    } finally {
      assert.equal(spawnSync("umount", [small]).status, 0);
    }
  });
});
