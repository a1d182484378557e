import { EngineError } from "#base/errors.ts";
import { koffi } from "./libc.ts";

/**
 * xz and bzip2 by the system's liblzma and libbz2, in this process and without a thread of their own: dpkg itself links
 * both, so they are wherever Debian is, and no program found through PATH takes part. For worker threads.
 */
export interface StreamDecoder {
  /** Takes all of the input; output is valid only during `emit`. Throws `invalid` (`bad-compression`). */
  push(chunk: Uint8Array): void;
  /** Checks that the stream is complete. */
  finish(): void;
  close(): void;
}

export type DecodedFormat = "xz" | "bzip2";

type Emit = (chunk: Uint8Array) => void;
type Pointer = unknown;

/** Memory of an xz decoder: `xz -9` needs 65 MiB, and a header may claim 4 GiB. */
const xzMemoryBytesMax = 128 * 1024 * 1024;
const inputBytes = 64 * 1024;
const outputBytes = 1024 * 1024;

/** Offsets of the fields of `lzma_stream` and `bz_stream` (lzma/base.h, bzlib.h; 64-bit). */
interface Layout {
  readonly structBytes: number;
  readonly nextIn: number;
  readonly availIn: number;
  readonly nextOut: number;
  readonly availOut: number;
  /** Width of the two counts. */
  readonly countBytes: 4 | 8;
}

const lzmaLayout: Layout = {
  structBytes: 136,
  nextIn: 0,
  availIn: 8,
  nextOut: 24,
  availOut: 32,
  countBytes: 8,
};
const bzip2Layout: Layout = {
  structBytes: 80,
  nextIn: 0,
  availIn: 8,
  nextOut: 24,
  availOut: 32,
  countBytes: 4,
};

interface Format {
  readonly layout: Layout;
  begin(stream: Pointer): number;
  step(stream: Pointer, isLast: boolean): number;
  end(stream: Pointer): void;
  /** Whether a code says that a stream has ended; another may follow. */
  isEnd(code: number): boolean;
  /** What an error code means, undefined for none. */
  failure(code: number): string | undefined;
  /** Whether the library itself goes on with a stream that follows. */
  readonly concatenates: boolean;
}

function load(name: string): ReturnType<typeof koffi.load> {
  try {
    return koffi.load(name);
  } catch (cause) {
    throw new EngineError("notImplemented", `archives of this format need ${name}, which is not installed`, {
      code: "unsupported-compression",
      cause,
    });
  }
}

const concatenated = 8;
const lzmaErrors: ReadonlyMap<number, string> = new Map([
  [5, "out of memory"],
  [6, "needs more memory than is allowed"],
  [7, "not in the xz format"],
  [8, "uses options that are not supported"],
  [9, "data is corrupt"],
  [10, "unexpected end of data"],
  [11, "internal error"],
]);
const bzip2Errors: ReadonlyMap<number, string> = new Map([
  [-3, "out of memory"],
  [-4, "data is corrupt"],
  [-5, "not in the bzip2 format"],
]);

function xzFormat(): Format {
  const library = load("liblzma.so.5");
  const decoder = library.func("int lzma_stream_decoder(void *stream, uint64_t memlimit, uint32_t flags)");
  const code = library.func("int lzma_code(void *stream, int action)");
  const end = library.func("void lzma_end(void *stream)");
  return {
    layout: lzmaLayout,
    concatenates: true,
    begin: (stream) => decoder(stream, xzMemoryBytesMax, concatenated) as number,
    step: (stream, isLast) => code(stream, isLast ? 3 : 0) as number,
    end: (stream) => end(stream),
    isEnd: (result) => result === 1,
    failure: (result) => (result > 1 ? (lzmaErrors.get(result) ?? `error ${result}`) : undefined),
  };
}

function bzip2Format(): Format {
  const library = load("libbz2.so.1.0");
  const init = library.func("int BZ2_bzDecompressInit(void *stream, int verbosity, int small)");
  const code = library.func("int BZ2_bzDecompress(void *stream)");
  const end = library.func("int BZ2_bzDecompressEnd(void *stream)");
  return {
    layout: bzip2Layout,
    concatenates: false,
    begin: (stream) => init(stream, 0, 0) as number,
    step: (stream) => code(stream) as number,
    end: (stream) => void end(stream),
    isEnd: (result) => result === 4,
    failure: (result) => (result < 0 ? (bzip2Errors.get(result) ?? `error ${result}`) : undefined),
  };
}

