import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, before, describe, it } from "node:test";
import { ApiError, ConnectionError } from "./api-error.ts";
import { ApiClient, compareApiVersions, jsonStream, parseJson, readText } from "./client.ts";
import { parseEndpoint } from "./endpoint.ts";
import { demultiplex } from "./stdio-demux.ts";

/** A server that answers with bytes as they stand: what a daemon or a proxy may send, split anywhere. */
describe("the API client on raw answers", () => {
  const home = mkdtempSync(join(tmpdir(), "skiff-sdk-"));
  const socket = join(home, "s");
  let server: Server;
  const open = new Set<Socket>();
  let connections = 0;
  let received = "";
  let respond: (connection: Socket, request: string) => void = () => {};

  before(async () => {
    server = createServer({ allowHalfOpen: true }, (connection) => {
      connections += 1;
      open.add(connection);
      connection.on("error", () => {});
      connection.on("data", (chunk) => {
        const text = chunk.toString("latin1");
        received += text;
        if (text.startsWith("HEAD /_ping"))
          connection.write(
            "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nOstype: linux\r\nContent-Length: 2\r\n\r\n",
          );
        else respond(connection, text);
      });
    });
    await new Promise<void>((resolve) => server.listen(socket, resolve));
  });
  after(() => {
    for (const connection of open) connection.destroy();
    server.close();
    rmSync(home, { recursive: true });
  });

  const client = (): ApiClient =>
    new ApiClient({ endpoint: parseEndpoint(`unix://${socket}`), userAgent: "test" });
  const slowly = (connection: Socket, text: string): void => {
    const step = (at: number): void => {
      if (at >= text.length) return;
      connection.write(text.slice(at, at + 3), "latin1");
      setImmediate(() => step(at + 3));
    };
    step(0);
  };

  it("negotiates down, and uses a connection again", async () => {
    connections = 0;
    const api = client();
    respond = (connection) =>
      slowly(
        connection,
        'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{"a":1}',
      );
    assert.deepEqual(await api.json("GET", "/x"), { a: 1 });
    assert.deepEqual(await api.json("GET", "/x"), { a: 1 });
    assert.equal(await api.apiVersion(), "1.41");
    assert.equal(connections, 1);
    assert.match(received, /GET \/v1\.41\/x HTTP\/1\.1\r\n/);
    api.close();
  });

  it("reads chunks cut anywhere, with extensions and trailers", async () => {
    const api = client();
    respond = (connection) =>
      slowly(
        connection,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX: y\r\n\r\n",
      );
    assert.equal(await api.text("GET", "/x"), "hello world");
    assert.equal(await api.text("GET", "/x"), "hello world");
    api.close();
  });

  it("an error's message is the daemon's; 304 and an interim 100 are no errors", async () => {
    const api = client();
    respond = (connection) =>
      connection.write('HTTP/1.1 404 Not Found\r\nContent-Length: 29\r\n\r\n{"message":"No such thing."}\n');
    await assert.rejects(
      api.json("GET", "/x"),
      (error) =>
        error instanceof ApiError &&
        error.status === 404 &&
        error.kind === "notFound" &&
        error.message === "No such thing.",
    );
    respond = (connection) =>
      connection.write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n");
    assert.equal(await api.run("POST", "/x"), 304);
    api.close();
  });

  it("a body cut short, garbage and a reset are connection errors", async () => {
    for (const answer of [
      "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
      "nonsense\r\n\r\n",
      "",
    ]) {
      respond = (connection) => connection.end(answer);
      const api = client();
      await assert.rejects(api.text("POST", "/x"), (error) => error instanceof ConnectionError);
      api.close();
    }
  });

  it("hijacks, half-closes, and sees output that came with the head", async () => {
    respond = (connection, text) => {
      if (!text.startsWith("POST")) return;
      connection.write("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nfirst ");
      connection.on("end", () => connection.end("last"));
    };
    const { stream } = await client().hijack("/attach");
    stream.end("input");
    assert.equal(await readText(stream as unknown as Readable), "first last");
    assert.match(received, /input/);
  });

  it("an abort ends a body that never ends", async () => {
    respond = (connection) =>
      connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    const abort = new AbortController();
    const response = await client().request("GET", "/x", { signal: abort.signal });
    setTimeout(() => abort.abort(), 20);
    await assert.rejects(readText(response.body));
  });

  it("a missing daemon has Docker's words", async () => {
    const api = new ApiClient({ endpoint: parseEndpoint("unix:///nope/x"), userAgent: "t" });
    await assert.rejects(api.ping(), {
      message: "Cannot connect to the Docker daemon at unix:///nope/x. Is the docker daemon running?",
      code: "no-daemon",
    });
  });
});

describe("streams", () => {
  it("JSON objects a line, run together by \\r\\n, and without a last newline", async () => {
    const parts = ['{"a":', '1}\r\n{"a":2}\n', '{"a":3}', "\n\n", '{"a":4}'];
    const seen: unknown[] = [];
    for await (const item of jsonStream(Readable.from(parts.map((part) => Buffer.from(part)))))
      seen.push(item);
    assert.deepEqual(seen, [{ a: 1 }, { a: 2 }, { a: 3 }, { a: 4 }]);
  });

  it("integers beyond 2^53 stay exact", () => {
    assert.deepEqual(parseJson('{"n":1795530207525594691,"s":"1795530207525594691","f":1.5}'), {
      n: 1795530207525594691n,
      s: "1795530207525594691",
      f: 1.5,
    });
  });

  it("frames are split to their streams, however they are cut", async () => {
    const frame = (stream: number, text: string): Buffer => {
      const head = Buffer.alloc(8);
      head[0] = stream;
      head.writeUInt32BE(Buffer.byteLength(text), 4);
      return Buffer.concat([head, Buffer.from(text)]);
    };
    const bytes = Buffer.concat([frame(1, "out1"), frame(2, "err"), frame(1, ""), frame(1, "out2")]);
    for (const size of [1, 3, 7, 100]) {
      const cut = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
        bytes.subarray(index * size, (index + 1) * size),
      );
      const texts = { out: "", err: "" };
      const sink = (name: "out" | "err") =>
        ({
          write: (chunk: Buffer) => {
            texts[name] += chunk;
            return true;
          },
          destroyed: false,
        }) as never;
      await demultiplex(Readable.from(cut), sink("out"), sink("err"));
      assert.deepEqual(texts, { out: "out1out2", err: "err" });
    }
    await assert.rejects(
      demultiplex(Readable.from([frame(3, "broken")]), undefined, undefined),
      /error from daemon in stream: broken/,
    );
    await assert.rejects(
      demultiplex(Readable.from([Buffer.from("plain text that is no frame")]), undefined, undefined),
      /Unrecognized input header/,
    );
  });

  it("versions compare by number", () => {
    assert.ok(compareApiVersions("1.9", "1.41") < 0);
    assert.equal(compareApiVersions("1.41", "1.41"), 0);
  });
});
