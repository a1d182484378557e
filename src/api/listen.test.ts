import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { EngineError } from "#base/errors.ts";
import { silentLog } from "#base/log.ts";
import * as go from "#wire/go-json.ts";
import { createHttpFront } from "./listen.ts";
import type { Exchange, Handler, Route } from "./route.ts";

const aborted: string[] = [];
const unreadBegun = Promise.withResolvers<void>();
const names = go.struct("Body", { Name: go.string });

const echo: Handler = async (exchange) => {
  const duplex = await exchange.hijack({ multiplexed: true });
  duplex.on("error", () => {});
  duplex.write("hello\n");
  const seen: Buffer[] = [];
  duplex.on("data", (chunk: Buffer) => seen.push(chunk));
  await once(duplex, "end");
  duplex.end(`got ${Buffer.concat(seen).toString()}`);
};

async function upload(exchange: Exchange): Promise<void> {
  await sleep(20);
  let bytes = 0;
  for await (const chunk of exchange.body()) bytes += (chunk as Buffer).length;
  exchange.sendJson(200, { bytes });
}

async function forever(exchange: Exchange): Promise<void> {
  const answer = exchange.stream(200, "application/json");
  exchange.signal.addEventListener("abort", () => aborted.push(exchange.path));
  await new Promise((resolve) => exchange.signal.addEventListener("abort", resolve, { once: true }));
  answer.end();
}

async function flood(exchange: Exchange): Promise<void> {
  const answer = exchange.stream(200, "text/plain");
  const chunk = Buffer.alloc(64 * 1024, 0x61);
  for (let i = 0; i < 400; i += 1) await answer.write(chunk);
  answer.end();
}

const routes: Route[] = [
  { method: "GET", pattern: "/small", handler: (x) => x.sendJson(200, { version: x.apiVersion }) },
  { method: "HEAD", pattern: "/small", handler: (x) => x.sendJson(200, { a: 1 }) },
  { method: "GET", pattern: "/images/{name...}/json", handler: (x) => x.sendJson(200, x.params) },
  { method: "POST", pattern: "/json", handler: async (x) => x.sendJson(200, await x.json(names)) },
  { method: "POST", pattern: "/upload", handler: upload },
  { method: "POST", pattern: "/early", handler: (x) => x.sendEmpty(204) },
  { method: "POST", pattern: "/attach", handler: echo },
  { method: "GET", pattern: "/forever", handler: forever },
  { method: "GET", pattern: "/flood", handler: flood },
  {
    method: "GET",
    pattern: "/conflict",
    handler: () => {
      throw new EngineError("conflict", 'is "<in>" use');
    },
  },
  {
    method: "GET",
    pattern: "/bug",
    handler: () => {
      throw new TypeError("a bug");
    },
  },
  { method: "GET", pattern: "/silent", handler: () => {} },
  {
    method: "POST",
    pattern: "/unread",
    handler: async (x) => {
      x.body();
      unreadBegun.resolve();
      await new Promise((resolve) => x.signal.addEventListener("abort", resolve, { once: true }));
      aborted.push(x.path);
      throw new EngineError("cancelled", "gone");
    },
  },
  {
    method: "GET",
    pattern: "/half",
    handler: async (x) => {
      await x.stream(200, "text/plain").write("some");
      throw new Error("late");
    },
  },
];

const directory = mkdtempSync(join(tmpdir(), "skiff-http-"));
const socketPath = join(directory, "socket");
const front = createHttpFront({ routes, log: silentLog });
const server = front.createServer().listen(socketPath);
await once(server, "listening");
test.after(async () => {
  server.close();
  await front.close(100);
  rmSync(directory, { recursive: true });
});

/** Sends text as it is, and gives all that comes back until the server ends or `until` appears. */
async function raw(text: string, options: { end?: boolean; until?: string } = {}): Promise<string> {
  const socket: Socket = connect({ path: socketPath, allowHalfOpen: true });
  socket.write(text, "latin1");
  if (options.end ?? false) socket.end();
  let answer = "";
  for await (const chunk of socket) {
    answer += (chunk as Buffer).toString("latin1");
    if (options.until !== undefined && answer.includes(options.until)) break;
  }
  socket.destroy();
  return answer;
}

const get = (path: string, extra = ""): string =>
  `GET ${path} HTTP/1.1\r\nHost: x\r\n${extra}Connection: close\r\n\r\n`;
const bodyOf = (answer: string): string => answer.slice(answer.indexOf("\r\n\r\n") + 4);

