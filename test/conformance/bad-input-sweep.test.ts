/** Every route with every kind of malformed input: an answer below 500 or one with a reason, a daemon that lives, nothing made. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Route } from "#api/route.ts";
import { containerRoutes } from "#api/routes-container.ts";
import { execRoutes } from "#api/routes-exec.ts";
import { imageRoutes } from "#api/routes-image.ts";
import { networkRoutes } from "#api/routes-network.ts";
import { systemRoutes } from "#api/routes-system.ts";
import { volumeRoutes } from "#api/routes-volume.ts";
import { call } from "../peers/engine-call.ts";
import { busyboxRoot, tarOf } from "../peers/images.ts";
import { leftOver } from "../peers/left-over.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";

/** The tables of routes are made without an engine: only their methods and patterns are read. */
const none = undefined as never;
const routes: readonly Route[] = [
  ...containerRoutes(none),
  ...execRoutes(none),
  ...imageRoutes(none),
  ...volumeRoutes(none),
  ...networkRoutes(none),
  ...systemRoutes(none),
];

/** Names that are none, or that try to be something else. All percent-encoded, since HTTP itself refuses the rest. */
const names: readonly (readonly [what: string, segment: string])[] = [
  ["traversal", "..%2f..%2fetc%2fpasswd"],
  ["dots", "%2e%2e"],
  ["NUL", "a%00b"],
  ["newline", "a%0d%0aX-Evil:%201"],
  ["invalid UTF-8", "%ff%fe"],
  ["bad percent", "%zz"],
  ["long", "a".repeat(4000)],
  ["prototype", "__proto__"],
  ["constructor", "constructor"],
  ["space", "%20"],
  ["emoji", "%F0%9F%92%A5"],
  ["only a colon", ":"],
];

/** Sent with a name that nothing has. */
const bodies: readonly (readonly [what: string, body: string, type?: string])[] = [
  ["no JSON", "{{{"],
  ["a list", "[]"],
  ["a number", "5"],
  ["null", "null"],
  ["deep nesting", `${"[".repeat(50_000)}${"]".repeat(50_000)}`],
  ["prototype keys", '{"__proto__":{"Image":"x"},"constructor":{"prototype":{}},"Image":"nope"}'],
  [
    "every field of the wrong kind",
    '{"Image":[],"Cmd":{},"Env":5,"HostConfig":"x","Name":{},"Labels":[],"Driver":[],"Container":5,"Memory":"x","Detach":"y"}',
  ],
  ["numbers out of range", '{"Image":"nope","HostConfig":{"Memory":1e400,"CpuShares":99999999999999999999}}'],
  ["not UTF-8", Buffer.from([0x7b, 0xff, 0xfe, 0x7d]).toString("latin1")],
  ["another content type", "{}", "application/xml"],
  ["a tar that is none", "x".repeat(2000), "application/x-tar"],
];

const queries: readonly string[] = [
  "filters={{{",
  `filters=${encodeURIComponent('{"__proto__":{"x":true}}')}`,
  `filters=${encodeURIComponent("[1,2]")}`,
  "limit=-99999999999999999999&t=zz&signal=%00&h=-1&w=99999999&condition=%ff&since=x&until=y&stdout=1&tail=zz",
  "name=%00&fromImage=%00&fromSrc=%00&repo=%ff&tag=%ff&platform=%00&changes=%00&force=zz&detachKeys=%00",
  `x=${"y".repeat(6000)}`,
  "&&&===&=&%&%%%",
];

let daemon: TestDaemon;
let kept: unknown;

before(async () => {
  daemon = await startSkiffd();
  const root = mkdtempSync(join(tmpdir(), "skiff-sweep-"));
  busyboxRoot(root);
  const query = `fromSrc=-&repo=busybox&tag=latest&changes=${encodeURIComponent('CMD ["sleep","1000"]')}`;
  await call(daemon.socket, "POST", `/images/create?${query}`, tarOf(root), {
    "Content-Type": "application/x-tar",
  });
  rmSync(root, { recursive: true });
  const made = await call(daemon.socket, "POST", "/containers/create?name=sweep", {
    Image: "busybox",
    Cmd: ["sleep", "1000"],
  });
  assert.equal(made.status, 201, made.text);
  await call(daemon.socket, "POST", "/containers/sweep/start");
  kept = await inventory();
});
after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

async function inventory(): Promise<unknown> {
  const container = await call<{ Id: string; Name: string; State: { Pid: number } }>(
    daemon.socket,
    "GET",
    "/containers/sweep/json",
  );
  const counts = [];
  for (const path of ["/containers/json?all=1", "/images/json?all=1"]) {
    counts.push((await call<unknown[]>(daemon.socket, "GET", path)).body?.length);
  }
  const volumes = await call<{ Volumes: unknown[] | null }>(daemon.socket, "GET", "/volumes");
  const { body } = container;
  return [body?.Id, body?.Name, body?.State.Pid, counts, volumes.body?.Volumes?.length ?? 0];
}

/**
 * The status of one raw request, 0 for a connection that was closed without an answer. A stream (events, a hijack) is left
 * after its first line.
 */
