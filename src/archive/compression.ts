import { constants, createGunzip, createZstdDecompress } from "node:zlib";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import type { NativeHandle, NativeStream } from "./native-zlib.ts";

export type Compression = "gzip" | "zstd" | "none";

/** Bytes that `detectFormat` needs to see, unless the input is shorter. */
export const detectBytes = 10;

const otherFormats: readonly (readonly ["xz" | "bzip2" | "lzip" | "zip", readonly number[]])[] = [
  ["bzip2", [0x42, 0x5a, 0x68]],
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ["lzip", [0x4c, 0x5a, 0x49, 0x50]],
  ["zip", [0x50, 0x4b, 0x03, 0x04]],
];

function startsWith(head: Uint8Array, magic: readonly number[]): boolean {
  return head.length >= magic.length && magic.every((byte, index) => head[index] === byte);
}

function isZstd(head: Uint8Array): boolean {
  const skippable =
    head.length >= 4 && ((head[0] ?? 0) & 0xf0) === 0x50 && startsWith(head.subarray(1), [0x2a, 0x4d, 0x18]);
  return skippable || startsWith(head, [0x28, 0xb5, 0x2f, 0xfd]);
}

/** The format by its first bytes, also of those that no media type of layers has. */
export function detectFormat(head: Uint8Array): Compression | "xz" | "bzip2" | "lzip" | "zip" {
  if (startsWith(head, [0x1f, 0x8b])) return "gzip";
  if (isZstd(head)) return "zstd";
  return otherFormats.find(([, magic]) => startsWith(head, magic))?.[0] ?? "none";
}

/** Called with output that is valid only during the call. */
export type Emit = (chunk: Uint8Array) => void;

export interface Decompressor {
  push(chunk: Uint8Array): void;
  /** Checks that the stream is complete. */
  finish(): void;
  close(): void;
}

const empty = new Uint8Array(0);
const outputBytes = 1024 * 1024;
/** A little over the GiB, for the headers around a file of that size. */
const ratioFreeBytes = 1024 ** 3 + 16 * 1024 ** 2;

/** Throws `archive-limit` when so much output of so little input is taken for a bomb. */
export function checkExpansion(inputBytes: number, outputBytes: number): void {
  if (
    outputBytes > limits.layerBytesMax ||
    (outputBytes > ratioFreeBytes && outputBytes / inputBytes > limits.compressionRatioMax)
  ) {
    throw new EngineError("invalid", "archive expands beyond its limit", { code: "archive-limit" });
  }
}

class NativeDecompressor implements Decompressor {
  readonly #handle: NativeHandle;
  readonly #state: Uint32Array;
  readonly #output = Buffer.allocUnsafeSlow(outputBytes);
  readonly #emit: Emit;
  readonly #name: string;
  readonly #magic: (head: Uint8Array) => boolean;
  #failure: EngineError | undefined;
  #carry: Buffer = Buffer.alloc(0);
  #trailing = false;
  #inputBytes = 0;
  #outputBytes = 0;

  readonly #finishFlush: number;