test("an answer carries the headers that clients negotiate by", async () => {
  const answer = await raw(get("/small"));
  assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
  for (const header of ["Api-Version: 1.51", "Docker-Experimental: false", "Ostype: linux"]) {
    assert.ok(answer.includes(`\r\n${header}\r\n`), header);
  }
  assert.match(answer, /\r\nServer: Skiff\/[0-9.]+ \(linux\)\r\n/);
  assert.equal(bodyOf(answer), '{"version":{"major":1,"minor":51}}\n');
});

test("a version in the path is taken, and refused in Docker's words outside 1.24 to 1.51", async () => {
  assert.equal(bodyOf(await raw(get("/v1.24/small"))), '{"version":{"major":1,"minor":24}}\n');
  const tooNew = await raw(get("/v1.52/small"));
  assert.match(tooNew, /^HTTP\/1\.1 400 /);
  assert.equal(
    bodyOf(tooNew),
    '{"message":"client version 1.52 is too new. Maximum supported API version is 1.51"}\n',
  );
  assert.equal(
    bodyOf(await raw(get("/v1.23/small"))),
    '{"message":"client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"}\n',
  );
});

for (const path of ["/nothing", "/v1.40/nothing", "/v9.9/nothing", "/small/", "/"]) {
  test(`no route for ${path}`, async () => {
    const answer = await raw(get(path));
    assert.match(answer, /^HTTP\/1\.1 404 /);
    assert.equal(bodyOf(answer), '{"message":"page not found"}\n');
  });
}

test("image names keep their slashes, escaped or not", async () => {
  for (const name of ["host:5000/a/b:tag", "host:5000%2Fa%2Fb%3Atag"]) {
    assert.equal(bodyOf(await raw(get(`/v1.41/images/${name}/json`))), '{"name":"host:5000/a/b:tag"}\n');
  }
});

test("an unclean path is redirected as Docker's router does", async () => {
  assert.match(
    await raw(get("/v1.41//small?a=b")),
    /^HTTP\/1\.1 301 .*\r\nLocation: \/v1\.41\/small\?a=b\r\n/s,
  );
});

test("errors of the engine and faults of ours are answers", async () => {
  assert.match(await raw(get("/conflict")), /^HTTP\/1\.1 409 .*{"message":"is \\"<in>\\" use"}\n$/s);
  assert.match(await raw(get("/bug")), /^HTTP\/1\.1 500 .*{"message":"a bug"}\n$/s);
  assert.match(await raw(get("/silent")), /^HTTP\/1\.1 500 /);
});

test("a failure in the middle of a stream breaks the connection, so that it is not taken for the end", async () => {
  const answer = await raw(get("/half"));
  assert.ok(answer.includes("some") && !answer.endsWith("0\r\n\r\n"));
});

test("requests on one connection are answered in order, pipelined ones too", async () => {
  const one = "GET /v1.30/small HTTP/1.1\r\nHost: x\r\n\r\n";
  const answer = await raw(
    `${one}POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde${get("/v1.31/small")}`,
  );
  assert.deepEqual(
    [...answer.matchAll(/HTTP\/1\.1 (\d+)/g)].map((match) => match[1]),
    ["200", "204", "200"],
  );
  assert.ok(answer.indexOf('"minor":30') < answer.indexOf('"minor":31'));
});

