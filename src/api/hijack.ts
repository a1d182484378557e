import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import type { BodyDecoder } from "./listen-body.ts";

/** What is left on a connection when a handler takes it over. */
export interface Takeover {
  readonly socket: Socket;
  /** Bytes behind the request that were read already: the client's first input. */
  readonly early: Buffer;
  /** The client has ended its side already. */
  readonly ended: boolean;
  /** A chunked body that has not ended: what follows is framed until its last chunk. */
  readonly decoder: BodyDecoder | undefined;
}

/**
 * The connection as a duplex of raw bytes. The socket itself wherever that is possible: it then costs nothing a chunk.
 * The client's end of input ends the readable side only (the socket is made with allowHalfOpen).
 */
export function takeOver({ socket, early, ended, decoder }: Takeover): Duplex {
  if (decoder === undefined && !ended) {
    if (early.length > 0) socket.unshift(early);
    return socket;
  }
  return new FramedConnection({ socket, early, ended, decoder });
}

/**
 * For clients that announce a chunked body on attach (docker-modem does): chunks are input, a first one that holds a
 * JSON object is their options and is dropped, and what follows the last chunk is raw input.
 */
class FramedConnection extends Duplex {
  readonly #socket: Socket;
  #decoder: BodyDecoder | undefined;
  #pending: Buffer;
  #first = true;

  constructor({ socket, early, ended, decoder }: Takeover) {
    super({ allowHalfOpen: true });
    this.#socket = socket;
    this.#decoder = decoder;
    this.#pending = Buffer.alloc(0);
    socket.on("data", (chunk: Buffer) => {
      if (!this.#feed(chunk)) socket.pause();
    });
    socket.on("end", () => this.push(null));
    socket.on("error", (error) => this.destroy(error));
    socket.on("close", () => this.destroy());
    // As on the socket itself: `close` follows, and an error that nobody listens for would end the daemon.
    this.on("error", () => {});
    if (early.length > 0) this.#feed(early);
    if (ended) this.push(null);
  }

  #feed(chunk: Buffer): boolean {
    if (this.#decoder === undefined) return this.push(chunk);
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    let more = true;
    try {
      while (this.#decoder !== undefined) {
        const { piece, used } = this.#decoder.decode(this.#pending);
        this.#pending = this.#pending.subarray(used);
        if (piece !== undefined) more = this.#input(piece);
        if (this.#decoder.done) this.#decoder = undefined;
        else if (piece === undefined) return more;
      }
    } catch (error) {
      this.destroy(error as Error);
      return false;
    }
    if (this.#pending.length > 0) more = this.push(this.#pending);
    this.#pending = Buffer.alloc(0);
    return more;
  }

  #input(piece: Buffer): boolean {
    const isOptions = this.#first && piece[0] === 0x7b;
    this.#first = false;
    return isOptions ? true : this.push(piece);
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#socket.write(chunk, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#socket.end(done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }
}
