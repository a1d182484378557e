import { assert } from "#base/assert.ts";
import { koffi } from "./libc.ts";

/**
 * gzip by the system's libdeflate, which takes a third of zlib's time: it compresses whole buffers, so the input becomes
 * members of 1 MiB one behind the other, as RFC 1952 §2.2 allows and every reader takes. The same input gives the same bytes.
 * For worker threads.
 */
const memberBytes = 1024 * 1024;
/** The fastest: as small as zlib's level 1, and a push waits for it. */
const level = 1;

type Pointer = unknown;

interface Library {
  readonly allocate: (level: number) => Pointer;
  readonly bound: (compressor: Pointer, inputBytes: number) => number | bigint;
  readonly compress: (
    compressor: Pointer,
    input: Uint8Array,
    inputBytes: number,
    output: Buffer,
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

export class MemberGzip implements Disposable {
  readonly #library: Library;
  readonly #compressor: Pointer;
  readonly #emit: (chunk: Uint8Array) => void;
  readonly #input = Buffer.allocUnsafeSlow(memberBytes);
  readonly #output: Buffer;
  #filled = 0;
  #isEmpty = true;

  /** `emit` gets output that is valid only during the call. Undefined where the system has no libdeflate. */
  static open(emit: (chunk: Uint8Array) => void): MemberGzip | undefined {
    const library = load();
    if (library === undefined) return undefined;
    const compressor = library.allocate(level);
    return compressor === null ? undefined : new MemberGzip(library, compressor, emit);
  }

  private constructor(library: Library, compressor: Pointer, emit: (chunk: Uint8Array) => void) {
    this.#library = library;
    this.#compressor = compressor;
    this.#emit = emit;
    this.#output = Buffer.allocUnsafeSlow(Number(library.bound(compressor, memberBytes)));
  }

  push(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length; ) {
      const taken = Math.min(memberBytes - this.#filled, chunk.length - at);
      this.#input.set(chunk.subarray(at, at + taken), this.#filled);
      this.#filled += taken;
      at += taken;
      if (this.#filled === memberBytes) this.#member();
    }
  }

  finish(): void {
    // Nothing at all is a member too.
    if (this.#filled > 0 || this.#isEmpty) this.#member();
  }

  #member(): void {
    const { compress } = this.#library;
    const size = Number(
      compress(this.#compressor, this.#input, this.#filled, this.#output, this.#output.length),
    );
    assert(size > 0, "libdeflate needs more room than it asked for");
    this.#filled = 0;
    this.#isEmpty = false;
    this.#emit(this.#output.subarray(0, size));
  }

  [Symbol.dispose](): void {
    this.#library.free(this.#compressor);
  }
}
