import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { call } from "../peers/engine-call.ts";
import { dockerClientMajor } from "../peers/peer-cache.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";

const run = promisify(execFile);
const daemon: TestDaemon = await startSkiffd();
test.after(() => daemon[Symbol.asyncDispose]());

async function docker(...args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  try {
    const { stdout, stderr } = await run("docker", ["-H", daemon.host, ...args], {
      timeout: 60_000,
      killSignal: "SIGKILL",
    });
    return { code: 0, stdout, stderr };
  } catch (error) {
    const failed = error as { code: number; stdout: string; stderr: string };
    return { code: failed.code, stdout: failed.stdout, stderr: failed.stderr };
  }
}

test("GET and HEAD of _ping, versioned or not", async () => {
  for (const path of ["/_ping", "/v1.24/_ping", "/v1.51/_ping"]) {
    const answer = await call(daemon.socket, "GET", path);
    assert.equal(answer.text, "OK");
    assert.equal(answer.headers["content-type"], "text/plain; charset=utf-8");
    assert.equal(answer.headers["cache-control"], "no-cache, no-store, must-revalidate");
    assert.equal(answer.headers["pragma"], "no-cache");
    assert.equal(answer.headers["builder-version"], "1");
    assert.equal(answer.headers["swarm"], "inactive");
    assert.equal(answer.headers["api-version"], "1.51");
    assert.equal(answer.headers["ostype"], "linux");
    assert.equal(answer.headers["docker-experimental"], "false");
    const head = await call(daemon.socket, "HEAD", path);
    assert.equal(head.status, 200);
    assert.equal(head.headers["content-length"], "0");
  }
});

test("the docker CLI pinned to the oldest and the newest version", async () => {
  for (const version of ["1.24", "1.51"]) {
    const { stdout } = await run(
      "docker",
      ["-H", daemon.host, "version", "--format", "{{.Client.APIVersion}}"],
      {
        env: { ...process.env, DOCKER_API_VERSION: version },
      },
    );
    assert.equal(stdout, `${version}\n`);
  }
});

test("volumes by the docker CLI", async () => {
  assert.equal((await docker("volume", "create", "--label", "k=v", "cli-vol")).stdout, "cli-vol\n");
  assert.equal((await docker("volume", "create", "cli-vol")).stdout, "cli-vol\n");
  const anonymous = (await docker("volume", "create")).stdout.trim();
  assert.match(anonymous, /^[0-9a-f]{64}$/);
  const [volume] = JSON.parse((await docker("volume", "inspect", "cli-vol")).stdout) as [
    Record<string, unknown>,
  ];
  assert.deepEqual(
    [volume["Driver"], volume["Labels"], volume["Options"], volume["Scope"], volume["Mountpoint"]],
    ["local", { k: "v" }, null, "local", join(daemon.dataRoot, "volumes/cli-vol/_data")],
  );
  const names = async (...filter: string[]): Promise<string[]> =>
    (await docker("volume", "ls", "-q", ...filter)).stdout.trim().split("\n").sort();
  assert.deepEqual(await names("--filter", "label=k"), ["cli-vol"]);
  assert.deepEqual(await names("--filter", "label=k=other"), [""]);
  assert.deepEqual(await names("--filter", "name=li-vo"), ["cli-vol"]);
  assert.deepEqual(await names("--filter", "dangling=true"), [anonymous, "cli-vol"].sort());
  assert.deepEqual(await names("--filter", "dangling=false"), [""]);
  assert.deepEqual(await names("--filter", "driver=nfs"), [""]);

  writeFileSync(join(daemon.dataRoot, "volumes", anonymous, "_data/file"), Buffer.alloc(2000));
  const pruned = await docker("volume", "prune", "-f");
  if (dockerClientMajor() < 23) {
    // Before API 1.42 a prune took named volumes, too, and the client had no `-a`.
    assert.match(pruned.stdout, /cli-vol/);
  } else {
    assert.match(pruned.stdout, new RegExp(`Deleted Volumes:\n${anonymous}\n\nTotal reclaimed space: 2kB`));
    assert.deepEqual(await names(), ["cli-vol"]);
    assert.match((await docker("volume", "prune", "-f", "-a")).stdout, /cli-vol/);
  }
  assert.equal(existsSync(join(daemon.dataRoot, "volumes/cli-vol")), false);
});

