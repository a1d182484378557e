import type { Socket } from "node:net";
import { type Duplex, Readable } from "node:stream";
import { assert } from "#base/assert.ts";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { takeOver } from "./hijack.ts";
import { type BodyDecoder, createChunkedDecoder, createLengthDecoder } from "./listen-body.ts";
import type { Guard } from "./listen-guard.ts";
import { BadRequest, findHeadEnd, headBytesMax, parseHead, type RequestHead } from "./listen-head.ts";
import { type BodySink, borrowedPieces } from "./listen-pieces.ts";

/** A head must be whole in this time from its first byte, so that a stalled client holds nothing for long. */
const headTimeoutMs = 60_000;
/** Bytes kept of a client that sends ahead (pipelining, early input) before its socket is paused. */
const aheadBytesMax = 64 * 1024;
/** An unread body up to this size is read and dropped to keep the connection; a longer one costs the connection. */
const discardBytesMax = 256 * 1024;
/** As Go's rstAvoidanceDelay. */
const lingerMs = 500;
const bodyBufferBytes = 256 * 1024;

const nothing: Buffer = Buffer.alloc(0);
const settled: Promise<void> = Promise.resolve();

/** One request being answered; implemented by the exchange. */
export interface Turn {
  /** Nothing of the answer has been sent. */
  readonly open: boolean;
  /** The client is gone, or has ended its side: nobody waits for the answer any more. */
  clientGone(): void;
}

export interface ConnectionOptions {
  /** Whose requests are taken. */
  readonly guard: Guard;
  /** A connection between two requests ends after this; undefined: never (on a unix socket it costs next to nothing). */
  readonly idleTimeoutMs?: number;
}

export type BeginTurn = (head: RequestHead, connection: Connection) => Turn;

/**
 * One client connection: requests in order, one at a time; the bytes behind a request wait (bounded) until it is
 * answered or takes the connection over.
 */
export class Connection {
  readonly #socket: Socket;
  readonly #begin: BeginTurn;
  readonly #idleTimeoutMs: number | undefined;
  readonly guard: Guard;
  #pending: Buffer = nothing;
  /** Memory of the last read, where `#pending` is all of it that may still be needed. */
  #lastRead: ArrayBuffer | undefined;
  /** Bytes of `#pending` known to hold no end of a head. */
  #scanned = 0;
  #head: RequestHead | undefined;
  #turn: Turn | undefined;
  #decoder: BodyDecoder | undefined;
  #sink: BodySink | undefined;
  #sinkReady = true;
  #continued = false;
  #ended = false;
  #hijacked = false;
  #pumping = false;
  #closing = false;
  #headTimer: NodeJS.Timeout | undefined;
  #idleTimer: NodeJS.Timeout | undefined;
  #drained: Promise<void> | undefined;

