import { assert } from "#base/assert.ts";
import { koffi } from "./libc.ts";

/**
 * gzip by the system's libdeflate, which takes a third of zlib's time: it compresses whole buffers, so the input becomes
 * members one behind the other, as RFC 1952 §2.2 allows and every reader takes. Blocks of the input are compressed
 * independently of each other, by whichever thread has time: the same block always gives the same bytes. For worker threads.
 */
export const gzipBlockBytes = 1024 * 1024;
/** Of a block each such piece is looked at by itself. */
const pieceBytes = 128 * 1024;
/** The fastest: as small as zlib's level 1, and a push waits for it. */
const fastLevel = 1;
/** Only wraps: for what does not shrink. */
const storeLevel = 0;

type Pointer = unknown;

interface Library {
  readonly allocate: (level: number) => Pointer;
  readonly bound: (compressor: Pointer, inputBytes: number) => number | bigint;
  readonly compress: (
    compressor: Pointer,
    input: Uint8Array,
    inputBytes: number,
    output: Uint8Array,
    outputBytes: number,
  ) => number | bigint;
  readonly free: (compressor: Pointer) => void;
}

function load(): Library | undefined {
  let library: ReturnType<typeof koffi.load>;
  try {
    library = koffi.load("libdeflate.so.0");
  } catch {
    return undefined;
  }
  return {
    allocate: library.func("void *libdeflate_alloc_compressor(int level)"),
    bound: library.func("size_t libdeflate_gzip_compress_bound(void *compressor, size_t bytes)"),
    compress: library.func(
      "size_t libdeflate_gzip_compress(void *compressor, const void *in, size_t inBytes, void *out, size_t outBytes)",
    ),
    free: library.func("void libdeflate_free_compressor(void *compressor)"),
  };
}

/** libdeflate has no word about its worst case without a compressor; members are never smaller than a piece but at an end. */
export const gzipBlockOutputMax = gzipBlockBytes + 64 * 1024;

/** Compresses blocks of up to `gzipBlockBytes` into one or more gzip members each. */
export class BlockGzip implements Disposable {
  readonly #library: Library;
  readonly #fast: Pointer;
  readonly #store: Pointer;
  readonly #sample = Buffer.allocUnsafeSlow(sampleBytes + 1024);

  /** Undefined where the system has no libdeflate. */
  static open(): BlockGzip | undefined {
    const library = load();
    if (library === undefined) return undefined;
    const [fast, store] = [library.allocate(fastLevel), library.allocate(storeLevel)];
    assert(fast !== null && store !== null, "libdeflate has no memory");
    return new BlockGzip(library, fast, store);
  }

  private constructor(library: Library, fast: Pointer, store: Pointer) {
    this.#library = library;
    this.#fast = fast;
    this.#store = store;
    const pieces = gzipBlockBytes / pieceBytes;
    const most = Math.max(...[fast, store].map((one) => Number(library.bound(one, pieceBytes))));
    assert(most * pieces <= gzipBlockOutputMax, "a compressed block may need more room than it has");
  }

  /** Compresses a block into `output`, which has room for `gzipBlockOutputMax`. Returns the length. */
  compress(input: Buffer, output: Buffer): number {
    let written = 0;
    let from = 0;
    // Neighbours of one kind are one member. Nothing at all is a member, too.
    for (let at = 0, stored = this.#isNoise(input, 0); at < input.length || written === 0; ) {
      at = Math.min(at + pieceBytes, input.length);
      const next = at < input.length && this.#isNoise(input, at);
      if (at < input.length && next === stored) continue;
      written += this.#member(stored ? this.#store : this.#fast, input.subarray(from, at), output, written);
      from = at;
      stored = next;
    }
    return written;
  }

  #member(compressor: Pointer, input: Buffer, output: Buffer, at: number): number {
    const room = output.subarray(at);
    const size = Number(this.#library.compress(compressor, input, input.length, room, room.length));
    assert(size > 0, "libdeflate needs more room than it asked for");
    return size;
  }

  /**
   * Whether compressing a piece is in vain: packages, pictures and keys take libdeflate longer than anything else. Its bytes
   * must be spread as evenly as chance does it, and a part of it must not shrink either.
   */
  #isNoise(block: Buffer, at: number): boolean {
    const piece = block.subarray(at, at + pieceBytes);
    if (piece.length < pieceBytes || !isEven(piece)) return false;
    const middle = piece.subarray((pieceBytes - sampleBytes) / 2, (pieceBytes + sampleBytes) / 2);
    return this.#member(this.#fast, middle, this.#sample, 0) >= sampleBytes * 0.99;
  }

  [Symbol.dispose](): void {
    this.#library.free(this.#fast);
    this.#library.free(this.#store);
  }
}

/** One stretch that is compressed for a try, and so many bytes from each of so many places that are counted. */
const sampleBytes = 8 * 1024;
const placeBytes = 512;
const places = 8;
const counts = new Uint32Array(256);
/** Of bytes drawn by chance the squares of their counts add up to this, give or take half a percent. */
const evenSquares = places * placeBytes + (places * placeBytes * (places * placeBytes - 1)) / 256;

function isEven(piece: Buffer): boolean {
  counts.fill(0);
  for (let place = 0; place < places; place += 1) {
    const start = place * (pieceBytes / places);
    for (let at = start; at < start + placeBytes; at += 1) {
      const byte = piece[at] as number;
      counts[byte] = (counts[byte] as number) + 1;
    }
  }
  let squares = 0;
  for (const count of counts) squares += count * count;
  return squares < evenSquares * 1.03;
}