for (const [method, path, body, status, message] of [
  ["GET", "/volumes/none", undefined, 404, "get none: no such volume"],
  ["DELETE", "/volumes/none", undefined, 404, "get none: no such volume"],
  ["DELETE", "/volumes/none?force=1", undefined, 204, undefined],
  [
    "POST",
    "/volumes/create",
    { Name: "x/y" },
    400,
    /^create x\/y: "x\/y" includes invalid characters for a local volume name/,
  ],
  [
    "POST",
    "/volumes/create",
    { Name: "vv", Driver: "nope" },
    404,
    'create vv: error looking up volume plugin nope: plugin "nope" not found',
  ],
  ["POST", "/volumes/create", { Name: 7 }, 400, /^invalid JSON: json: cannot unmarshal number/],
  ["POST", "/volumes/create", "{", 400, /^invalid JSON: /],
  ["GET", '/volumes?filters={"foo":["x"]}', undefined, 400, "invalid filter 'foo'"],
  ["GET", '/volumes?filters={"dangling":["maybe"]}', undefined, 400, "invalid filter 'dangling=[maybe]'"],
  ["GET", "/volumes?filters=x", undefined, 400, /^invalid filter/],
  ["GET", "/events?since=tomorrow", undefined, 400, /invalid value for since/],
  [
    "GET",
    "/events?since=20&until=10",
    undefined,
    400,
    "`since` time (20) must be less than `until` time (10)",
  ],
  ["GET", "/system/df?type=moon", undefined, 400, "unknown object type: moon"],
  ["POST", "/auth", { serveraddress: "a b" }, 400, 'invalid registry address "a b"'],
  ["GET", "/nothing", undefined, 404, "page not found"],
  ["PUT", "/info", undefined, 404, "page not found"],
] as const) {
  test(`${method} ${path} is answered ${status}`, async () => {
    const answer = await call<{ message: string }>(daemon.socket, method, encodeURI(path), body);
    assert.equal(answer.status, status, answer.text);
    if (message === undefined) assert.equal(answer.text, "");
    else if (typeof message === "string") assert.deepEqual(answer.body, { message });
    else assert.match(answer.body?.message ?? "", message);
  });
}

interface EventLine {
  readonly Type: string;
  readonly Action: string;
  readonly Actor: { readonly ID: string; readonly Attributes: Record<string, string> };
  readonly scope: string;
  readonly time: number;
}

async function events(query: string): Promise<EventLine[]> {
  const { text } = await call(daemon.socket, "GET", `/events?${query}`);
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as EventLine);
}

test("events: past ones with since, filters, nanoseconds to the digit", async () => {
  const since = (Date.now() / 1000 - 0.001).toFixed(3);
  await call(daemon.socket, "POST", "/volumes/create", { Name: "ev-one" });
  await call(daemon.socket, "POST", "/volumes/create", { Name: "ev-two" });
  await call(daemon.socket, "DELETE", "/volumes/ev-one");
  await call(daemon.socket, "DELETE", "/volumes/ev-two");
  const until = (Date.now() / 1000 + 0.001).toFixed(3);
  const window = `since=${since}&until=${until}`;
  const seen = async (filters: object): Promise<string[]> =>
    (await events(`${window}&filters=${encodeURIComponent(JSON.stringify(filters))}`)).map(
      ({ Action, Actor }) => `${Action} ${Actor.ID}`,
    );
  assert.deepEqual(await seen({}), ["create ev-one", "create ev-two", "destroy ev-one", "destroy ev-two"]);
  assert.deepEqual(await seen({ event: ["destroy"], volume: ["ev-one"] }), ["destroy ev-one"]);
  assert.deepEqual(await seen({ volume: ["ev-"], event: { create: true } }), [
    "create ev-one",
    "create ev-two",
  ]);
  assert.deepEqual(await seen({ type: ["container"] }), []);
  assert.deepEqual(await seen({ type: ["container", "volume"], volume: ["ev-two"] }), [
    "create ev-two",
    "destroy ev-two",
  ]);
  const { text } = await call(daemon.socket, "GET", `/events?${window}`);
  const first = text.split("\n")[0]!;
  assert.match(
    first,
    /^\{"Type":"volume","Action":"create","Actor":\{"ID":"ev-one","Attributes":\{"driver":"local"\}\},"scope":"local","time":\d{10},"timeNano":\d{19}\}$/,
  );
});

