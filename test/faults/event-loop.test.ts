import assert from "node:assert/strict";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fiveLayerLayout } from "../bench/pull-image.ts";
import { call } from "../peers/engine-call.ts";
import { busyboxLayout, pushLayout } from "../peers/images.ts";
import { type PeerRegistry, startRegistry } from "../peers/registry.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";
import { type IdleLoop, startIdleLoop } from "./idle-loop.ts";

/**
 * The daemon's event loop stays free, and its memory bounded, while it pulls 420 MB in 27,000 files, starts containers,
 * and more than a thousand clients hold connections that they never read from. Measured by the daemon itself (`--debug`).
 */
const p99MsMax = 20;
/**
 * An idle process's p99 on a machine that has processors to spare. Where others take them, what it suffers is added twice: it
 * only waits to be woken, the daemon's turns are interrupted besides.
 */
const quietMs = 5;
/** What 1,020 connections may hold when their readers have just stalled: Node reads and writes in pieces of 64 KiB. */
const onsetBytesMax = 1_020 * 256 * 1024;
/** And what 200 MB of output that nobody reads may add then. */
const growthBytesMax = 64 * 1024 * 1024;
const readersOfEach = 340;
const outputBytes = 200 * 1024 * 1024;
/** Enough to fill every buffer between the container and a reader. */
const onsetBytes = 4 * 1024 * 1024;

interface LoopLine {
  readonly turns: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** A connection that has sent its request, got the answer's head, and reads no more. */
function stalledReader(socketPath: string, head: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath, () => socket.write(`${head}\r\nHost: d\r\n\r\n`));
    socket.once("error", reject);
    socket.once("readable", () => {
      const answer = socket.read(16) as Buffer | null;
      if (answer?.toString("latin1").startsWith("HTTP/1.1 ") !== true) return;
      socket.removeListener("error", reject);
      socket.on("error", () => {});
      socket.pause();
      resolve(socket);
    });
  });
}

