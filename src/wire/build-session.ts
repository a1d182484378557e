import { EngineError } from "#base/errors.ts";

/**
 * What a build may ask of its client while it runs: secrets by name, connections to SSH agents. The classic build API has no
 * way for these; Skiff's client opens this stream beside the build (`POST /build/session`, taken over like an attach) and
 * names it in the build's `X-Skiff-Build-Session` header. Frames both ways: kind, channel, length, payload.
 *
 * 1. The client begins with `hello`: a JSON object of the names that it has. The daemon answers `ready` with the session's id.
 * 2. The daemon asks with `secret` (payload: a name) on a fresh channel; one `value` or `failure` comes back on it.
 * 3. The daemon opens a fresh channel to an agent with `connect` (payload: a name). `data` goes both ways, `end` ends it.
 */
export const frameKinds = {
  hello: 1,
  ready: 2,
  secret: 3,
  value: 4,
  failure: 5,
  connect: 6,
  data: 7,
  end: 8,
} as const;
export type FrameKind = keyof typeof frameKinds;

export interface Frame {
  readonly kind: FrameKind;
  readonly channel: number;
  readonly payload: Buffer;
}

export const buildSessionHeader = "x-skiff-build-session";
/** BuildKit's own limit for a secret. */
export const secretBytesMax = 500 * 1024;
/** The largest frame is a secret's. */
const payloadBytesMax = secretBytesMax;
const headBytes = 9;

const namesOfKinds = new Map<number, FrameKind>(
  Object.entries(frameKinds).map(([name, value]) => [value, name as FrameKind]),
);

export function encodeFrame(kind: FrameKind, channel: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(headBytes);
  head.writeUInt8(frameKinds[kind], 0);
  head.writeUInt32BE(channel, 1);
  head.writeUInt32BE(payload.length, 5);
  return Buffer.concat([head, payload]);
}

/** Cuts a stream into frames. Throws `invalid` for what is none. */
export class SessionDecoder {
  readonly #take: (frame: Frame) => void;
  #rest: Buffer = Buffer.alloc(0);

  constructor(take: (frame: Frame) => void) {
    this.#take = take;
  }

  push(chunk: Uint8Array): void {
    this.#rest = this.#rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= headBytes) {
      const kind = namesOfKinds.get(this.#rest.readUInt8(0));
      const length = this.#rest.readUInt32BE(5);
      if (kind === undefined || length > payloadBytesMax)
        throw new EngineError("invalid", "a build session's frame is broken", { code: "bad-frame" });
      if (this.#rest.length < headBytes + length) return;
      const channel = this.#rest.readUInt32BE(1);
      const payload = this.#rest.subarray(headBytes, headBytes + length);
      this.#rest = this.#rest.subarray(headBytes + length);
      this.#take({ kind, channel, payload });
    }
  }
}

export interface SessionOffer {
  readonly secrets: readonly string[];
  readonly agents: readonly string[];
}
