import { BadRequest } from "./listen-head.ts";

const chunkLineBytesMax = 4096;
const trailerBytesMax = 8192;

/** Takes a request's body out of a connection's bytes, length-delimited or chunked (RFC 9112 §6, §7). */
export interface BodyDecoder {
  readonly done: boolean;
  /** Bytes known to be missing; undefined when chunked. */
  readonly remaining: number | undefined;
  /**
   * Next piece of the body in `bytes`, and how many bytes of it are used up. `joined`: all that `bytes` holds of the body is
   * one piece, moved together within `bytes`; else a piece is of one chunk.
   */
  decode(bytes: Buffer, joined?: boolean): { readonly piece: Buffer | undefined; readonly used: number };
}

export function createLengthDecoder(bytesTotal: number): BodyDecoder {
  let remaining = bytesTotal;
  return {
    get done() {
      return remaining === 0;
    },
    get remaining() {
      return remaining;
    },
    decode: (bytes) => {
      const used = Math.min(remaining, bytes.length);
      remaining -= used;
      return { piece: used === 0 ? undefined : bytes.subarray(0, used), used };
    },
  };
}

/** Hexadecimal digits of a chunk's size: more would be beyond what a number holds. */
const sizeDigitsMax = 12;
const byteOf = { tab: 9, newline: 10, return: 13, blank: 32, semicolon: 59 } as const;

function hexValue(byte: number): number {
  if (byte >= 48 && byte <= 57) return byte - 48;
  const letter = byte | 32;
  return letter >= 97 && letter <= 102 ? letter - 87 : -1;
}

function malformed(): BadRequest {
  return new BadRequest(400, "malformed chunked encoding");
}

/** The line with a chunk's size (RFC 9112 §7.1), byte by byte; extensions are skipped. */
class SizeLine {
  #state: "digits" | "blanks" | "extension" | "newline" = "digits";
  #digits = 0;
  #length = 0;
  size = 0;

  /** True at the line's end: `size` is the chunk's, until the next byte. */
  take(byte: number): boolean {
    if (this.#digits === 0) this.size = 0;
    this.#length += 1;
    if (this.#length > chunkLineBytesMax) throw new BadRequest(400, "chunk line too long");
    if (this.#state === "digits") {
      const value = hexValue(byte);
      if (value >= 0 && this.#digits < sizeDigitsMax) {
        this.size = this.size * 16 + value;
        this.#digits += 1;
        return false;
      }
    }
    if (this.#digits === 0) throw malformed();
    if (byte === byteOf.newline) {
      this.#state = "digits";
      this.#digits = 0;
      this.#length = 0;
      return true;
    }
    if (this.#state === "newline") throw malformed();
    if (byte === byteOf.return) this.#state = "newline";
    else if (this.#state === "extension") return false;
    else if (byte === byteOf.semicolon) this.#state = "extension";
    else if (byte === byteOf.blank || byte === byteOf.tab) this.#state = "blanks";
    else throw malformed();
    return false;
  }
}

/** Lines behind the last chunk, to the empty one. They are dropped. */
class Trailer {
  #bytes = 0;
  #line = 0;
  #return = false;

  /** True at the end of the body. */
  take(byte: number): boolean {
    if (byte !== byteOf.newline) {
      if (this.#return) this.#line += 1;
      this.#return = byte === byteOf.return;
      if (!this.#return) this.#line += 1;
      if (this.#bytes + this.#line > trailerBytesMax) throw new BadRequest(431, "trailers too large");
      if (this.#line > chunkLineBytesMax) throw new BadRequest(400, "chunk line too long");
      return false;
    }
    this.#return = false;
    if (this.#line === 0) return true;
    this.#bytes += this.#line;
    this.#line = 0;
    return false;
  }
}

class ChunkedDecoder implements BodyDecoder {
  #state: "size" | "data" | "data-return" | "data-newline" | "trailer" | "done" = "size";
  #left = 0;
  readonly #size = new SizeLine();
  readonly #trailer = new Trailer();
  readonly remaining = undefined;

  get done(): boolean {
    return this.#state === "done";
  }

  decode(bytes: Buffer, joined = false): { readonly piece: Buffer | undefined; readonly used: number } {
    let start = -1;
    let end = -1;
    let used = 0;
    while (this.#state !== "done" && used < bytes.length) {
      if (this.#state !== "data") {
        this.#frame(bytes[used] as number);
        used += 1;
        continue;
      }
      if (start >= 0 && !joined) break;
      const taken = Math.min(this.#left, bytes.length - used);
      if (start < 0) start = end = used;
      else bytes.copyWithin(end, used, used + taken);
      end += taken;
      used += taken;
      this.#left -= taken;
      if (this.#left === 0) this.#state = "data-return";
    }
    return { piece: start < 0 ? undefined : bytes.subarray(start, end), used };
  }

  #frame(byte: number): void {
    switch (this.#state) {
      case "size":
        if (!this.#size.take(byte)) return;
        this.#left = this.#size.size;
        this.#state = this.#left === 0 ? "trailer" : "data";
        return;
      case "data-return":
        if (byte === byteOf.newline) this.#state = "size";
        else if (byte === byteOf.return) this.#state = "data-newline";
        else throw malformed();
        return;
      case "data-newline":
        if (byte !== byteOf.newline) throw malformed();
        this.#state = "size";
        return;
      default:
        if (this.#trailer.take(byte)) this.#state = "done";
    }
  }
}

export function createChunkedDecoder(): BodyDecoder {
  return new ChunkedDecoder();
}
