import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { call } from "../peers/engine-call.ts";
import { leakReport, snapshotHost } from "../peers/leaks.ts";
import { startSkiffd } from "../peers/skiffd.ts";

const skiffd = join(import.meta.dirname, "../../bin/skiffd");

interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A start that ends by itself: a question, or a refusal. */
function run(...args: readonly string[]): Outcome {
  const { status, stdout, stderr } = spawnSync(skiffd, args, { encoding: "utf8", timeout: 60_000 });
  return { status, stdout, stderr };
}

/** The one line that a refused start ends with, on stderr, exit status 1. */
function refusal(outcome: Outcome): string {
  assert.equal(outcome.status, 1, outcome.stderr);
  const lines = outcome.stderr
    .trim()
    .split("\n")
    .filter((line) => !line.startsWith("{"));
  assert.equal(lines.length, 1, outcome.stderr);
  return lines[0]!;
}

function scratch(): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), "skiff-daemon-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

function rootsOf(home: string, ...more: readonly string[]): string[] {
  return [
    "-H",
    `unix://${home}/s.sock`,
    "--data-root",
    `${home}/data`,
    "--exec-root",
    `${home}/run`,
    ...more,
  ];
}

/** What the names of a daemon's kernel objects and files contain. */
function marksOf(home: string, dataRoot: string): string[] {
  const identity = createHash("sha256").update(`skiff network ${dataRoot}`).digest("hex");
  return [home, basename(home), `skiff-${identity.slice(0, 8)}`, `sk${identity.slice(0, 5)}`];
}

function docker(host: string, ...args: readonly string[]): Outcome {
  const { status, stdout, stderr } = spawnSync("docker", ["-H", host, ...args], {
    encoding: "utf8",
    timeout: 60_000,
    killSignal: "SIGKILL",
  });
  return { status, stdout, stderr };
}

test("questions are answered without a daemon", () => {
  assert.match(run("--version").stdout, /^skiffd version \d+\.\d+\.\d+, Engine API 1\.51\n$/);
  assert.match(run("--help").stdout, /--data-root string/);
  assert.equal(run("--validate").stdout, "configuration OK\n");
});

for (const [args, line] of [
  [["--frobnicate"], "skiffd: unknown flag: --frobnicate"],
  [["--userns-remap=x"], "skiffd: flag --userns-remap is not supported by skiffd yet"],
  [
    ["--config-file", "/nonexistent.json"],
    /^skiffd: unable to configure skiffd with file \/nonexistent\.json: /,
  ],
  [["-H", "tcp://127.0.0.1:2375"], /^skiffd: tcp:\/\/127\.0\.0\.1:2375 without mutual TLS would make/],
] as const) {
  test(`refused in one line: ${args.join(" ")}`, () => {
    const told = refusal(run(...args));
    if (typeof line === "string") assert.equal(told, line);
    else assert.match(told, line);
  });
}

test("without root it says so", () => {
  using home = scratch();
  chmodSync(home.path, 0o777);
  const outcome = spawnSync(skiffd, rootsOf(home.path), {
    encoding: "utf8",
    uid: 65534,
    gid: 65534,
    env: { PATH: process.env["PATH"], HOME: home.path, NODE_COMPILE_CACHE: join(home.path, "cache") },
    timeout: 60_000,
  });
  assert.equal(refusal(outcome), "skiffd: skiffd needs to be started with root privileges");
  assert.equal(existsSync(join(home.path, "data")), false);
});

test("the docker CLI finds a daemon; a graceful stop leaves nothing behind", async () => {
  const before = await snapshotHost();
  let marks: string[] = [];
  {
    await using daemon = await startSkiffd();
    marks = marksOf(daemon.home, daemon.dataRoot);
    const version = docker(
      daemon.host,
      "version",
      "--format",
      "{{.Server.Version}} {{.Server.APIVersion}} {{.Server.MinAPIVersion}}",
    );
    assert.match(version.stdout, /^28\.\d+\.\d+\S* 1\.51 1\.24\n$/, version.stderr);
    const info = docker(
      daemon.host,
      "info",
      "--format",
      "{{.Driver}} {{.DockerRootDir}} {{.LiveRestoreEnabled}} {{.Swarm.LocalNodeState}}",
    );
    assert.equal(info.stdout, `overlay2 ${daemon.dataRoot} true inactive\n`, info.stderr);
    assert.equal(docker(daemon.host, "ps", "-q").stdout, "");

    const socket = statSync(daemon.socket);
    assert.ok(socket.isSocket());
    assert.equal(socket.mode & 0o777, 0o660);
    assert.equal(statSync(daemon.dataRoot).mode & 0o777, 0o711);
    assert.equal(statSync(join(daemon.dataRoot, "state.db")).mode & 0o777, 0o600);
    const pidfile = join(daemon.home, "pid");
    assert.ok(existsSync(`/proc/${readFileSync(pidfile, "utf8")}`));
    assert.match(daemon.log(), /skiffd is ready/);

    assert.equal(await daemon.stop(), 0);
    assert.equal(existsSync(daemon.socket), false);
    assert.equal(existsSync(pidfile), false);
    await daemon.restart();
    assert.equal((await call(daemon.socket, "GET", "/_ping")).text, "OK");
  }
  // Other tests may be running on this host: what is looked for bears this daemon's names.
  const left = (await leakReport(before, 0)).filter((line) => marks.some((mark) => line.includes(mark)));
  assert.deepEqual(left, []);
});

