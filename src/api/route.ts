/**
 * What a handler sees of one request, and nothing else of HTTP. Handlers parse, call one use case, serialise: no logic.
 * Paths are matched without their `/v1.NN` prefix; the version asked for is `apiVersion`.
 */
import type { Duplex, Readable } from "node:stream";
import type { Schema } from "#wire/go-json.ts";

/** `1.51` as { major: 1, minor: 51 }. Shapes of answers follow it. */
export interface ApiVersion {
  readonly major: number;
  readonly minor: number;
}

export interface Query {
  /** First value or undefined. */
  get(name: string): string | undefined;
  all(name: string): string[];
  /** Docker's httputils.BoolValue: absent, "", "0", "no", "false", "none" are false, all else true. */
  bool(name: string, whenAbsent?: boolean): boolean;
  /** Docker's Int64ValueOrZero, or `invalid` error for text that is no number. */
  integer(name: string, whenAbsent?: number): number;
}

/** An answer that goes on: headers are flushed when it is made, writes wait for the client, `signal` ends with it. */
export interface StreamAnswer {
  /** Resolves when the client may take more; rejects once the client is gone. */
  write(chunk: string | Uint8Array): Promise<void>;
  end(): void;
}

export interface Exchange {
  readonly method: string;
  readonly path: string;
  readonly apiVersion: ApiVersion;
  /** The pattern's `{name}` parts, percent-decoded. */
  readonly params: Readonly<Record<string, string>>;
  readonly query: Query;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  /** Aborted when the client goes away before the answer is complete. */
  readonly signal: AbortSignal;

  /** Reads and checks a JSON body within `limits.requestBodyBytesMax`. `emptyIsZero`: a missing body is the zero value. */
  json<T>(schema: Schema<T>, options?: { emptyIsZero?: boolean }): Promise<T>;
  /** The body as it comes: for archives and images. */
  body(): Readable;
  /** The body in pieces, each valid until the next one is asked for; for what is copied on at once. */
  bodyPieces(): AsyncIterable<Buffer>;

  sendJson(status: number, body: unknown, headers?: Readonly<Record<string, string>>): void;
  sendText(status: number, text: string, headers?: Readonly<Record<string, string>>): void;
  sendEmpty(status: number, headers?: Readonly<Record<string, string>>): void;
  stream(status: number, contentType: string, headers?: Readonly<Record<string, string>>): StreamAnswer;
  /**
   * Takes the connection over for attach and exec: answers `101 UPGRADED` where the client asked for an upgrade,
   * `200 OK` else, with `application/vnd.docker.raw-stream`, or `…multiplexed-stream` when `multiplexed` and the API
   * is 1.42 or later. A JSON body that the client sent is read and dropped first: it never reaches stdin. The duplex
   * half-closes: the client's end of input ends its readable side only.
   */
  hijack(options: { multiplexed: boolean }): Promise<Duplex>;
}

export type Handler = (exchange: Exchange) => Promise<void> | void;

export interface Route {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "DELETE";
  /**
   * `/volumes/{name}`; a `{name...}` part takes the rest with its slashes, even before a suffix: clients send names of
   * containers and images as they are.
   */
  readonly pattern: string;
  readonly handler: Handler;
}
