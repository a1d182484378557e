import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { allStreams, demultiplex, Rig, readAll, runToEnd, until, withStdin } from "./shim-rig.ts";

let rig: Rig;

before(async () => {
  rig = await Rig.start();
});

after(async () => {
  const left = await rig.leftOver();
  await rig[Symbol.asyncDispose]();
  assert.deepEqual(left, []);
});

describe("pipes", () => {
  for (const kind of ["crun", "runc"] as const) {
    it(`keeps stdout and stderr apart and gives the exit code (${kind})`, async () => {
      const runtime = { path: `/usr/bin/${kind}`, kind, root: `${rig.execRoot}/${kind}`, args: [] };
      const args = ["sh", "-c", "echo out; echo err >&2; exit 3"];
      const run = await runToEnd(rig.host, rig.container({ args }, { runtime }));
      assert.deepEqual(demultiplex(run.output), { stdout: "out\n", stderr: "err\n" });
      assert.equal(run.exitCode, 3);
    });
  }

  it("passes input through and ends it by half-close", async () => {
    const container = rig.container(
      { args: ["sh", "-c", "cat; echo done"] },
      { openStdin: true, stdinOnce: true },
    );
    const run = await runToEnd(rig.host, container, "one\ntwo\n");
    assert.equal(demultiplex(run.output).stdout, "one\ntwo\ndone\n");
  });

  it("takes more input than pipes hold, given before the start", async () => {
    const container = rig.container({ args: ["wc", "-c"] }, { openStdin: true, stdinOnce: true });
    const shim = await rig.host.launch(container.launch);
    const stream = await shim.attach(withStdin);
    const output = readAll(stream);
    stream.end(Buffer.alloc(3_000_000, "x"));
    await sleep(20);
    await shim.start();
    await shim.exited;
    assert.equal(demultiplex(await output).stdout.trim(), "3000000");
  });

  it("keeps stdin open for others without stdinOnce", async () => {
    const container = rig.container({ args: ["cat"] }, { openStdin: true });
    const shim = await rig.host.launch(container.launch);
    const first = await shim.attach(withStdin);
    let bytes = Buffer.alloc(0);
    first.on("data", (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
    });
    await shim.start();
    first.end("first ");
    await until(() => demultiplex(bytes).stdout === "first ", "the first client's input");
    const second = await shim.attach(withStdin);
    second.resume();
    second.write("second");
    await until(() => demultiplex(bytes).stdout === "first second", "the second client's input");
    await shim.signal(9);
    await shim.exited;
    second.end();
  });

  it("reads nothing from /dev/null when stdin is not open", async () => {
    const run = await runToEnd(rig.host, rig.container({ args: ["sh", "-c", "cat; echo end"] }), "ignored");
    assert.equal(demultiplex(run.output).stdout, "end\n");
  });

  it("loses no byte of a fast writer, and the log holds the same", async () => {
    const args = ["sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"];
    const container = rig.container({ args });
    const run = await runToEnd(rig.host, container);
    const expected = Array.from({ length: 20_000 }, (_, i) => `line ${i}\n`).join("");
    assert.equal(demultiplex(run.output).stdout, expected);
    const logged = readFileSync(container.logPath, "utf8").trimEnd().split("\n");
    assert.equal(logged.map((line) => (JSON.parse(line) as { log: string }).log).join(""), expected);
  });

  it("carries a megabyte of arbitrary bytes to each of three clients", async () => {
    const container = rig.container({ args: ["sh", "-c", "head -c 1000000 /dev/urandom | tee /dev/stderr"] });
    const shim = await rig.host.launch(container.launch);
    const streams = await Promise.all([1, 2, 3].map(() => shim.attach(allStreams)));
    const outputs = streams.map((stream) => readAll(stream));
    await shim.start();
    await shim.exited;
    for (const output of await Promise.all(outputs)) {
      const { stdout, stderr } = demultiplex(output);
      assert.equal(stdout.length, 1_000_000);
      assert.equal(stdout, stderr);
    }
  });

  it("gives a client only the streams it asked for", async () => {
    const container = rig.container({ args: ["sh", "-c", "echo out; echo err >&2"] });
    const shim = await rig.host.launch(container.launch);
    const stream = await shim.attach({ stdin: false, stdout: false, stderr: true });
    const output = readAll(stream);
    await shim.start();
    await shim.exited;
    assert.deepEqual(demultiplex(await output), { stdout: "", stderr: "err\n" });
  });
});

