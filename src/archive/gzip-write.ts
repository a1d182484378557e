import { constants, createGzip } from "node:zlib";
import type { Emit } from "./compression.ts";
import type { NativeStream } from "./native-zlib.ts";

const outputBytes = 256 * 1024;
/**
 * A fifth of the time of zlib's default level for a tenth more bytes: a push waits for the compression, and layers of
 * programs hardly shrink further.
 */
const level = 1;
const empty = new Uint8Array(0);

/** A streaming gzip compressor whose calls are all synchronous, for worker threads. The same input gives the same bytes. */
export class GzipWriter implements Disposable {
  readonly #stream = createGzip({ level }) as unknown as NativeStream;
  readonly #output = Buffer.allocUnsafeSlow(outputBytes);
  readonly #emit: Emit;
  #failure: Error | undefined;

  /** `emit` gets output that is valid only during the call. */
  constructor(emit: Emit) {
    this.#emit = emit;
    this.#stream._handle.onerror = (message) => {
      this.#failure = new Error(`gzip: ${message}`);
    };
  }

  push(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length; ) at = chunk.length - this.#step(constants.Z_NO_FLUSH, chunk, at);
  }

  finish(): void {
    do this.#step(constants.Z_FINISH, empty, 0);
    while (this.#stream._writeState[0] === 0);
  }

  /** One native call; returns how many bytes of the input are left. */
  #step(flush: number, input: Uint8Array, at: number): number {
    const { _handle: handle, _writeState: state } = this.#stream;
    handle.writeSync(flush, input, at, input.length - at, this.#output, 0, outputBytes);
    if (this.#failure !== undefined) throw this.#failure;
    const produced = outputBytes - (state[0] ?? 0);
    if (produced > 0) this.#emit(this.#output.subarray(0, produced));
    return state[1] ?? 0;
  }

  [Symbol.dispose](): void {
    this.#stream._handle.close();
  }
}