function statusOf(
  method: string,
  target: string,
  body = "",
  type = "application/json",
): Promise<[number, string]> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(daemon.socket);
    const timer = setTimeout(() => {
      socket.destroy();
      reject(new Error(`no answer: ${method} ${target.slice(0, 200)}`));
    }, 30_000);
    let text = "";
    const finish = (): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve([Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1] ?? 0), text]);
    };
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
      const [head, answer] = text.split("\r\n\r\n");
      const length = /^content-length: (\d+)/im.exec(head ?? "")?.[1];
      if (answer === undefined) return;
      if (length === undefined || answer.length >= Number(length)) finish();
    });
    socket.on("error", () => {});
    socket.on("close", finish);
    const length = Buffer.byteLength(body, "latin1");
    const bodyHead =
      method === "GET" || method === "HEAD" ? "" : `Content-Type: ${type}\r\nContent-Length: ${length}\r\n`;
    socket.write(`${method} ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${bodyHead}\r\n`);
    if (bodyHead !== "") socket.write(body, "latin1");
  });
}

/** How often each status was answered. */
const answers = new Map<number, number>();

/** Answers of 500 that Docker gives too: an operation that this container's state does not allow. */
const explained = [/is not paused/];

async function probe(
  method: string,
  target: string,
  body?: string,
  type?: string,
): Promise<string | undefined> {
  const [status, text] = await statusOf(method, target, body, type);
  answers.set(status, (answers.get(status) ?? 0) + 1);
  const shown = `${method} ${target.slice(0, 120)} ${body?.slice(0, 40) ?? ""} → ${status} ${text.split("\r\n\r\n")[1]?.slice(0, 200)}`;
  if (status === 0) return `closed without an answer: ${shown}`;
  if (status === 501 || status < 500) return undefined;
  return explained.some((pattern) => pattern.test(text)) ? undefined : shown;
}

/** Prunes delete what is unused by design, and a rename or kill of a real one is no malformed input. */
const withoutEffect = ({ pattern }: Route): boolean => !pattern.endsWith("/prune");

function fill({ pattern }: Route, name: string): string {
  return pattern.replace(/\{\w+(\.\.\.)?\}/g, name);
}

async function sweep(requests: readonly (() => Promise<string | undefined>)[]): Promise<void> {
  const wrong: string[] = [];
  for (const request of requests) {
    const found = await request();
    if (found !== undefined) wrong.push(found);
  }
  assert.deepEqual(wrong, []);
  // A volume without a name is no mistake: a body that says nothing makes one, as in Docker.
  await call(daemon.socket, "POST", "/v1.41/volumes/prune");
  assert.equal(daemon.child.exitCode, null, "the daemon ended");
  assert.deepEqual(await inventory(), kept);
}

test("every route is swept", () => {
  assert.ok(routes.length >= 50, `${routes.length} routes`);
});

test("names", async () => {
  const named = routes.filter(({ pattern }) => pattern.includes("{"));
  await sweep(
    named.flatMap((route) =>
      names.map(
        ([, segment]) =>
          () =>
            probe(route.method, fill(route, segment)),
      ),
    ),
  );
});

test("bodies", async () => {
  const taking = routes.filter(({ method }) => method !== "GET" && method !== "HEAD").filter(withoutEffect);
  await sweep(
    taking.flatMap((route) =>
      bodies.map(
        ([, body, type]) =>
          () =>
            probe(route.method, fill(route, "sweep-nope"), body, type),
      ),
    ),
  );
});

test("queries", async () => {
  await sweep(
    routes
      .filter(withoutEffect)
      .flatMap((route) =>
        queries.map((query) => () => probe(route.method, `${fill(route, "sweep-nope")}?${query}`)),
      ),
  );
});

test("bodies and queries on a container that is there", async () => {
  const harmless = ["resize", "update", "exec", "rename", "logs", "wait", "top", "changes", "json", "attach"];
  const own = routes.filter(
    ({ pattern }) =>
      pattern.startsWith("/containers/{id...}/") && harmless.some((word) => pattern.endsWith(`/${word}`)),
  );
  assert.ok(own.length >= harmless.length - 1);
  await sweep(
    own.flatMap((route) => [
      ...bodies
        .filter(([what]) => what !== "null")
        .map(
          ([, body, type]) =>
            () =>
              route.pattern.endsWith("/wait")
                ? Promise.resolve(undefined)
                : probe(route.method, fill(route, "sweep"), body, type),
        ),
      ...queries.map((query) => () => probe(route.method, `${fill(route, "sweep")}?${query}`)),
    ]),
  );
});

test("versions and targets", async () => {
  const targets = [
    ...[
      "/v1.51",
      "/v1.51/",
      "/v/_ping",
      "/v1/_ping",
      "/v1.51.2/_ping",
      "/v-1.51/_ping",
      "/v1.99999999999/_ping",
    ],
    ...[
      "//_ping",
      "/./_ping",
      "/../_ping",
      "/_ping/",
      "/v1.51//containers//json",
      "/%5fping",
      "/?",
      "*",
      "http://x/_ping",
    ],
    ...["/containers/json#x", `/${"a/".repeat(3000)}`, "/\u00e9"],
  ];
  await sweep(
    targets.flatMap((target) =>
      ["GET", "POST", "DELETE", "PUT", "PATCH", "BREW"].map((method) => () => probe(method, target)),
    ),
  );
});

test("nothing is left over, and the container still runs", async (t) => {
  t.diagnostic(JSON.stringify([...answers].sort()));
  assert.ok([...answers.values()].reduce((sum, count) => sum + count, 0) > 1000);
  assert.deepEqual(await leftOver(daemon), []);
  assert.deepEqual(await inventory(), kept);
  const log = daemon.log();
  assert.doesNotMatch(log, /"level":"error"/);
});
