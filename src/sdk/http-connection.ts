/**
 * The little HTTP/1.1 that an Engine API client needs, over any duplex: one request at a time, fixed and chunked
 * bodies, and an upgrade that hands the raw stream over. It exists because loading `node:http` costs the command
 * line more time than a whole request does, and because attach needs half-close on the bare connection.
 */
import { type Duplex, Readable } from "node:stream";
import { ConnectionError } from "./api-error.ts";
import { requestFailure, streamWords } from "./connect-failure.ts";

/** A response head beyond this is not a daemon's. */
const headBytesMax = 64 * 1024;
const chunkLineBytesMax = 1024;

export interface RequestHead {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** A stream is sent chunked. */
  readonly body?: string | Uint8Array | Readable | undefined;
}

export interface Response {
  readonly status: number;
  readonly reason: string;
  /** Lower-case names; of a repeated header the last one. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  /** Must be read to its end or destroyed: the connection is busy until then. */
  readonly body: Readable;
}

export interface Upgraded {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly stream: Duplex;
}

interface Head {
  status: number;
  reason: string;
  headers: Record<string, string | undefined>;
  rest: Buffer;
}

export class HttpConnection {
  readonly #stream: Duplex;
  #closed = false;
  #busy = false;

  constructor(stream: Duplex) {
    this.#stream = stream;
    stream.on("close", () => {
      this.#closed = true;
    });
    // A reader in flight has listeners of its own; this one keeps an idle connection's reset from being fatal.
    stream.on("error", () => {
      this.#closed = true;
    });
    stream.on("end", () => {
      this.#closed = true;
    });
  }

  /** True when another request can be sent. */
  get usable(): boolean {
    return !this.#closed && !this.#busy;
  }

  destroy(): void {
    this.#closed = true;
    this.#stream.destroy();
  }

  /** Keeps an idle connection from holding the process, or lets it again. */
  setIdle(idle: boolean): void {
    const socket = this.#stream as Duplex & { ref?: () => void; unref?: () => void };
    if (idle) socket.unref?.();
    else socket.ref?.();
  }

  /**
   * Sends one request and waits for the answer's head. `onFree` is called when the body was read to its end and the
   * connection can take another request.
   */
  async send(request: RequestHead, signal?: AbortSignal, onFree?: () => void): Promise<Response> {
    const head = await this.#exchange(request, signal);
    const done = (reusable: boolean): void => {
      this.#busy = false;
      if (!reusable || head.headers["connection"]?.toLowerCase() === "close") this.destroy();
      else onFree?.();
    };
    const body = this.#bodyOf(request.method, head, done);
    if (signal !== undefined) {
      const abort = (): void => {
        body.destroy(abortError(signal));
      };
      if (signal.aborted) abort();
      else {
        signal.addEventListener("abort", abort, { once: true });
        body.once("close", () => signal.removeEventListener("abort", abort));
      }
    }
    return { status: head.status, reason: head.reason, headers: head.headers, body };
  }

  /** Sends a request that takes the connection over. When the answer is no success, `refused` holds the answer. */
  async upgrade(request: RequestHead, signal?: AbortSignal): Promise<Upgraded | { refused: Response }> {
    const head = await this.#exchange(request, signal);
    if (head.status !== 101 && head.status !== 200) {
      const body = this.#bodyOf(request.method, head, () => this.destroy());
      return { refused: { status: head.status, reason: head.reason, headers: head.headers, body } };
    }
    if (head.rest.length > 0) this.#stream.unshift(head.rest);
    return { status: head.status, headers: head.headers, stream: this.#stream };
  }

  async #exchange(request: RequestHead, signal?: AbortSignal): Promise<Head> {
    signal?.throwIfAborted();
    this.#busy = true;
    const answer = this.#readHead(signal);
    this.#write(request);
    let head = await answer;
    while (head.status === 100) {
      if (head.rest.length > 0) this.#stream.unshift(head.rest);
      head = await this.#readHead(signal);
    }
    return head;
  }

