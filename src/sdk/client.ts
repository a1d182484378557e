import type { Duplex, Readable } from "node:stream";
import { EngineError } from "#base/errors.ts";
import { ApiError, ConnectionError, errorMessageOf } from "./api-error.ts";
import type { Endpoint } from "./endpoint.ts";
import { HttpConnection, type RequestHead, type Response } from "./http-connection.ts";

/** The newest API this client speaks. */
export const apiVersionMax = "1.51";
/** What a daemon speaks that does not say: Docker's clients assume the same. */
const apiVersionUnknown = "1.24";
/** A JSON answer beyond this is not read into memory; 100,000 containers fit. */
const jsonBytesMax = 512 * 1024 * 1024;

export type QueryValue = string | number | boolean | readonly string[] | undefined;

export interface RequestOptions {
  readonly query?: Readonly<Record<string, QueryValue>>;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON. */
  readonly json?: unknown;
  /** Sent as it is. */
  readonly body?: string | Uint8Array | Readable;
  readonly signal?: AbortSignal | undefined;
}

export interface HijackedStream {
  /** Raw bytes both ways; `end()` closes the client's half only. */
  readonly stream: Duplex;
  /** Output is framed (8-byte headers), when the daemon says so; undefined when it does not tell. */
  readonly multiplexed: boolean | undefined;
}

export interface ServerInfo {
  readonly apiVersion: string;
  readonly osType: string;
  readonly builderVersion: string;
  readonly experimental: boolean;
}

export interface ClientOptions {
  readonly endpoint: Endpoint;
  /** Fixes the version: no negotiation takes place (DOCKER_API_VERSION). */
  readonly apiVersion?: string | undefined;
  readonly userAgent: string;
  /** `HttpHeaders` of the client's configuration. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** Compares `1.41` and `1.9` as versions: negative, zero or positive. */
export function compareApiVersions(left: string, right: string): number {
  const [leftMajor = 0, leftMinor = 0] = left.split(".").map(Number);
  const [rightMajor = 0, rightMinor = 0] = right.split(".").map(Number);
  return leftMajor - rightMajor || leftMinor - rightMinor;
}

/**
 * A client of one daemon. Connections are kept and used again; the version is negotiated with the first request
 * (`HEAD /_ping`), to the lower of ours and the daemon's.
 */
export class ApiClient {
  readonly endpoint: Endpoint;
  readonly #options: ClientOptions;
  readonly #idle: HttpConnection[] = [];
  #apiVersion: string | undefined;
  #server: ServerInfo | undefined;

  constructor(options: ClientOptions) {
    this.endpoint = options.endpoint;
    this.#options = options;
    this.#apiVersion = options.apiVersion?.replace(/^v/, "");
  }

  /** The version in use; negotiates when that has not happened. Throws `ConnectionError`. */
  apiVersion(): Promise<string> {
    return this.#naming("HEAD", "/_ping", "", () => this.#negotiated());
  }

  async #negotiated(): Promise<string> {
    if (this.#apiVersion === undefined) {
      const { apiVersion } = await this.#ping();
      this.#apiVersion = compareApiVersions(apiVersion, apiVersionMax) < 0 ? apiVersion : apiVersionMax;
    }
    return this.#apiVersion;
  }

  async atLeast(version: string): Promise<boolean> {
    return compareApiVersions(await this.apiVersion(), version) >= 0;
  }

  /** What the daemon tells of itself in the headers of `_ping`; asked once. */
  ping(): Promise<ServerInfo> {
    return this.#naming("HEAD", "/_ping", "", () => this.#ping());
  }