test("HEAD has the length and no body; HTTP/1.0 is answered and closed", async () => {
  const head = await raw("HEAD /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  assert.match(head, /Content-Length: 8\r\n/);
  assert.equal(bodyOf(head), "");
  assert.match(await raw("GET /small HTTP/1.0\r\n\r\n"), /^HTTP\/1\.1 200 .*Connection: close/s);
});

const post = (headers: string, body: string): string =>
  `POST /json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${headers}\r\n${body}`;

for (const [name, headers, body, expected] of [
  ["json", "Content-Type: application/json\r\nContent-Length: 12\r\n", '{"name":"a"}', '{"Name":"a"}'],
  [
    "chunked json",
    "Content-Type: application/json; charset=utf-8\r\nTransfer-Encoding: chunked\r\n",
    '5\r\n{"nam\r\n7;x=y\r\ne":"b"}\r\n0\r\nT: v\r\n\r\n',
    '{"Name":"b"}',
  ],
  [
    "another type",
    "Content-Type: text/plain\r\nContent-Length: 2\r\n",
    "{}",
    `{"message":"unsupported Content-Type header (text/plain): must be 'application/json'"}`,
  ],
  [
    "no type",
    "Content-Length: 2\r\n",
    "{}",
    '{"message":"malformed Content-Type header (): mime: no media type"}',
  ],
  ["no body", "", "", '{"message":"invalid JSON: got EOF while reading request body"}'],
] as const) {
  test(`a request body: ${name}`, async () => {
    assert.equal(bodyOf(await raw(post(headers, body))), `${expected}\n`);
  });
}

test("a body over the bound is refused, and its connection ends", async () => {
  const size = 9 * 1024 * 1024;
  const answer = await raw(
    post(`Content-Type: application/json\r\nContent-Length: ${size}\r\n`, `"${"a".repeat(size - 2)}"`),
  );
  assert.match(answer, /^HTTP\/1\.1 400 .*request body too large/s);
});

for (const [name, text, status] of [
  ["no HTTP at all", "\x16\x03\x01\r\n\r\n", 400],
  ["no host", "GET / HTTP/1.1\r\n\r\n", 400],
  ["two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400],
  [
    "length and chunked",
    "POST /json HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    400,
  ],
  [
    "differing lengths",
    "POST /json HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
    400,
  ],
  ["negative length", "POST /json HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400],
  ["a folded header", "GET /small HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", 400],
  ["space before the colon", "GET /small HTTP/1.1\r\nHost : a\r\n\r\n", 400],
  ["unknown coding", "POST /json HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501],
  ["HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505],
  ["a head without end", `GET /small HTTP/1.1\r\nHost: a\r\nX: ${"a".repeat(1_100_000)}`, 431],
  ["bad escapes", get("/images/%zz/json"), 400],
  ["a NUL in the path", get("/images/%00/json"), 400],
] as const) {
  test(`refused: ${name}`, async () => {
    assert.match(await raw(text), new RegExp(`^HTTP/1\\.1 ${status} `));
  });
}

test("headers with names of object internals are plain headers", async () => {
  assert.match(await raw(get("/small", "__proto__: x\r\nconstructor: y\r\n")), /^HTTP\/1\.1 200 /);
});

test("a body that the client sent whole before it half-closed is read whole; one cut off is an error", async () => {
  const head = "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n";
  assert.match(await raw(`${head}0123456789`, { end: true }), /{"bytes":10}/);
  assert.match(await raw(`${head}01234`, { end: true }), /unexpected EOF while reading the request body/);
});

test("a client that breaks off an upload, or an attach, that nobody reads harms nobody", async () => {
  for (const [head, begun] of [
    ["POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc", unreadBegun.promise],
    ["POST /attach HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", sleep(20)],
  ] as const) {
    const socket = connect({ path: socketPath });
    socket.on("error", () => {});
    // Sent for certain: what is destroyed while it connects sends nothing.
    await new Promise((resolve) => socket.write(head, resolve));
    await begun;
    socket.destroy();
  }
  for (let i = 0; i < 4000 && !aborted.includes("/unread"); i += 1) await sleep(5);
  assert.ok(aborted.includes("/unread"));
  assert.match(await raw(get("/small")), /^HTTP\/1\.1 200 /);
});

test("Expect: 100-continue is answered when the body is wanted, and only then", async () => {
  const head = "HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
  assert.match(await raw(`POST /upload ${head}`, { until: "100 Continue" }), /^HTTP\/1\.1 100 Continue/);
  const refused = await raw(`POST /early ${head}`);
  assert.match(refused, /^HTTP\/1\.1 204 /);
});

const upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
for (const [name, headers, body, status, type] of [
  ["with upgrade", upgrade, "", "101 UPGRADED", "multiplexed"],
  ["without", "", "", "200 OK", "raw"],
  [
    "with upgrade and options as JSON",
    `${upgrade}Content-Type: application/json\r\nContent-Length: 15\r\n`,
    '{"stream":true}',
    "101 UPGRADED",
    "multiplexed",
  ],
  ["without, options as JSON", "Content-Length: 15\r\n", '{"stream":true}', "200 OK", "raw"],
  [
    "chunked options, ended",
    `${upgrade}Transfer-Encoding: chunked\r\n`,
    'f\r\n{"stream":true}\r\n0\r\n\r\n',
    "101 UPGRADED",
    "multiplexed",
  ],
  [
    "chunked and empty",
    `${upgrade}Transfer-Encoding: chunked\r\n`,
    "0\r\n\r\n",
    "101 UPGRADED",
    "multiplexed",
  ],
] as const) {
  for (const early of [true, false]) {
    test(`attach ${name}: ${early ? "early input is kept" : "input later"}, the end of input ends input only`, async () => {
      const head = `POST /v1.42/attach HTTP/1.1\r\nHost: x\r\n${headers}\r\n${body}`;
      const socket = connect({ path: socketPath, allowHalfOpen: true });
      socket.write(early ? `${head}early ` : head);
      let answer = "";
      socket.on("data", (chunk: Buffer) => {
        answer += chunk.toString();
      });
      while (!answer.includes("hello\n")) await sleep(1);
      socket.end("late");
      await once(socket, "end");
      socket.destroy();
      assert.ok(
        answer.startsWith(`HTTP/1.1 ${status}\r\nContent-Type: application/vnd.docker.${type}-stream\r\n`),
        answer,
      );
      assert.equal(bodyOf(answer), `hello\ngot ${early ? "early " : ""}late`);
    });
  }
}

test("attach with input that ended before the answer", async () => {
  const answer = await raw(`POST /v1.41/attach HTTP/1.1\r\nHost: x\r\n${upgrade}\r\nall of it`, {
    end: true,
  });
  assert.match(answer, /vnd\.docker\.raw-stream/);
  assert.equal(bodyOf(answer), "hello\ngot all of it");
});

test("chunked input without end is unframed (docker-modem's openStdin)", async () => {
  const socket = connect({ path: socketPath, allowHalfOpen: true });
  socket.write(
    "POST /attach HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n3\r\nabc\r\n",
  );
  await sleep(20);
  socket.end("0\r\n\r\n");
  let answer = "";
  for await (const chunk of socket) answer += chunk;
  assert.equal(bodyOf(answer), "hello\ngot abc");
});

test("an upgrade that a route does not take is ignored (curl --http2 asks for h2c)", async () => {
  const answer = await raw(get("/small", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"));
  assert.match(answer, /^HTTP\/1\.1 200 OK/);
});

test("headers of a stream come before its first byte, and the signal tells that the client has gone", async () => {
  const client = request({ socketPath, path: "/forever" }).end();
  const [response] = await once(client, "response");
  assert.equal(response.statusCode, 200);
  client.on("error", () => {});
  client.destroy();
  for (let i = 0; i < 4000 && !aborted.includes("/forever"); i += 1) await sleep(5);
  assert.ok(aborted.includes("/forever"));
});

test("a reader that stops reading stops the writer", async () => {
  const socket = connect({ path: socketPath });
  socket.write(get("/flood"));
  socket.pause();
  const before = process.memoryUsage().rss;
  await sleep(200);
  assert.ok(process.memoryUsage().rss - before < 16 * 1024 * 1024);
  let bytes = 0;
  for await (const chunk of socket) bytes += (chunk as Buffer).length;
  assert.ok(bytes > 400 * 64 * 1024);
});

test("closing waits for a request in flight and takes no new one", async () => {
  let finish: (() => void) | undefined;
  const slow: Route = {
    method: "GET",
    pattern: "/slow",
    handler: async (x) => {
      await new Promise<void>((resolve) => {
        finish = resolve;
      });
      x.sendEmpty(204);
    },
  };
  const path = join(directory, "second");
  const second = createHttpFront({ routes: [slow], log: silentLog });
  const listening = second.createServer().listen(path);
  await once(listening, "listening");
  const socket = connect({ path });
  socket.write("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
  while (finish === undefined) await sleep(1);
  listening.close();
  const closed = second.close(5_000);
  await sleep(20);
  finish();
  let answer = "";
  for await (const chunk of socket) answer += chunk;
  await closed;
  assert.match(answer, /^HTTP\/1\.1 204 .*Connection: close/s);
});

test("connections that come before the front is open wait for it; those left are broken off at the end", async () => {
  const path = join(directory, "early");
  const early = createHttpFront({ log: silentLog });
  const listening = early.createServer().listen(path);
  await once(listening, "listening");
  const waiting = request({ socketPath: path, path: "/small", agent: false }).end();
  const left = connect({ path });
  await Promise.all([once(waiting, "socket"), once(left, "connect")]);
  left.destroy();
  early.open(routes);
  const [response] = await once(waiting, "response");
  assert.equal(response.statusCode, 200);
  response.resume();
  listening.close();
  await early.close(100);

  const never = createHttpFront({ log: silentLog });
  const refusing = never.createServer().listen(join(directory, "never"));
  await once(refusing, "listening");
  const hopeless = connect({ path: join(directory, "never") });
  await once(hopeless, "connect");
  const ended = once(hopeless.resume(), "close");
  refusing.close();
  await never.close(100);
  // One that the server had not seen by then meets a closed front.
  await ended;
});