test("events: headers come first, then events as they happen, until the client goes", async () => {
  const socket = connect({ path: daemon.socket });
  let seen = "";
  socket.on("data", (chunk: Buffer) => {
    seen += chunk.toString();
  });
  socket.write("GET /v1.51/events HTTP/1.1\r\nHost: x\r\n\r\n");
  while (!seen.includes("\r\n\r\n")) await sleep(2);
  assert.match(seen, /Content-Type: application\/json\r\n/);
  await call(daemon.socket, "POST", "/volumes/create", { Name: "live-vol" });
  while (!seen.includes("live-vol")) await sleep(2);
  socket.destroy();
  await call(daemon.socket, "DELETE", "/volumes/live-vol");
  assert.equal((await call(daemon.socket, "GET", "/_ping")).text, "OK");
});

test("events end at until, by themselves", async () => {
  const start = performance.now();
  const until = (Date.now() / 1000 + 0.4).toFixed(3);
  const none = encodeURIComponent('{"type":["daemon"]}');
  assert.deepEqual(await events(`until=${until}&filters=${none}`), []);
  const took = performance.now() - start;
  assert.ok(took > 250 && took < 20_000, `${took} ms`);
});

test("info and version have what clients read", async () => {
  const info = (await call<Record<string, unknown>>(daemon.socket, "GET", "/info")).body ?? {};
  for (const [key, type] of Object.entries({
    ID: "string",
    Containers: "number",
    ContainersRunning: "number",
    Images: "number",
    Driver: "string",
    DriverStatus: "object",
    MemoryLimit: "boolean",
    SwapLimit: "boolean",
    NCPU: "number",
    MemTotal: "number",
    DockerRootDir: "string",
    Name: "string",
    ServerVersion: "string",
    Runtimes: "object",
    DefaultRuntime: "string",
    CgroupDriver: "string",
    CgroupVersion: "string",
    SecurityOptions: "object",
    LiveRestoreEnabled: "boolean",
    RegistryConfig: "object",
    Swarm: "object",
    OSType: "string",
    Architecture: "string",
    KernelVersion: "string",
    OperatingSystem: "string",
    IndexServerAddress: "string",
    SystemTime: "string",
    LoggingDriver: "string",
  })) {
    assert.equal(typeof info[key], type, key);
  }
  const version = (await call<Record<string, unknown>>(daemon.socket, "GET", "/version")).body ?? {};
  assert.equal(version["ApiVersion"], "1.51");
  assert.equal(version["MinAPIVersion"], "1.24");
  assert.match(String(version["Version"]), /^\d+\.\d+\.\d+/);
  const table = await docker("info");
  assert.equal(table.code, 0, table.stderr);
  assert.match(table.stdout, /Storage Driver: overlay2/);
  assert.equal((await docker("system", "df")).code, 0);
  assert.equal((await docker("system", "df", "-v")).code, 0);
});

test("a thousand requests on a hundred connections are all answered", async () => {
  const answers = await Promise.all(
    Array.from({ length: 100 }, async () => {
      const statuses: number[] = [];
      for (let i = 0; i < 10; i += 1)
        statuses.push((await call(daemon.socket, "GET", "/v1.44/volumes")).status);
      return statuses;
    }),
  );
  assert.ok(answers.flat().every((status) => status === 200));
});

test("no request has been taken for a fault of ours", () => {
  const errors = readFileSync(join(daemon.home, "daemon.log"), "utf8")
    .split("\n")
    .filter((line) => line.includes('"level":"error"'));
  assert.deepEqual(errors, []);
});
