import { BadRequest } from "./listen-head.ts";

const chunkLineBytesMax = 4096;
const trailerBytesMax = 8192;

/** Takes a request's body out of a connection's bytes, length-delimited or chunked (RFC 9112 §6, §7). */
export interface BodyDecoder {
  readonly done: boolean;
  /** Bytes known to be missing; undefined when chunked. */
  readonly remaining: number | undefined;
  /** Next piece of the body in `bytes`, and how many bytes of it are used up. */
  decode(bytes: Buffer): { readonly piece: Buffer | undefined; readonly used: number };
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

export function createChunkedDecoder(): BodyDecoder {
  let state: "size" | "data" | "data-end" | "trailer" | "done" = "size";
  let chunkRemaining = 0;
  let trailerBytes = 0;

  /** A line without its end, or undefined when it is not whole yet. */
  const line = (bytes: Buffer): { text: string; used: number } | undefined => {
    const end = bytes.indexOf(10);
    if (end === -1) {
      if (bytes.length > chunkLineBytesMax) throw new BadRequest(400, "chunk line too long");
      return undefined;
    }
    if (end > chunkLineBytesMax) throw new BadRequest(400, "chunk line too long");
    const text = bytes.toString("latin1", 0, bytes[end - 1] === 13 ? end - 1 : end);
    return { text, used: end + 1 };
  };

  const onLine = (text: string): void => {
    if (state === "size") {
      const size = /^([0-9a-fA-F]{1,12})[ \t]*(?:;.*)?$/.exec(text);
      if (size === null) throw new BadRequest(400, "malformed chunked encoding");
      chunkRemaining = Number.parseInt(size[1]!, 16);
      state = chunkRemaining === 0 ? "trailer" : "data";
    } else if (state === "data-end") {
      if (text !== "") throw new BadRequest(400, "malformed chunked encoding");
      state = "size";
    } else if (text === "") state = "done";
    else {
      trailerBytes += text.length;
      if (trailerBytes > trailerBytesMax) throw new BadRequest(431, "trailers too large");
    }
  };

  return {
    get done() {
      return state === "done";
    },
    remaining: undefined,
    decode: (bytes) => {
      let used = 0;
      while (state !== "done" && used < bytes.length) {
        if (state === "data") {
          const piece = bytes.subarray(used, used + chunkRemaining);
          chunkRemaining -= piece.length;
          if (chunkRemaining === 0) state = "data-end";
          return { piece, used: used + piece.length };
        }
        const next = line(bytes.subarray(used));
        if (next === undefined) break;
        used += next.used;
        onLine(next.text);
      }
      return { piece: undefined, used };
    },
  };
}
