import { STATUS_CODES } from "node:http";
import type { Duplex, Readable } from "node:stream";
import { AssertionFailure, assert } from "#base/assert.ts";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { skiffVersion } from "#base/version.ts";
import { decodeJson, type Schema } from "#wire/go-json.ts";
import type { Connection, Turn } from "./listen-connection.ts";
import type { RequestHead } from "./listen-head.ts";
import { parseQuery } from "./query.ts";
import type { ApiVersion, Exchange, Query, StreamAnswer } from "./route.ts";
import { apiVersionMax, atLeast, formatVersion } from "./version.ts";

/** On every answer, as clients negotiate by them. */
const identity = [
  `Api-Version: ${formatVersion(apiVersionMax)}`,
  "Docker-Experimental: false",
  "Ostype: linux",
  `Server: Skiff/${skiffVersion} (linux)`,
  "",
].join("\r\n");

let dateSecond = 0;
let dateText = "";

/** The Date header's text, made once a second. */
function dateHeader(): string {
  const now = Date.now();
  const second = Math.floor(now / 1000);
  if (second !== dateSecond) {
    dateSecond = second;
    dateText = new Date(now).toUTCString();
  }
  return dateText;
}

function headerLines(headers: Readonly<Record<string, string>> | undefined): string {
  if (headers === undefined) return "";
  let lines = "";
  for (const [name, value] of Object.entries(headers)) {
    assert(!/[\r\n]/.test(value), `header ${name} is one line`);
    lines += `${name}: ${value}\r\n`;
  }
  return lines;
}

/** Statuses that never have a body (RFC 9110 §6.4.1). */
function bodiless(status: number): boolean {
  return status === 204 || status === 304;
}

export class HttpExchange implements Exchange, Turn {
  readonly method: string;
  readonly headers: Readonly<Record<string, string | undefined>>;
  path = "";
  apiVersion: ApiVersion = apiVersionMax;
  params: Readonly<Record<string, string>> = {};
  readonly #head: RequestHead;
  readonly #connection: Connection;
  readonly #queryText: string;
  #query: Query | undefined;
  #abort: AbortController | undefined;
  #gone = false;
  #state: "open" | "streaming" | "hijacked" | "complete" = "open";

  constructor(head: RequestHead, connection: Connection, queryText: string) {
    this.method = head.method;
    this.headers = head.headers;
    this.#head = head;
    this.#connection = connection;
    this.#queryText = queryText;
  }