test("the identity of a daemon stays with its data root", async () => {
  await using daemon = await startSkiffd();
  const id = async (): Promise<string> =>
    (await call<{ ID: string }>(daemon.socket, "GET", "/info")).body?.ID ?? "none";
  const first = await id();
  await daemon.kill();
  await daemon.restart();
  assert.equal(await id(), first);
});

test("two daemons on one host know nothing of each other; two on one root are refused", async () => {
  await using one = await startSkiffd();
  await using two = await startSkiffd();
  await call(one.socket, "POST", "/volumes/create", { Name: "mine" });
  assert.match((await call(one.socket, "GET", "/volumes")).text, /"mine"/);
  assert.doesNotMatch((await call(two.socket, "GET", "/volumes")).text, /"mine"/);

  using home = scratch();
  const again = run(
    "-H",
    `unix://${home.path}/s`,
    "--data-root",
    one.dataRoot,
    "--exec-root",
    `${home.path}/run`,
  );
  assert.equal(refusal(again), `skiffd: another skiffd uses the data root ${one.dataRoot}`);
  const execs = run(
    "-H",
    `unix://${home.path}/s`,
    "--data-root",
    `${home.path}/data`,
    "--exec-root",
    one.execRoot,
  );
  assert.equal(refusal(execs), `skiffd: another skiffd uses the exec root ${one.execRoot}`);
  assert.equal((await call(one.socket, "GET", "/_ping")).status, 200);
});

test("a socket that is served is refused, one that is left over is replaced, a file is left alone", async () => {
  using home = scratch();
  const path = join(home.path, "s.sock");
  const server = createServer().listen(path);
  await once(server, "listening");
  assert.equal(
    refusal(run(...rootsOf(home.path))),
    `skiffd: can't create unix socket ${path}: another daemon serves it`,
  );
  server.close();
  await once(server, "close");
  writeFileSync(path, "a file");
  assert.equal(
    refusal(run(...rootsOf(home.path))),
    `skiffd: can't create unix socket ${path}: it is there and is no socket`,
  );
  assert.equal(readFileSync(path, "utf8"), "a file");
  rmSync(path);

  await using daemon = await startSkiffd();
  await daemon.kill();
  assert.ok(lstatSync(daemon.socket).isSocket(), "a killed daemon leaves its socket");
  await daemon.restart();
  assert.equal((await call(daemon.socket, "GET", "/_ping")).status, 200);
});

test("a pidfile that names a living process is respected, a stale one replaced", async () => {
  using home = scratch();
  const pidfile = join(home.path, "pid");
  const sleeper = spawn("sleep", ["60"]);
  writeFileSync(pidfile, `${sleeper.pid}\n`);
  assert.match(
    refusal(run(...rootsOf(home.path, "--pidfile", pidfile))),
    new RegExp(`process with PID ${sleeper.pid} is still running$`),
  );
  sleeper.kill("SIGKILL");
  await once(sleeper, "exit");
  await using daemon = await startSkiffd({ home: home.path });
  assert.equal(readFileSync(pidfile, "utf8"), String(daemon.child.pid));
});

test("the group of the socket: a named one must exist", async () => {
  using home = scratch();
  assert.equal(
    refusal(run(...rootsOf(home.path, "--group", "no-such-group"))),
    "skiffd: group no-such-group not found",
  );
  await using daemon = await startSkiffd({ args: ["--group", "daemon"] });
  assert.equal(statSync(daemon.socket).gid, 1);
});

for (const [name, damage, expected] of [
  [
    "of a newer skiffd",
    (path: string) => {
      const database = new DatabaseSync(path);
      database.exec("PRAGMA user_version = 4711");
      database.close();
    },
    /has schema version 4711, but this skiffd knows versions up to \d+/,
  ],
  ["emptied", (path: string) => truncateSync(path, 0), /is damaged \(the file is empty\)/],
  ["of something else", (path: string) => writeFileSync(path, "x".repeat(8192)), /is damaged/],
] as const) {
  test(`a state database ${name} is refused and left as it is`, async () => {
    await using daemon = await startSkiffd();
    await daemon.stop();
    const path = join(daemon.dataRoot, "state.db");
    copyFileSync(path, `${path}.kept`);
    damage(path);
    const before = readFileSync(path);
    assert.match(refusal(run(...rootsOf(daemon.home))), expected);
    assert.ok(readFileSync(path).equals(before));
    copyFileSync(`${path}.kept`, path);
    rmSync(`${path}.kept`);
    await daemon.restart();
  });
}

test("a lost state database is noticed where containers were made", async () => {
  await using daemon = await startSkiffd();
  await daemon.stop();
  const path = join(daemon.dataRoot, "state.db");
  copyFileSync(path, `${path}.kept`);
  rmSync(path);
  const trace = join(daemon.dataRoot, "containers", "a".repeat(64));
  mkdirSync(trace, { recursive: true });
  assert.match(refusal(run(...rootsOf(daemon.home))), /is missing, but its data root is in use/);
  assert.ok(existsSync(trace));
  copyFileSync(`${path}.kept`, path);
  await daemon.restart();
});

test("stopping answers what is in flight and cuts streams", async () => {
  await using daemon = await startSkiffd();
  const events = connect({ path: daemon.socket });
  events.write("GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
  const [head] = await once(events, "data");
  assert.match(String(head), /^HTTP\/1\.1 200 OK/);
  events.on("error", () => {});
  const cut = once(events, "close");
  const start = performance.now();
  assert.equal(await daemon.stop(), 0);
  await cut;
  // A stream that is waited for would never end.
  assert.ok(performance.now() - start < 15_000);
});