  #write(request: RequestHead): void {
    const { body } = request;
    const lines = [`${request.method} ${request.path} HTTP/1.1`];
    for (const [name, value] of Object.entries(request.headers)) {
      if (/[\r\n]/.test(value)) throw new ConnectionError(`header ${name} holds a line break`);
      lines.push(`${name}: ${value}`);
    }
    if (body instanceof Readable) {
      this.#stream.write(`${lines.join("\r\n")}\r\nTransfer-Encoding: chunked\r\n\r\n`);
      this.#writeChunked(body);
      return;
    }
    const bytes = body === undefined ? undefined : typeof body === "string" ? Buffer.from(body) : body;
    if (bytes !== undefined) lines.push(`Content-Length: ${bytes.length}`);
    else if (request.method !== "GET" && request.method !== "HEAD") lines.push("Content-Length: 0");
    const head = Buffer.from(`${lines.join("\r\n")}\r\n\r\n`);
    this.#stream.write(bytes === undefined ? head : Buffer.concat([head, bytes]));
  }

  #writeChunked(body: Readable): void {
    body.on("data", (chunk: Buffer | string) => {
      const bytes = typeof chunk === "string" ? Buffer.from(chunk) : chunk;
      if (bytes.length === 0 || this.#closed) return;
      this.#stream.write(`${bytes.length.toString(16)}\r\n`);
      this.#stream.write(bytes);
      if (!this.#stream.write("\r\n")) {
        body.pause();
        this.#stream.once("drain", () => body.resume());
      }
    });
    body.on("end", () => this.#stream.write("0\r\n\r\n"));
    body.on("error", (error) => this.#stream.destroy(error));
  }

  #readHead(signal?: AbortSignal): Promise<Head> {
    const stream = this.#stream;
    return new Promise((resolve, reject) => {
      let seen: Buffer = Buffer.alloc(0);
      const finish = (act: () => void): void => {
        stream.removeListener("data", onData);
        stream.removeListener("error", onError);
        stream.removeListener("end", onEnd);
        stream.removeListener("close", onEnd);
        signal?.removeEventListener("abort", onAbort);
        act();
      };
      const fail = (error: Error): void =>
        finish(() => {
          this.destroy();
          reject(error);
        });
      const onError = (cause: Error): void =>
        fail(cause instanceof ConnectionError ? cause : requestFailure(streamWords(cause), cause));
      const onEnd = (): void => fail(seen.length === 0 ? requestFailure("EOF", undefined) : malformed(seen));
      const onAbort = (): void => fail(abortError(signal!));
      const onData = (chunk: Buffer): void => {
        seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk]);
        const end = seen.indexOf("\r\n\r\n");
        if (end < 0) {
          if (seen.length > headBytesMax) fail(new ConnectionError("response head is too long"));
          return;
        }
        stream.pause();
        const head = parseHead(seen.toString("latin1", 0, end), seen.subarray(end + 4));
        if (head === undefined) fail(malformed(seen));
        else finish(() => resolve(head));
      };
      stream.on("data", onData);
      stream.once("error", onError);
      stream.once("end", onEnd);
      stream.once("close", onEnd);
      signal?.addEventListener("abort", onAbort, { once: true });
      stream.resume();
    });
  }

  /** A readable of the body; `done(reusable)` is called once, when its last byte was seen or it was given up. */
  #bodyOf(method: string, head: Head, done: (reusable: boolean) => void): Readable {
    const { headers, status } = head;
    const empty = method === "HEAD" || status === 204 || status === 304;
    const length = headers["content-length"];
    let decoder: BodyDecoder;
    if (empty || length === "0") decoder = new LengthDecoder(0);
    else if (headers["transfer-encoding"]?.toLowerCase().includes("chunked")) decoder = new ChunkedDecoder();
    else if (length !== undefined) decoder = new LengthDecoder(Number(length));
    else decoder = new LengthDecoder(Number.POSITIVE_INFINITY);
    return pumpBody(this.#stream, head.rest, decoder, done);
  }
}

function abortError(signal: AbortSignal): Error {
  return signal.reason instanceof Error ? signal.reason : new Error("aborted");
}

/** What answers is no HTTP server; a TLS server's alert looks like this. */
function malformed(seen: Buffer): ConnectionError {
  const line = JSON.stringify(seen.toString("latin1").split(/\r?\n/, 1)[0]!.slice(0, 80));
  return requestFailure(
    `malformed HTTP response ${line}.\n* Are you trying to connect to a TLS-enabled daemon without TLS?`,
    undefined,
    "malformed",
  );
}