  constructor(socket: Socket, begin: BeginTurn, { guard, idleTimeoutMs }: ConnectionOptions) {
    this.#socket = socket;
    this.#begin = begin;
    this.guard = guard;
    this.#idleTimeoutMs = idleTimeoutMs;
    socket.on("data", this.#onData);
    socket.on("end", this.#onEnd);
    socket.on("close", this.#onClose);
    // A reset is followed by `close`; without a listener it would end the daemon.
    socket.on("error", () => {});
    this.#waitIdle(headTimeoutMs);
  }

  /** The next request must begin in time, or the connection ends. */
  #waitIdle(timeoutMs: number): void {
    if (this.#idleTimeoutMs === undefined) return;
    clearTimeout(this.#idleTimer);
    this.#idleTimer = setTimeout(() => this.#socket.destroySoon(), timeoutMs);
    this.#idleTimer.unref();
  }

  get gone(): boolean {
    return this.#socket.destroyed || !this.#socket.writable;
  }

  readonly #onData = (chunk: Buffer): void => {
    clearTimeout(this.#idleTimer);
    const { buffer } = chunk;
    // What is cut from Node's pool never fills its buffer.
    const isWhole = this.#pending.length === 0 && buffer.byteLength === chunk.length;
    this.#lastRead = isWhole && buffer instanceof ArrayBuffer ? buffer : undefined;
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    this.#pump();
  };

  readonly #onEnd = (): void => {
    this.#ended = true;
    if (this.#hijacked) return;
    this.#pump();
    if (this.#turn === undefined) this.#socket.end();
    else this.#turn.clientGone();
  };

  readonly #onClose = (): void => {
    clearTimeout(this.#headTimer);
    clearTimeout(this.#idleTimer);
    this.#ended = true;
    this.#pump();
    this.#turn?.clientGone();
  };

  #failBody(): void {
    const sink = this.#sink;
    this.#sink = undefined;
    this.#decoder = undefined;
    sink?.fail(
      new EngineError("cancelled", "unexpected EOF while reading the request body", { code: "client-gone" }),
    );
  }

  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      while (!this.#hijacked && this.#step());
    } catch (error) {
      this.#refuse(error);
    } finally {
      this.#pumping = false;
    }
    this.#flow();
  }

  /** One piece of progress; false when more bytes or somebody else's doing is needed. */
  #step(): boolean {
    if (this.#turn === undefined) return this.#nextHead();
    if (this.#decoder === undefined || this.#sink === undefined || !this.#sinkReady) return false;
    const { piece, used } = this.#decoder.decode(this.#pending, true);
    this.#pending = used === this.#pending.length ? nothing : this.#pending.subarray(used);
    if (piece !== undefined) this.#sinkReady = this.#sink.piece(piece);
    if (this.#decoder?.done === true) {
      const sink = this.#sink;
      this.#decoder = undefined;
      this.#sink = undefined;
      sink?.end();
      return true;
    }
    // What was read ahead is used up before the end of the connection counts.
    if (piece === undefined && this.#ended) this.#failBody();
    return piece !== undefined;
  }

  #nextHead(): boolean {
    if (this.#closing || this.#socket.destroyed || this.#pending.length === 0) return false;
    // Empty lines between requests are skipped (RFC 9112 §2.2).
    let start = 0;
    while (this.#pending[start] === 13 || this.#pending[start] === 10) start += 1;
    if (start > 0) this.#pending = this.#pending.subarray(start);
    const end = findHeadEnd(this.#pending, this.#scanned);
    if (end === -1 || end > headBytesMax) {
      if (this.#pending.length > headBytesMax) throw new BadRequest(431, "Request Header Fields Too Large");
      this.#scanned = Math.max(0, this.#pending.length - 2);
      this.#headTimer ??= setTimeout(() => this.#socket.destroy(), headTimeoutMs);
      return false;
    }
    clearTimeout(this.#headTimer);
    this.#headTimer = undefined;
    this.#scanned = 0;
    const head = parseHead(this.#pending.toString("latin1", 0, end));
    this.#pending = this.#pending.subarray(end);
    this.#start(head);
    return true;
  }

  #start(head: RequestHead): void {
    this.#head = head;
    this.#continued = false;
    this.#sinkReady = true;
    this.#decoder =
      head.body.kind === "length"
        ? createLengthDecoder(head.body.bytes)
        : head.body.kind === "chunked"
          ? createChunkedDecoder()
          : undefined;
    // `begin` may answer before it returns: the turn is told apart by a placeholder until then.
    const placeholder: Turn = { open: true, clientGone: () => {} };
    this.#turn = placeholder;
    const turn = this.#begin(head, this);
    if (this.#turn === placeholder) this.#turn = turn;
  }

  #flow(): void {
    if (this.#hijacked || this.#socket.destroyed) return;
    const wantsBody = this.#decoder !== undefined && this.#sink !== undefined && this.#sinkReady;
    if (this.#turn === undefined || wantsBody || this.#pending.length < aheadBytesMax) this.#socket.resume();
    else this.#socket.pause();
  }

  /** Something that is no HTTP, or a body that breaks its framing: one plain answer, then the end. */
  #refuse(error: unknown): void {
    if (!(error instanceof BadRequest)) throw error;
    this.#closing = true;
    this.#pending = nothing;
    if (this.#turn === undefined) {
      const text = `${error.status} ${error.message}`;
      this.#socket.end(
        `HTTP/1.1 ${text}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: ${text.length}\r\n\r\n${text}`,
      );
      return;
    }
    const sink = this.#sink;
    this.#decoder = undefined;
    this.#sink = undefined;
    sink?.fail(new EngineError("invalid", error.message, { code: "bad-body", cause: error }));
  }

  get keepAlive(): boolean {
    return this.#head?.keepAlive === true && !this.#closing && !this.#ended;
  }

  /** A request is being worked on and nothing of its answer is out yet: worth waiting for when the daemon stops. */
  get busy(): boolean {
    return !this.#hijacked && this.#turn?.open === true;
  }

  /** The answer to the current request asks for, or causes, the end of this connection after it. */
  closeAfterAnswer(): void {
    this.#closing = true;
  }

  #wantBody(sink: BodySink): void {
    assert(this.#sink === undefined, "a body is read once");
    if (this.#decoder === undefined) {
      sink.end();
      return;
    }
    if (!this.#continued && this.#head?.headers["expect"]?.toLowerCase() === "100-continue") {
      this.#socket.write("HTTP/1.1 100 Continue\r\n\r\n");
    }
    this.#continued = true;
    this.#sink = sink;
    this.#pump();
  }

  /** The whole body, at most `bytesMax`. Rejects `invalid` (code `body-too-large`) beyond, `cancelled` when cut off. */
  collect(bytesMax: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const pieces: Buffer[] = [];
      let size = 0;
      this.#wantBody({
        piece: (bytes) => {
          size += bytes.length;
          if (size <= bytesMax) pieces.push(bytes);
          else {
            this.closeAfterAnswer();
            this.#sink = undefined;
            reject(new EngineError("invalid", "http: request body too large", { code: "body-too-large" }));
          }
          return true;
        },
        end: () => resolve(pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces)),
        fail: reject,
      });
    });
  }

  bodyStream(): Readable {
    const readable = new Readable({
      highWaterMark: bodyBufferBytes,
      read: () => {
        if (this.#sinkReady) return;
        this.#sinkReady = true;
        this.#pump();
      },
      destroy: (error, done) => {
        if (this.#sink === sink) this.#sink = undefined;
        done(error);
      },
    });
    // A handler may have stopped looking when the client breaks off: that is no reason to end the daemon.
    readable.on("error", () => {});
    const sink: BodySink = {
      piece: (bytes) => readable.push(bytes),
      end: () => readable.push(null),
      fail: (error) => readable.destroy(error),
    };
    this.#wantBody(sink);
    return readable;
  }

  /** The body in pieces as they come. Each is valid until the next one is asked for: its memory is then given back. */
  bodyPieces(): AsyncIterableIterator<Buffer> {
    return borrowedPieces({
      begin: (sink) => this.#wantBody(sink),
      more: (used) => {
        const isLast = used !== undefined && used.buffer === this.#lastRead && this.#pending.length === 0;
        // Whoever used it may have given it back already.
        if (isLast && this.#lastRead?.detached === false) this.#lastRead.transfer(0);
        this.#sinkReady = true;
        this.#pump();
      },
      end: (sink) => {
        if (this.#sink === sink) this.#sink = undefined;
      },
    });
  }

  /** Resolves when the client may take more, rejects when it is gone. */
  write(chunk: string | Uint8Array): Promise<void> {
    if (this.gone) return Promise.reject(clientGone());
    return this.#socket.write(chunk) ? settled : this.#drain();
  }

  /** Pieces in one system call. */
  writeAll(chunks: readonly (string | Uint8Array)[]): Promise<void> {
    if (this.gone) return Promise.reject(clientGone());
    this.#socket.cork();
    let free = true;
    for (const chunk of chunks) free = this.#socket.write(chunk);
    this.#socket.uncork();
    return free ? settled : this.#drain();
  }

  #drain(): Promise<void> {
    this.#drained ??= new Promise<void>((resolve, reject) => {
      const finish = (): void => {
        this.#drained = undefined;
        this.#socket.off("drain", finish);
        this.#socket.off("close", finish);
        if (this.#socket.destroyed) reject(clientGone());
        else resolve();
      };
      this.#socket.on("drain", finish);
      this.#socket.on("close", finish);
    });
    return this.#drained;
  }

  /** The answer is written: on to the next request, or the end of the connection. */
  endTurn(): void {
    if (this.#hijacked || this.#turn === undefined) return;
    const unread = this.#decoder;
    if (unread !== undefined && (this.#head?.headers["expect"] === undefined || this.#continued)) {
      this.#discardThen(unread, () => this.#nextTurn());
      return;
    }
    if (unread !== undefined) this.#closing = true;
    this.#nextTurn();
  }

  #nextTurn(): void {
    const keep = this.keepAlive;
    this.#turn = undefined;
    this.#head = undefined;
    this.#decoder = undefined;
    this.#sink = undefined;
    if (keep) {
      if (this.#pending.length === 0) this.#waitIdle(this.#idleTimeoutMs ?? 0);
      this.#pump();
    } else this.#lingerAndEnd();
  }

  /** A client that is still sending must be able to read its answer: closing at once would break its writes (RFC 9112 §9.6). */
  #lingerAndEnd(): void {
    const socket = this.#socket;
    this.#closing = true;
    socket.off("data", this.#onData);
    this.#pending = nothing;
    if (this.#ended) {
      socket.destroySoon();
      return;
    }
    socket.end();
    socket.resume();
    const timer = setTimeout(() => socket.destroy(), lingerMs);
    socket.once("close", () => clearTimeout(timer));
  }

  #discardThen(decoder: BodyDecoder, next: () => void): void {
    let budget = discardBytesMax;
    const giveUp = (): void => {
      this.#closing = true;
      next();
    };
    if ((decoder.remaining ?? 0) > budget || this.#closing) {
      giveUp();
      return;
    }
    this.#sinkReady = true;
    this.#sink = {
      piece: (bytes) => {
        budget -= bytes.length;
        if (budget < 0) giveUp();
        return true;
      },
      end: next,
      fail: giveUp,
    };
    this.#pump();
  }

  /**
   * Writes `answer` and hands the connection over. A body of known length is dropped first (it is at most options);
   * an endless chunked one is unframed by the duplex.
   */
  async hijack(answer: string): Promise<Duplex> {
    if (this.#decoder !== undefined && this.#decoder.remaining !== undefined) {
      await this.collect(limits.requestBodyBytesMax);
    }
    if (this.gone) throw clientGone();
    const socket = this.#socket;
    this.#hijacked = true;
    this.#turn = undefined;
    await this.#stopReading();
    socket.off("end", this.#onEnd);
    socket.off("close", this.#onClose);
    socket.write(answer);
    return takeOver({ socket, early: this.#pending, ended: this.#ended, decoder: this.#decoder });
  }

  /**
   * Back to a stream that nobody reads yet: what arrives is buffered, and the next owner's `data` listener starts it.
   * A plain pause() would not do, since it is in force until somebody calls resume().
   */
  async #stopReading(): Promise<void> {
    const none = (): void => {};
    this.#socket.on("readable", none);
    this.#socket.off("data", this.#onData);
    this.#socket.off("readable", none);
    // The stream looks at its listeners in a process.nextTick of its own, which comes before this one.
    await new Promise<void>((resolve) => process.nextTick(resolve));
  }

  /** No further request is taken: an idle connection ends now, a busy one after its answer. */
  shutdown(): void {
    this.#closing = true;
    if (this.#turn === undefined && !this.#hijacked) this.#socket.destroySoon();
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

export function clientGone(): EngineError {
  return new EngineError("cancelled", "the client has gone away", { code: "client-gone" });
}
