import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect as connectTcp, type Socket } from "node:net";
import { test } from "node:test";
import { type ConnectionOptions, connect, type TLSSocket } from "node:tls";
import type { Log } from "#base/log.ts";
import { type CertificateOptions, type Issued, issueCertificate, makeAuthority } from "#wire/x509-make.ts";
import { createHttpFront } from "./listen.ts";
import { tcpBounds } from "./listen-bounds.ts";
import type { Handler, Route } from "./route.ts";

const hour = 3_600_000;
const now = Date.now();
const validity = { from: new Date(now - hour), until: new Date(now + 24 * hour) };
const authority = makeAuthority({ commonName: "test authority", ...validity });
const stranger = makeAuthority({ commonName: "test authority", ...validity });
const issue = (options: Partial<CertificateOptions> = {}, by = authority): Issued =>
  issueCertificate(by, { commonName: "someone", use: "client", ...validity, ...options });
const server = issue({ use: "server", hosts: ["localhost", "127.0.0.1"] });
const client = issue();

const refusals: string[] = [];
const log: Log = {
  debug: () => {},
  info: () => {},
  warn: (message, fields) => refusals.push(`${message} ${JSON.stringify(fields)}`),
  error: () => {},
  child: () => log,
};

const echo: Handler = async (exchange) => {
  const duplex = await exchange.hijack({ multiplexed: true });
  duplex.on("error", () => {});
  duplex.write("hello\n");
  const seen: Buffer[] = [];
  duplex.on("data", (chunk: Buffer) => seen.push(chunk));
  await once(duplex, "end");
  duplex.end(`got ${Buffer.concat(seen).toString()}`);
};

const flood: Handler = async (exchange) => {
  const answer = exchange.stream(200, "text/plain");
  for (let index = 0; index < 200; index += 1) {
    await answer.write(Buffer.alloc(64 * 1024, 0x61));
    written = index + 1;
  }
  answer.end();
};
let written = 0;

const routes: Route[] = [
  { method: "GET", pattern: "/small", handler: (x) => x.sendJson(200, { ok: true }) },
  { method: "POST", pattern: "/attach", handler: echo },
  { method: "GET", pattern: "/flood", handler: flood },
];
const front = createHttpFront({ routes, log });
const bounds = { ...tcpBounds, handshakesMax: 8, handshakeTimeoutMs: 60_000, idleTimeoutMs: 300 };
const listener = front.createTcpServer({
  tls: {
    cert: server.certificate,
    key: server.key,
    ca: [authority.certificate],
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: "TLSv1.2",
  },
  isOwnName: (name) => name === "docker.example",
  bounds,
});
listener.listen(0, "127.0.0.1");
await once(listener, "listening");
const { port } = listener.address() as AddressInfo;
test.after(async () => {
  listener.close();
  await front.close(100);
});

function open(by: Issued | undefined, options: ConnectionOptions = {}): TLSSocket {
  const all: ConnectionOptions & { allowHalfOpen: boolean } = {
    port,
    host: "127.0.0.1",
    servername: "localhost",
    ca: [authority.certificate],
    allowHalfOpen: true,
    ...(by === undefined ? {} : { cert: by.certificate, key: by.key }),
    ...options,
  };
  return connect(all);
}

/** Everything that comes back; rejects when the connection fails. */
async function ask(text: string, by: Issued | undefined, options: ConnectionOptions = {}): Promise<string> {
  const socket = open(by, options);
  socket.write(text);
  let answer = "";
  for await (const chunk of socket) answer += (chunk as Buffer).toString();
  socket.destroy();
  return answer;
}

/** As `ask`, for one that is not answered: how a connection is broken off differs between the versions of TLS. */
async function refusal(
  text: string,
  by: Issued | undefined,
  options: ConnectionOptions = {},
): Promise<string> {
  try {
    return await ask(text, by, options);
  } catch (error) {
    assert.match((error as NodeJS.ErrnoException).code ?? "", /^(ERR_SSL|ECONNRESET|EPIPE|EPROTO)/);
    return "";
  }
}

const get = (path: string, headers = "Host: 127.0.0.1:2376"): string =>
  `GET ${path} HTTP/1.1\r\n${headers}\r\nConnection: close\r\n\r\n`;