function parseHead(text: string, rest: Buffer): Head | undefined {
  const lines = text.split("\r\n");
  const match = /^HTTP\/1\.[01] (\d{3})(?: (.*))?$/.exec(lines[0]!);
  if (match === null) return undefined;
  const headers: Record<string, string | undefined> = Object.create(null);
  for (const line of lines.slice(1)) {
    const colon = line.indexOf(":");
    if (colon > 0) headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
  }
  return { status: Number(match[1]), reason: match[2] ?? "", headers, rest };
}

/** Takes the bytes of the connection, gives those of the body; `ended` once its last byte was seen. */
interface BodyDecoder {
  readonly ended: boolean;
  /** Whether the end of the connection ends the body well. */
  readonly endsWithConnection: boolean;
  decode(bytes: Buffer, emit: (part: Buffer) => void): void;
}

class LengthDecoder implements BodyDecoder {
  #left: number;

  constructor(length: number) {
    this.#left = Number.isNaN(length) || length < 0 ? 0 : length;
  }
  get ended(): boolean {
    return this.#left === 0;
  }
  get endsWithConnection(): boolean {
    return this.#left === Number.POSITIVE_INFINITY;
  }
  decode(bytes: Buffer, emit: (part: Buffer) => void): void {
    const part = bytes.length > this.#left ? bytes.subarray(0, this.#left) : bytes;
    this.#left -= part.length;
    if (part.length > 0) emit(part);
  }
}

class ChunkedDecoder implements BodyDecoder {
  readonly endsWithConnection = false;
  #state: "size" | "data" | "dataEnd" | "trailer" | "ended" = "size";
  #left = 0;
  #line = "";

  get ended(): boolean {
    return this.#state === "ended";
  }

  decode(bytes: Buffer, emit: (part: Buffer) => void): void {
    let at = 0;
    while (at < bytes.length && this.#state !== "ended") {
      if (this.#state === "data") {
        const part = bytes.subarray(at, at + this.#left);
        at += part.length;
        this.#left -= part.length;
        if (this.#left === 0) this.#state = "dataEnd";
        emit(part);
        continue;
      }
      const newline = bytes.indexOf(10, at);
      const end = newline < 0 ? bytes.length : newline;
      this.#line += bytes.toString("latin1", at, end);
      if (this.#line.length > chunkLineBytesMax) throw new ConnectionError("chunk header is too long");
      at = end + 1;
      if (newline >= 0) this.#endLine();
    }
  }

  #endLine(): void {
    const line = this.#line.replace(/\r$/, "");
    this.#line = "";
    if (this.#state === "dataEnd") this.#state = "size";
    else if (this.#state === "trailer") {
      if (line === "") this.#state = "ended";
    } else {
      const size = /^[0-9a-fA-F]{1,13}/.exec(line);
      if (size === null) throw new ConnectionError("bad chunk header");
      this.#left = Number.parseInt(size[0], 16);
      this.#state = this.#left === 0 ? "trailer" : "data";
    }
  }
}

function pumpBody(
  stream: Duplex,
  rest: Buffer,
  decoder: BodyDecoder,
  done: (reusable: boolean) => void,
): Readable {
  let finished = false;
  const body = new Readable({
    read: () => {
      if (!finished) stream.resume();
    },
    destroy: (error, callback) => {
      finish(false);
      callback(error);
    },
  });
  const finish = (reusable: boolean): void => {
    if (finished) return;
    finished = true;
    stream.removeListener("data", onData);
    stream.removeListener("end", onEnd);
    stream.removeListener("close", onEnd);
    stream.removeListener("error", onError);
    stream.pause();
    done(reusable);
  };
  const onData = (bytes: Buffer): void => {
    try {
      decoder.decode(bytes, (part) => {
        if (!body.push(part)) stream.pause();
      });
    } catch (error) {
      body.destroy(error as Error);
      return;
    }
    if (decoder.ended) {
      finish(true);
      body.push(null);
    }
  };
  const onEnd = (): void => {
    if (decoder.endsWithConnection) {
      finish(false);
      body.push(null);
    } else body.destroy(new ConnectionError("unexpected EOF", { code: "broken" }));
  };
  const onError = (cause: Error): void => {
    body.destroy(new ConnectionError(cause.message, { code: "broken", cause }));
  };
  stream.on("data", onData);
  stream.once("end", onEnd);
  stream.once("close", onEnd);
  stream.once("error", onError);
  onData(rest);
  return body;
}