  constructor(
    stream: NativeStream,
    name: string,
    magic: (head: Uint8Array) => boolean,
    finishFlush: number,
    emit: Emit,
  ) {
    this.#finishFlush = finishFlush;
    this.#handle = stream._handle;
    this.#state = stream._writeState;
    this.#name = name;
    this.#magic = magic;
    this.#emit = emit;
    this.#handle.onerror = (message) => {
      this.#failure = new EngineError("invalid", `${name}: ${message}`, { code: "bad-compression" });
    };
  }

  push(chunk: Uint8Array): void {
    this.#inputBytes += chunk.length;
    let input = chunk;
    if (this.#carry.length > 0) {
      input = Buffer.concat([this.#carry, chunk]);
      this.#carry = Buffer.alloc(0);
    }
    this.#run(input);
  }

  #run(input: Uint8Array): void {
    let at = 0;
    while (at < input.length) {
      if (this.#trailing) {
        this.#checkPadding(input.subarray(at));
        return;
      }
      const before = at;
      const produced = this.#step(input, at, 0);
      at = input.length - (this.#state[1] ?? 0);
      if (at === before && produced === 0) {
        // The member ended before this byte: another one begins here, or padding.
        const rest = input.subarray(at);
        if (rest.length < 4 && rest[0] !== 0) {
          this.#carry = Buffer.from(rest);
          return;
        }
        this.#nextMember(rest);
      }
    }
    this.#drain();
  }

  /** Output may remain in the decompressor after its input was taken: ask until it stops filling the buffer. */
  #drain(): void {
    while ((this.#state[0] ?? 0) === 0 && this.#step(empty, 0, 0) > 0);
  }

  #nextMember(rest: Uint8Array): void {
    if (rest[0] === 0) {
      this.#trailing = true;
      return;
    }
    if (!this.#magic(rest)) {
      throw new EngineError("invalid", `${this.#name}: invalid header after the compressed data`, {
        code: "bad-compression",
      });
    }
    this.#handle.reset();
  }

  #checkPadding(rest: Uint8Array): void {
    if (Buffer.from(rest.buffer, rest.byteOffset, rest.length).every((byte) => byte === 0)) return;
    throw new EngineError("invalid", `${this.#name}: invalid header after the compressed data`, {
      code: "bad-compression",
    });
  }

  /** One native call; returns how many bytes came out. */
  #step(input: Uint8Array, at: number, flush: number): number {
    this.#handle.writeSync(flush, input, at, input.length - at, this.#output, 0, this.#output.length);
    if (this.#failure !== undefined) throw this.#failure;
    const produced = this.#output.length - (this.#state[0] ?? 0);
    if (produced > 0) {
      this.#outputBytes += produced;
      checkExpansion(this.#inputBytes, this.#outputBytes);
      this.#emit(this.#output.subarray(0, produced));
    }
    return produced;
  }

  finish(): void {
    if (this.#carry.length > 0) this.#nextMember(this.#carry);
    if (!this.#trailing) this.#step(empty, 0, this.#finishFlush);
  }

  close(): void {
    this.#handle.close();
  }
}

class Passthrough implements Decompressor {
  readonly #emit: Emit;

  constructor(emit: Emit) {
    this.#emit = emit;
  }

  push(chunk: Uint8Array): void {
    this.#emit(chunk);
  }

  finish(): void {}

  close(): void {}
}

/**
 * A streaming decompressor whose calls are all synchronous, for worker threads (the stream API would share libuv's four
 * threads with the daemon's file access). Members and frames may follow each other; zeros after the last are padding.
 * Errors: `EngineError` code `bad-compression`; `archive-limit` beyond `limits.compressionRatioMax`.
 */
export function createDecompressor(kind: Compression, emit: Emit): Decompressor {
  switch (kind) {
    case "gzip": {
      const stream = createGunzip() as unknown as NativeStream;
      const isGzip = (head: Uint8Array): boolean => startsWith(head, [0x1f, 0x8b]);
      return new NativeDecompressor(stream, "gzip", isGzip, constants.Z_FINISH, emit);
    }
    case "zstd": {
      const stream = createZstdDecompress() as unknown as NativeStream;
      return new NativeDecompressor(stream, "zstd", isZstd, constants.ZSTD_e_end, emit);
    }
    default:
      return new Passthrough(emit);
  }
}

/** A decompressor that learns from its first bytes what it is: `open` is called once, with enough of them or all there are. */
export class DetectingDecompressor implements Disposable {
  readonly #open: (head: Uint8Array) => Decompressor;
  #head: Buffer = Buffer.alloc(0);
  #opened: Decompressor | undefined;

  constructor(open: (head: Uint8Array) => Decompressor) {
    this.#open = open;
  }

  push(chunk: Uint8Array): void {
    if (this.#opened !== undefined) {
      this.#opened.push(chunk);
      return;
    }
    // Gathered until the format shows; afterwards chunks are taken as they come.
    this.#head = Buffer.concat([this.#head, chunk]);
    if (this.#head.length >= detectBytes) this.#begin();
  }

  /** Checks that the stream is complete. */
  finish(): void {
    (this.#opened ?? this.#begin()).finish();
  }

  #begin(): Decompressor {
    this.#opened = this.#open(this.#head);
    this.#opened.push(this.#head);
    return this.#opened;
  }

  [Symbol.dispose](): void {
    this.#opened?.close();
  }
}