// Loaded at first use: most daemons meet neither.
const lazy: { [Name in DecodedFormat]?: Format } = {};

function formatOf(name: DecodedFormat): Format {
  lazy[name] ??= name === "xz" ? xzFormat() : bzip2Format();
  return lazy[name];
}

class LibraryDecoder implements StreamDecoder {
  readonly #name: DecodedFormat;
  readonly #format: Format;
  readonly #emit: Emit;
  /** One allocation outside of the garbage collector's reach: the struct, the input, the output. */
  readonly #memory: bigint;
  readonly #view: Buffer;
  readonly #inputAt: number;
  readonly #outputAt: number;
  #open = false;
  #ended = false;

  constructor(name: DecodedFormat, emit: Emit) {
    this.#name = name;
    this.#format = formatOf(name);
    this.#emit = emit;
    this.#inputAt = 256;
    this.#outputAt = this.#inputAt + inputBytes;
    const total = this.#outputAt + outputBytes;
    this.#memory = koffi.alloc("uint8_t", total) as unknown as bigint;
    this.#view = Buffer.from(koffi.view(this.#memory as never, total));
    this.#begin();
  }

  #begin(): void {
    this.#view.fill(0, 0, this.#format.layout.structBytes);
    const code = this.#format.begin(this.#memory);
    this.#check(code);
    this.#open = true;
  }

  #check(code: number): void {
    const reason = this.#format.failure(code);
    if (reason === undefined) return;
    throw new EngineError("invalid", `${this.#name}: ${reason}`, { code: "bad-compression" });
  }

  #count(at: number, value?: number): number {
    const { countBytes } = this.#format.layout;
    if (value === undefined)
      return countBytes === 8 ? Number(this.#view.readBigUInt64LE(at)) : this.#view.readUInt32LE(at);
    if (countBytes === 8) this.#view.writeBigUInt64LE(BigInt(value), at);
    else this.#view.writeUInt32LE(value, at);
    return value;
  }

  push(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length; at += inputBytes) {
      const part = chunk.subarray(at, at + inputBytes);
      this.#view.set(part, this.#inputAt);
      this.#run(part.length);
    }
  }

  #run(length: number): void {
    const { layout } = this.#format;
    for (let taken = 0; taken < length; ) {
      if (this.#ended && !this.#next(taken, length)) return;
      this.#view.writeBigUInt64LE(this.#memory + BigInt(this.#inputAt + taken), layout.nextIn);
      this.#count(layout.availIn, length - taken);
      this.#step(false);
      taken = length - this.#count(layout.availIn);
    }
  }

  /** After the end of a stream: another one, or zeros that fill the file up. */
  #next(taken: number, length: number): boolean {
    const rest = this.#view.subarray(this.#inputAt + taken, this.#inputAt + length);
    if (rest.every((byte) => byte === 0)) return false;
    if (this.#format.concatenates) this.#check(9);
    this.close();
    this.#ended = false;
    this.#begin();
    return true;
  }

  /** One call of the library, and what it put out. Returns whether there may be more. */
  #step(isLast: boolean): boolean {
    const { layout } = this.#format;
    this.#view.writeBigUInt64LE(this.#memory + BigInt(this.#outputAt), layout.nextOut);
    this.#count(layout.availOut, outputBytes);
    const code = this.#format.step(this.#memory, isLast);
    const left = this.#count(layout.availOut);
    if (left < outputBytes)
      this.#emit(this.#view.subarray(this.#outputAt, this.#outputAt + outputBytes - left));
    this.#check(code);
    this.#ended = this.#format.isEnd(code);
    return left === 0;
  }

  finish(): void {
    this.#count(this.#format.layout.availIn, 0);
    while (!this.#ended) if (!this.#step(true)) break;
    if (!this.#ended)
      throw new EngineError("invalid", `${this.#name}: unexpected end of data`, { code: "bad-compression" });
  }

  close(): void {
    if (this.#open) this.#format.end(this.#memory);
    this.#open = false;
  }

  /** Gives the memory back; nothing may be called afterwards. */
  free(): void {
    this.close();
    koffi.free(this.#memory as never);
  }
}

/** A decoder of one stream. It holds memory outside of the heap until `close`. */
export function createStreamDecoder(name: DecodedFormat, emit: Emit): StreamDecoder {
  const decoder = new LibraryDecoder(name, emit);
  let isOpen = true;
  return {
    push: (chunk) => decoder.push(chunk),
    finish: () => decoder.finish(),
    close: () => {
      if (isOpen) decoder.free();
      isOpen = false;
    },
  };
}