  async #ping(): Promise<ServerInfo> {
    if (this.#server !== undefined) return this.#server;
    const response = await this.#send("HEAD", "/_ping", {});
    response.body.resume();
    this.#server = {
      apiVersion: response.headers["api-version"] || apiVersionUnknown,
      osType: response.headers["ostype"] ?? "",
      builderVersion: response.headers["builder-version"] ?? "",
      experimental: response.headers["docker-experimental"] === "true",
    };
    return this.#server;
  }

  /** Sends a request and gives the answer whatever its status. The body must be read or destroyed. */
  async raw(method: string, path: string, options: RequestOptions = {}): Promise<Response> {
    const target = `${path}${queryOf(options.query)}`;
    return this.#versioned(method, target, (versioned) => this.#send(method, versioned, options));
  }

  /** Runs a request under the version in use; a failure is told as this request's, also when negotiating failed. */
  #versioned<T>(method: string, target: string, act: (versioned: string) => Promise<T>): Promise<T> {
    const prefix = `/v${this.#apiVersion ?? apiVersionMax}`;
    return this.#naming(method, target, prefix, async () => act(`/v${await this.#negotiated()}${target}`));
  }

  /** Where the daemon cannot be reached for a request, the message names it. */
  async #naming<T>(method: string, target: string, prefix: string, act: () => Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (error) {
      if (!(error instanceof ConnectionError) || error.reason === undefined) throw error;
      const url = `${this.endpoint.origin}${this.endpoint.basePath}${prefix}${target}`;
      const verb = `${method[0]}${method.slice(1).toLowerCase()}`;
      throw new ConnectionError(`error during connect: ${verb} "${url}": ${error.reason}`, {
        code: error.code,
        cause: error.cause,
      });
    }
  }

  /** Like `raw`, but a status of 400 and more is thrown as `ApiError`. */
  async request(method: string, path: string, options: RequestOptions = {}): Promise<Response> {
    const response = await this.raw(method, path, options);
    if (response.status >= 400) throw await readError(response);
    return response;
  }

  /** Sends a request and decodes the JSON answer. Integers beyond 2^53 come as bigint. */
  async json<T>(method: string, path: string, options: RequestOptions = {}): Promise<T> {
    return parseJson(await this.text(method, path, options)) as T;
  }

  async text(method: string, path: string, options: RequestOptions = {}): Promise<string> {
    const response = await this.request(method, path, options);
    return readText(response.body);
  }

  /** For requests whose answer does not matter. */
  async run(method: string, path: string, options: RequestOptions = {}): Promise<number> {
    const response = await this.request(method, path, options);
    response.body.resume();
    return response.status;
  }

  /** Takes a connection over (attach, exec start). */
  async hijack(path: string, options: RequestOptions = {}): Promise<HijackedStream> {
    const target = `${path}${queryOf(options.query)}`;
    const answer = await this.#versioned("POST", target, async (versioned) => {
      const head = this.#head("POST", versioned, options);
      const request = { ...head, headers: { ...head.headers, Connection: "Upgrade", Upgrade: "tcp" } };
      const connection = new HttpConnection(await this.endpoint.dial());
      return connection.upgrade(request, options.signal);
    });
    if ("refused" in answer) throw await readError(answer.refused);
    const version = await this.apiVersion();
    const type = answer.headers["content-type"];
    let multiplexed: boolean | undefined;
    if (type === "application/vnd.docker.multiplexed-stream") multiplexed = true;
    else if (type === "application/vnd.docker.raw-stream" && compareApiVersions(version, "1.42") >= 0) {
      multiplexed = false;
    }
    return { stream: answer.stream, multiplexed };
  }

  /** Closes what is idle, so that the process can end. */
  close(): void {
    for (const connection of this.#idle.splice(0)) connection.destroy();
  }

  async #send(method: string, path: string, options: RequestOptions): Promise<Response> {
    const head = this.#head(method, path, options);
    const idle = this.#takeIdle();
    if (idle !== undefined) {
      try {
        return await this.#sendOver(idle, head, options.signal);
      } catch (error) {
        // A daemon may close a kept connection at any time: an idempotent request is then sent again on a fresh one.
        const again = error instanceof ConnectionError && error.code === "broken" && method !== "POST";
        if (!again) throw error;
      }
    }
    return this.#sendOver(new HttpConnection(await this.endpoint.dial()), head, options.signal);
  }

  #takeIdle(): HttpConnection | undefined {
    for (;;) {
      const connection = this.#idle.pop();
      if (connection === undefined) return undefined;
      if (connection.usable) {
        connection.setIdle(false);
        return connection;
      }
      connection.destroy();
    }
  }

  #sendOver(connection: HttpConnection, head: RequestHead, signal?: AbortSignal): Promise<Response> {
    return connection.send(head, signal, () => {
      connection.setIdle(true);
      this.#idle.push(connection);
    });
  }

  #head(method: string, path: string, options: RequestOptions): RequestHead {
    const headers: Record<string, string> = {
      Host: this.endpoint.authority,
      "User-Agent": this.#options.userAgent,
      ...this.#options.headers,
      ...options.headers,
    };
    let body = options.body;
    if (options.json !== undefined) {
      headers["Content-Type"] = "application/json";
      body = JSON.stringify(options.json);
    }
    return { method, path: `${this.endpoint.basePath}${path}`, headers, body };
  }
}

function queryOf(query: RequestOptions["query"]): string {
  if (query === undefined) return "";
  const parts: string[] = [];
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined) continue;
    for (const one of Array.isArray(value) ? value : [value]) {
      const text = one === true ? "1" : one === false ? "0" : String(one);
      parts.push(`${name}=${encodeURIComponent(text)}`);
    }
  }
  return parts.length === 0 ? "" : `?${parts.join("&")}`;
}

async function readError(response: Response): Promise<ApiError> {
  const body = await readText(response.body);
  return new ApiError(response.status, errorMessageOf(response.status, response.reason, body));
}

/** The whole body as text; refuses beyond `jsonBytesMax`. */
export async function readText(body: Readable): Promise<string> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > jsonBytesMax) throw new EngineError("system", "the daemon's answer is too long");
    parts.push(chunk);
  }
  return Buffer.concat(parts).toString();
}

/** JSON.parse that keeps integers a double cannot hold as bigint. */
export function parseJson(text: string): unknown {
  // The slow reviver is only worth it where such a number can be: 16 digits in a row.
  if (!/\d{16}/.test(text)) return JSON.parse(text);
  return JSON.parse(text, (_key: string, value: unknown, context?: { source?: string }) => {
    if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
    const source = context?.source ?? "";
    return /^-?\d+$/.test(source) ? BigInt(source) : value;
  });
}

/** Objects of a stream of JSON values, one a line or run together, as Docker's progress and event streams are. */
export async function* jsonStream<T>(body: Readable): AsyncGenerator<T> {
  let held = "";
  const decoder = new TextDecoder();
  for await (const chunk of body as AsyncIterable<Buffer>) {
    held += decoder.decode(chunk, { stream: true });
    if (held.length > jsonBytesMax) throw new EngineError("system", "a line of the stream is too long");
    let newline = held.indexOf("\n");
    while (newline >= 0) {
      const line = held.slice(0, newline).trim();
      held = held.slice(newline + 1);
      if (line !== "") yield parseJson(line) as T;
      newline = held.indexOf("\n");
    }
    const whole = tryParse(held);
    if (whole !== undefined) {
      held = "";
      yield whole as T;
    }
  }
  if (held.trim() !== "") yield parseJson(held) as T;
}

// A flushed value without its newline yet (or ever): only worth a try when it can be a whole object.
function tryParse(text: string): unknown {
  if (!text.endsWith("}")) return undefined;
  try {
    return parseJson(text);
  } catch {
    return undefined;
  }
}