describe("a process that does not read its input", () => {
  it("loses none of its output, however much is written to it", async () => {
    for (let round = 0; round < 10; round += 1) {
      const container = rig.container(
        { args: ["echo", "hi"] },
        { log: noLog, openStdin: true, stdinOnce: true },
      );
      const shim = await rig.host.launch(container.launch);
      const stream = await shim.attach(withStdin);
      await shim.start();
      // Input goes on after the end, and nobody reads until then.
      for (let i = 0; i < 20; i += 1) {
        stream.write(Buffer.alloc(20_000));
        await sleep(1);
      }
      await shim.exited;
      stream.write("more");
      stream.end();
      assert.equal(demultiplex(await readAll(stream)).stdout, "hi\n");
    }
  });
});

describe("clients that do not read", () => {
  it("do not hold the container, and are told what they missed", async () => {
    const args = ["sh", "-c", "head -c 8000000 /dev/zero | tr '\\0' 'x'; echo; sleep 1; echo last"];
    const container = rig.container({ args }, { log: noLog });
    const shim = await rig.host.launch(container.launch);
    const stalled = await shim.attach(allStreams);
    const reader = readAll(await shim.attach(allStreams));
    await shim.start();
    const began = performance.now();
    const exit = await shim.exited;
    assert.equal(exit.exitCode, 0);
    assert.ok(performance.now() - began < 20_000, `took ${performance.now() - began} ms`);
    assert.equal(demultiplex(await reader).stdout.length, 8_000_001 + 5);
    stalled.destroy();
  });

  it("get a marker with the number of dropped bytes when they read again", async () => {
    const args = ["sh", "-c", "head -c 4000000 /dev/zero | tr '\\0' 'x'; read line; echo after"];
    const container = rig.container({ args }, { log: noLog, openStdin: true, stdinOnce: true });
    const shim = await rig.host.launch(container.launch);
    const stalled = await shim.attach(allStreams);
    const writer = await shim.attach(withStdin);
    let taken = 0;
    writer.on("data", (chunk: Buffer) => {
      taken += chunk.length;
    });
    await shim.start();
    // Whoever reads has all of it only when the other is no longer waited for.
    await until(() => taken >= 4_000_000, "the output of the one that reads");
    const chunks: Buffer[] = [];
    stalled.on("data", (chunk: Buffer) => chunks.push(chunk));
    const ended = once(stalled, "end");
    await until(() => Buffer.concat(chunks).includes("bytes of output dropped"), "the marker");
    writer.end("go\n");
    await shim.exited;
    await ended;
    const { stdout, stderr } = demultiplex(Buffer.concat(chunks));
    const dropped = /\[skiff: (\d+) bytes of output dropped/.exec(stderr);
    assert.ok(dropped !== null, stderr);
    assert.equal(stdout.replaceAll("after\n", "").length + Number(dropped[1]), 4_000_000);
    assert.ok(stdout.endsWith("after\n"));
  });

  it("are waited for as long as they make progress", async () => {
    const args = ["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' 'x'"];
    const container = rig.container({ args }, { log: noLog });
    const shim = await rig.host.launch(container.launch);
    const slow = await shim.attach(allStreams);
    await shim.start();
    let bytes = Buffer.alloc(0);
    const ended = once(slow, "end");
    slow.on("data", (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      slow.pause();
      setTimeout(() => slow.resume(), 30);
    });
    await ended;
    const { stdout, stderr } = demultiplex(bytes);
    assert.equal(stderr, "");
    assert.equal(stdout.length, 3_000_000);
  });

  it("may come and go in numbers", async () => {
    const container = rig.container({ args: ["sh", "-c", "while true; do echo x; done"] }, { log: noLog });
    const shim = await rig.host.launch(container.launch);
    await shim.start();
    for (let round = 0; round < 20; round += 1) {
      const streams = await Promise.all(Array.from({ length: 20 }, () => shim.attach(withStdin)));
      for (const stream of streams) stream.destroy();
    }
    const rssKb = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${shim.shimPid}/status`, "utf8"))?.[1]);
    await shim.signal(9);
    await shim.exited;
    assert.ok(rssKb < 1024, `${rssKb} kB`);
  });
});

const noLog = { driver: "none", path: "", maxBytes: 0, maxFiles: 0, attrsJson: "" } as const;

describe("terminals", () => {
  for (const kind of ["crun", "runc"] as const) {
    it(`gives raw output, a size set before the start, and input (${kind})`, async () => {
      const runtime = { path: `/usr/bin/${kind}`, kind, root: `${rig.execRoot}/${kind}`, args: [] };
      // The runtime makes the terminal and hands it over while the process begins: its size may come a moment later.
      const sized = 'until [ "$(stty size)" = "33 99" ]; do sleep 0.02; done';
      const args = ["sh", "-c", `tty; ${sized}; stty size; read line; echo got $line; exit 5`];
      const container = rig.container({ args, terminal: true }, { runtime, openStdin: true });
      const shim = await rig.host.launch(container.launch);
      const stream = await shim.attach(withStdin);
      const output = readAll(stream);
      await shim.resize(33, 99);
      await shim.start();
      stream.write("hello\n");
      const exit = await shim.exited;
      assert.equal(exit.exitCode, 5);
      const text = (await output).toString();
      assert.match(text, /\/dev\/(pts\/0|console)\r\n/);
      assert.match(text, /33 99\r\n/);
      assert.match(text, /got hello\r\n/);
    });
  }

  it("follows a resize while running", async () => {
    const args = ["sh", "-c", "trap 'stty size; exit 0' WINCH; echo up; while true; do sleep 0.05; done"];
    const container = rig.container({ args, terminal: true }, { openStdin: true });
    const shim = await rig.host.launch(container.launch);
    const stream = await shim.attach(withStdin);
    await shim.start();
    await once(stream, "data");
    const output = readAll(stream);
    await shim.resize(40, 120);
    await shim.exited;
    assert.match((await output).toString(), /40 120/);
  });

  it("loses nothing of the last output and logs it as stdout", async () => {
    const args = ["sh", "-c", "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done"];
    const container = rig.container({ args, terminal: true });
    const run = await runToEnd(rig.host, container);
    const expected = Array.from({ length: 5000 }, (_, i) => `line ${i}\r\n`).join("");
    assert.equal(run.output.toString(), expected);
    const lines = readFileSync(container.logPath, "utf8").trimEnd().split("\n");
    assert.equal(lines.length, 5000);
    assert.match(lines[0] ?? "", /^\{"log":"line 0\\r\\n","stream":"stdout","time":"/);
  });

  it("keeps running when a client with input goes away", async () => {
    const container = rig.container({ args: ["cat"], terminal: true }, { openStdin: true, stdinOnce: true });
    const shim = await rig.host.launch(container.launch);
    const stream = await shim.attach(withStdin);
    await shim.start();
    stream.destroy();
    await sleep(50);
    const second = await shim.attach(withStdin);
    second.write("still here\n");
    const [chunk] = (await once(second, "data")) as [Buffer];
    assert.match(chunk.toString(), /still here/);
    await shim.signal(9);
    await shim.exited;
    second.destroy();
  });
});
