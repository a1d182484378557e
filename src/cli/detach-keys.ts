/** The key sequence that leaves a container running: `ctrl-p,ctrl-q` unless told otherwise. */
import { Transform, type TransformCallback } from "node:stream";

export const defaultDetachKeys = "ctrl-p,ctrl-q";

/** The user typed the detach sequence. */
export class DetachError extends Error {
  constructor() {
    super("read escape sequence");
  }
}

/** Bytes of a sequence such as `ctrl-a,x`. Throws for an unknown key. */
export function parseDetachKeys(text: string): number[] {
  return text.split(",").map((key) => {
    if (key.length === 1) return key.charCodeAt(0);
    const match = /^ctrl-([a-z@[\\\]^_])$/.exec(key);
    if (match === null) throw new Error(`invalid detach keys (${text}): Unknown character: '${key}'`);
    const letter = match[1]!;
    return letter === "@" ? 0 : letter >= "a" ? letter.charCodeAt(0) - 96 : letter.charCodeAt(0) - 64;
  });
}

/** Passes input through, holding back what may be the start of the sequence; fails with `DetachError` when it is whole. */
export class DetachFilter extends Transform {
  readonly #keys: readonly number[];
  #matched = 0;

  constructor(keys: readonly number[]) {
    super();
    this.#keys = keys;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    const out: number[] = [];
    for (const byte of chunk) {
      if (byte === this.#keys[this.#matched]) {
        this.#matched += 1;
        if (this.#matched === this.#keys.length) {
          if (out.length > 0) this.push(Buffer.from(out));
          done(new DetachError());
          return;
        }
        continue;
      }
      out.push(...this.#keys.slice(0, this.#matched));
      this.#matched = 0;
      if (byte === this.#keys[0]) this.#matched = 1;
      else out.push(byte);
    }
    if (out.length > 0) this.push(Buffer.from(out));
    done();
  }

  override _flush(done: TransformCallback): void {
    if (this.#matched > 0) this.push(Buffer.from(this.#keys.slice(0, this.#matched)));
    done();
  }
}