  get query(): Query {
    this.#query ??= parseQuery(this.#queryText);
    return this.#query;
  }

  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#gone) this.#abort.abort();
    }
    return this.#abort.signal;
  }

  /** Nothing has been sent yet: an error can still be told to the client. */
  get open(): boolean {
    return this.#state === "open";
  }

  get complete(): boolean {
    return this.#state === "complete" || this.#state === "hijacked";
  }

  clientGone(): void {
    if (this.complete) return;
    this.#gone = true;
    this.#abort?.abort();
  }

  async json<T>(schema: Schema<T>, options: { emptyIsZero?: boolean } = {}): Promise<T> {
    checkJsonType(this.#head);
    const bytes = await this.#connection.collect(limits.requestBodyBytesMax);
    return decodeJson(schema, bytes.toString("utf8"), options.emptyIsZero);
  }

  body(): Readable {
    return this.#connection.bodyStream();
  }

  bodyPieces(): AsyncIterable<Buffer> {
    return this.#connection.bodyPieces();
  }

  sendJson(status: number, body: unknown, headers?: Readonly<Record<string, string>>): void {
    // Go's encoder ends each value with a newline.
    this.#send(status, "application/json", `${JSON.stringify(body)}\n`, headers);
  }

  sendText(status: number, text: string, headers?: Readonly<Record<string, string>>): void {
    this.#send(status, "text/plain; charset=utf-8", text, headers);
  }

  sendEmpty(status: number, headers?: Readonly<Record<string, string>>): void {
    this.#send(status, undefined, "", headers);
  }

  #send(
    status: number,
    contentType: string | undefined,
    body: string,
    headers: Readonly<Record<string, string>> | undefined,
  ): void {
    assert(this.#state === "open", `${this.method} ${this.path} is answered once`);
    this.#state = "complete";
    let head = this.#statusAndHeaders(status, headers);
    if (!bodiless(status)) {
      if (contentType !== undefined) head += `Content-Type: ${contentType}\r\n`;
      head += `Content-Length: ${Buffer.byteLength(body)}\r\n`;
    }
    const text = this.method === "HEAD" || bodiless(status) ? "" : body;
    this.#connection.write(`${head}\r\n${text}`).catch(ignoreGone);
    this.#connection.endTurn();
  }

  #statusAndHeaders(status: number, headers: Readonly<Record<string, string>> | undefined): string {
    let lines = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? "Unknown"}\r\n${identity}Date: ${dateHeader()}\r\n`;
    if (!this.#connection.keepAlive) lines += "Connection: close\r\n";
    else if (this.#head.minorVersion === 0) lines += "Connection: keep-alive\r\n";
    return lines + headerLines(headers);
  }

  stream(status: number, contentType: string, headers?: Readonly<Record<string, string>>): StreamAnswer {
    assert(this.#state === "open", `${this.method} ${this.path} is answered once`);
    this.#state = "streaming";
    const chunked = this.#head.minorVersion === 1;
    if (!chunked) this.#connection.closeAfterAnswer();
    const framing = chunked ? "Transfer-Encoding: chunked\r\n" : "";
    this.#connection
      .write(`${this.#statusAndHeaders(status, headers)}Content-Type: ${contentType}\r\n${framing}\r\n`)
      .catch(ignoreGone);
    const bare = this.method === "HEAD";
    return {
      write: (chunk) => {
        assert(this.#state === "streaming", `${this.method} ${this.path} writes before its end`);
        if (bare || chunk.length === 0) return Promise.resolve();
        if (!chunked) return this.#connection.write(chunk);
        if (typeof chunk === "string") {
          return this.#connection.write(`${Buffer.byteLength(chunk).toString(16)}\r\n${chunk}\r\n`);
        }
        return this.#connection.writeAll([`${chunk.length.toString(16)}\r\n`, chunk, "\r\n"]);
      },
      end: () => {
        if (this.#state !== "streaming") return;
        this.#state = "complete";
        if (chunked && !bare) this.#connection.write("0\r\n\r\n").catch(ignoreGone);
        this.#connection.endTurn();
      },
    };
  }

  async hijack({ multiplexed }: { multiplexed: boolean }): Promise<Duplex> {
    assert(this.#state === "open", `${this.method} ${this.path} is answered once`);
    const upgrade = this.headers["upgrade"] !== undefined;
    const framed = upgrade && multiplexed && atLeast(this.apiVersion, 1, 42);
    const contentType = `Content-Type: application/vnd.docker.${framed ? "multiplexed" : "raw"}-stream\r\n`;
    const start = upgrade
      ? `HTTP/1.1 101 UPGRADED\r\n${contentType}Connection: Upgrade\r\nUpgrade: tcp\r\n`
      : `HTTP/1.1 200 OK\r\n${contentType}`;
    const duplex = await this.#connection.hijack(`${start}${identity}\r\n`);
    this.#state = "hijacked";
    return duplex;
  }

  /** After a failure in the middle of an answer the only honest end is a broken connection. */
  breakOff(): void {
    this.#state = "complete";
    this.#connection.destroy();
  }
}

function ignoreGone(error: unknown): void {
  if (error instanceof AssertionFailure) throw error;
}

/** Docker's CheckForJSON: a body must say that it is JSON; no body needs to say anything. */
function checkJsonType(head: RequestHead): void {
  const contentType = head.headers["content-type"] ?? "";
  if (contentType === "") {
    if (head.body.kind === "none") return;
    throw new EngineError("invalid", "malformed Content-Type header (): mime: no media type", {
      code: "bad-content-type",
    });
  }
  const mediaType = contentType.split(";")[0]!.trim().toLowerCase();
  if (mediaType !== "application/json") {
    throw new EngineError(
      "invalid",
      `unsupported Content-Type header (${contentType.slice(0, 256)}): must be 'application/json'`,
      { code: "bad-content-type" },
    );
  }
}