describe("the daemon under load", () => {
  let registry: PeerRegistry;
  let daemon: TestDaemon;
  let idle: IdleLoop;
  let busybox: string;
  let big: string;
  const readers: Socket[] = [];

  const must = async <T>(status: number, method: string, path: string, body?: unknown): Promise<T> => {
    const answer = await call<T>(daemon.socket, method, path, body);
    assert.equal(answer.status, status, `${method} ${path}: ${answer.text.slice(0, 300)}`);
    assert.doesNotMatch(answer.text, /"errorDetail"/);
    return answer.body as T;
  };
  const pull = (image: string): Promise<unknown> =>
    must(200, "POST", `/images/create?fromImage=${encodeURIComponent(image)}`);
  const run = async (script: string): Promise<string> => {
    const { Id } = await must<{ Id: string }>(201, "POST", "/containers/create", {
      Image: busybox,
      Cmd: ["sh", "-c", script],
      HostConfig: { LogConfig: { Type: "json-file", Config: { "max-size": "8m", "max-file": "2" } } },
    });
    await must(204, "POST", `/containers/${Id}/start`);
    return Id;
  };
  const exitCode = async (id: string): Promise<number> =>
    (await must<{ StatusCode: number }>(200, "POST", `/containers/${id}/wait`)).StatusCode;
  const pidOf = async (id: string): Promise<number> =>
    (await must<{ State: { Pid: number } }>(200, "GET", `/containers/${id}/json`)).State.Pid;
  const remove = (id: string): Promise<unknown> => must(204, "DELETE", `/containers/${id}?force=1`);
  const loopLines = (): LoopLine[] =>
    daemon
      .log()
      .split("\n")
      .filter((line) => line.includes('"msg":"event loop"'))
      .map((line) => JSON.parse(line) as LoopLine);
  /** What the daemon has measured since it was asked before. */
  const loopDelay = async (): Promise<LoopLine> => {
    const before = loopLines().length;
    daemon.child.kill("SIGUSR2");
    for (;;) {
      const line = loopLines()[before];
      if (line !== undefined) return line;
      await sleep(20);
    }
  };
  const resident = (): number =>
    Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${daemon.child.pid}/status`, "utf8"))![1]) * 1024;

  /** Does the work and tells what the daemon went through meanwhile. */
  async function under(
    what: string,
    work: () => Promise<unknown>,
  ): Promise<{ delay: LoopLine; limitMs: number; growth: number; ms: number }> {
    await loopDelay();
    await idle.p99Ms();
    const residentBefore = resident();
    let most = residentBefore;
    const sampling = setInterval(() => {
      most = Math.max(most, resident());
    }, 50);
    const started = performance.now();
    try {
      await work();
    } finally {
      clearInterval(sampling);
    }
    const ms = performance.now() - started;
    const delay = await loopDelay();
    const idleMs = await idle.p99Ms();
    const limitMs = idleMs <= quietMs ? p99MsMax : p99MsMax + 2 * idleMs;
    const growth = most - residentBefore;
    console.log(
      `${what}: ${ms.toFixed(0)} ms; event loop p50 ${delay.p50Ms}, p99 ${delay.p99Ms}, max ${delay.maxMs} ms of ` +
        `${delay.turns} turns (an idle process: p99 ${idleMs.toFixed(1)}); memory ${(residentBefore / 2 ** 20).toFixed(0)} MiB and ${(growth / 2 ** 20).toFixed(0)} more`,
    );
    return { delay, limitMs, growth, ms };
  }

  before(async () => {
    const layout = fiveLayerLayout();
    registry = await startRegistry();
    daemon = await startSkiffd({ args: ["--debug"] });
    idle = startIdleLoop();
    busybox = `${registry.address}/busybox:latest`;
    big = `${registry.address}/five:latest`;
    pushLayout(busyboxLayout(), busybox);
    pushLayout(layout.path, big);
    await pull(busybox);
  });
  after(async () => {
    for (const reader of readers) reader.destroy();
    idle?.[Symbol.dispose]();
    await daemon?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
  });

  /**
   * As `under`, up to three times while the delay, or the time that the work took, is over its limit: what our code does to the loop it does each time,
   * what other users of the machine do they do now and then.
   */
  async function underAgain(
    what: string,
    work: () => Promise<unknown>,
    limitMs = Number.POSITIVE_INFINITY,
  ): ReturnType<typeof under> {
    for (let tries = 1; ; tries += 1) {
      const measured = await under(what, work);
      const isFree = measured.delay.p99Ms <= measured.limitMs && measured.ms <= limitMs;
      if (isFree || tries === 3) return measured;
    }
  }

  /** A container that writes lines of 99 characters each time it is told how many bytes. */
  function startWriter(): Promise<string> {
    const loop = `while :; do if [ -s /tell ]; then n=$(cat /tell); : > /tell; yes ${"x".repeat(98)} | head -c $n; touch /told; fi; usleep 5000; done`;
    return run(`echo ready; ${loop}`);
  }

  /** Resolves when the container has got rid of so many bytes of output. */
  async function write(id: string, bytes: number): Promise<void> {
    // The container's own files, seen from the host: no request disturbs the daemon that is measured.
    const root = join("/proc", String(await pidOf(id)), "root");
    writeFileSync(join(root, "tell"), `${bytes}`);
    while (!existsSync(join(root, "told"))) await sleep(5);
    rmSync(join(root, "told"));
  }

  async function openReaders(chatty: string): Promise<void> {
    const heads = [
      `POST /containers/${chatty}/attach?stream=1&stdout=1&stderr=1 HTTP/1.1`,
      `GET /containers/${chatty}/logs?stdout=1&stderr=1&follow=1 HTTP/1.1`,
      "GET /events HTTP/1.1",
    ];
    for (const head of heads) {
      for (let opened = 0; opened < readersOfEach; opened += 20) {
        readers.push(
          ...(await Promise.all(Array.from({ length: 20 }, () => stalledReader(daemon.socket, head)))),
        );
      }
    }
  }

  test("pulls, starts and a thousand stalled readers leave the event loop free", {
    timeout: 240_000,
  }, async () => {
    const writer = await startWriter();
    const alone = await underAgain("200 MB of output, nobody reads", () => write(writer, outputBytes));
    await openReaders(writer);
    const onset = await under("1,020 readers stall", () => write(writer, onsetBytes));
    const stalledMsMax = alone.ms * 1.5 + 250;
    const stalled = await underAgain(
      "200 MB of output, 1,020 stalled readers",
      () => write(writer, outputBytes),
      stalledMsMax,
    );
    const pulls = await underAgain("pulls of 420 MB and starts beside them", () =>
      Promise.all([pullTwice(), startMany()]),
    );
    // The onset comes once and is short: three late turns are its p99, and no second try tells whose they were.
    const once = { ...onset, limitMs: onset.limitMs * 3 };
    for (const { delay, limitMs } of [alone, once, stalled, pulls]) {
      assert.ok(delay.p99Ms <= limitMs, `${JSON.stringify(delay)}, at most ${limitMs}`);
    }
    assert.ok(onset.growth <= onsetBytesMax, `grew by ${onset.growth} bytes`);
    assert.ok(stalled.growth <= growthBytesMax, `grew by ${stalled.growth} bytes`);
    // The shim gives a reader a second or two before it goes on without it: once.
    assert.ok(onset.ms < 15_000, `${onset.ms} ms`);
    assert.ok(stalled.ms <= stalledMsMax, `${stalled.ms} ms instead of ${alone.ms}`);
  });

  async function pullTwice(): Promise<void> {
    for (let round = 0; round < 2; round += 1) {
      await pull(big);
      await must(200, "DELETE", `/images/${big}`);
    }
  }

  async function startMany(): Promise<void> {
    for (let count = 0; count < 60; count += 1) {
      const id = await run("exit 7");
      assert.equal(await exitCode(id), 7);
      await remove(id);
    }
  }
});