for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
  const options = { minVersion: version, maxVersion: version };

  test(`${version}: a client with a certificate is answered`, async () => {
    assert.match(await ask(get("/small"), client, options), /^HTTP\/1\.1 200 OK[\s\S]*\{"ok":true\}\n$/);
  });

  for (const [what, by] of [
    ["no certificate", undefined],
    ["a certificate of another authority of the same name", issue({}, stranger)],
    ["a certificate that has expired", issue({ until: new Date(now - 60_000) })],
    ["a certificate that is not valid yet", issue({ from: new Date(now + hour) })],
    ["a server's certificate", issue({ use: "server" })],
  ] as const) {
    test(`${version}: ${what} is refused`, async () => {
      assert.equal(await refusal(get("/small"), by, options), "");
    });
  }

  test(`${version}: the end of input ends stdin and nothing else`, async () => {
    const socket = open(client, options);
    socket.write(
      "POST /attach HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly ",
    );
    let answer = "";
    socket.on("data", (chunk: Buffer) => {
      // The end is sent only after output has come: both directions are open until then.
      if (answer === "") socket.end("input");
      answer += chunk.toString();
    });
    await once(socket, "end");
    assert.match(answer, /^HTTP\/1\.1 101 UPGRADED\r\n[\s\S]*hello\ngot early input$/);
  });
}

test("TLS older than 1.2, and HTTP without TLS, are refused", async () => {
  await assert.rejects(
    ask(get("/small"), client, {
      minVersion: "TLSv1.1",
      maxVersion: "TLSv1.1",
      ciphers: "DEFAULT:@SECLEVEL=0",
    }),
  );
  const socket = connectTcp(port, "127.0.0.1");
  socket.on("error", () => {});
  socket.write(get("/small"));
  let answer = "";
  socket.on("data", (chunk) => {
    answer += chunk.toString("latin1");
  });
  await once(socket, "close");
  assert.doesNotMatch(answer, /HTTP/);
});

test("requests from elsewhere are refused, also with a certificate", async () => {
  for (const headers of [
    "Host: evil.example",
    "Host: localhost\r\nOrigin: https://evil.example",
    "Host: localhost\r\nSec-Fetch-Site: cross-site",
  ]) {
    const answer = await ask(get("/small", headers), client);
    assert.match(answer, /^HTTP\/1\.1 403 Forbidden[\s\S]*"message":"request refused: /, headers);
  }
  assert.match(await ask(get("/small", "Host: docker.example:2376"), client), /^HTTP\/1\.1 200/);
});

test("handshakes that stall do not keep out those who have a certificate", async () => {
  const stalled: Socket[] = [];
  for (let index = 0; index < bounds.handshakesMax * 4; index += 1) {
    const socket = connectTcp(port, "127.0.0.1");
    socket.on("error", () => {});
    stalled.push(socket);
  }
  await Promise.all(stalled.map((socket) => socket.connecting && once(socket, "connect")));
  // The oldest are closed to make room.
  await Promise.all(
    stalled.slice(0, bounds.handshakesMax).map((socket) => socket.closed || once(socket.resume(), "close")),
  );
  assert.match(await ask(get("/small"), client), /^HTTP\/1\.1 200/);
  for (const socket of stalled) socket.destroy();
});

test("a reader that stops reading stops the writer", async () => {
  const socket = open(client);
  written = 0;
  socket.write(get("/flood"));
  await once(socket, "readable");
  let before = -1;
  // Not a byte is taken: the buffers on the way fill up, and then nothing more is written.
  while (before !== written) {
    before = written;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  assert.ok(written < 200, `${written} pieces were written for nobody`);
  let bytes = 0;
  for await (const chunk of socket) bytes += (chunk as Buffer).length;
  assert.ok(bytes > 200 * 64 * 1024);
  socket.destroy();
});

test("a connection that is idle ends, one that waits for its answer does not", async () => {
  const socket = open(client);
  socket.write("GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n");
  socket.resume();
  await once(socket, "end");
  socket.destroy();
});

test("new certificates count for new connections", async () => {
  const other = makeAuthority({ commonName: "another authority", ...validity });
  const next = issue({ use: "server", hosts: ["localhost"] }, other);
  const context = (by: Issued, ca: Issued): object => ({
    cert: by.certificate,
    key: by.key,
    ca: [ca.certificate],
    minVersion: "TLSv1.2",
  });
  const before = open(client);
  await once(before, "secureConnect");
  assert.ok("setSecureContext" in listener);
  listener.setSecureContext(context(next, other));
  before.write(get("/small"));
  const [answer] = await once(before, "data");
  assert.match(String(answer), /^HTTP\/1\.1 200/);
  before.destroy();
  await assert.rejects(ask(get("/small"), client), /self-signed|issuer|unable to verify/);
  const theirs = { ca: [other.certificate] };
  assert.equal(await refusal(get("/small"), client, theirs), "");
  assert.match(await ask(get("/small"), issue({}, other), theirs), /^HTTP\/1\.1 200/);
  listener.setSecureContext(context(server, authority));
});

test("who is turned away is told to the log on one line, with the reason, not too often", () => {
  const seconds = (Date.now() - now) / 1000;
  assert.ok(refusals.length > 0 && refusals.length <= seconds + 1, refusals.join("\n"));
  for (const line of refusals) {
    assert.match(line, /^a TLS handshake failed \{"from":"127\.0\.0\.1 \d+","reason":"[^"\n]+"/);
  }
  assert.match(refusals[0]!, /peer did not return a certificate/);
});
