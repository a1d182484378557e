import type { Socket } from "node:net";
import { Duplex } from "node:stream";

/**
 * The stdio of an exec. Its end is held back until the exit code is known, because clients ask for the code as soon as
 * the stream ends (`docker exec` does); bytes pass through by reference.
 */
export class ExecStdio extends Duplex {
  readonly #socket: Socket;

  constructor(socket: Socket, exited: Promise<unknown>) {
    super({ allowHalfOpen: true });
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      if (!this.push(chunk)) socket.pause();
    });
    let ended = false;
    const end = (): void => {
      if (ended) return;
      ended = true;
      void exited.then(() => {
        this.push(null);
        socket.destroy();
      });
    };
    socket.on("end", end);
    socket.on("close", end);
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    // Input for a process that is gone is thrown away, as a pipe's reader that has left would have it.
    if (!this.#socket.writable) done();
    else this.#socket.write(chunk, () => done());
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#socket.end();
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }
}
