/** Detach keys: the sequence that ends a client's attachment and leaves the process running. Pure. */
import { EngineError } from "#base/errors.ts";

export const defaultDetachKeys = "ctrl-p,ctrl-q";

/** `ctrl-p,ctrl-q`, `a,b` and so on as bytes (moby `term.ToBytes`); "" is the default. */
export function parseDetachKeys(text: string): Buffer {
  const bytes = (text === "" ? defaultDetachKeys : text).split(",").map((key) => {
    const byte = keyByte(key);
    if (byte === undefined) {
      throw new EngineError("invalid", `Invalid detach keys (${text}) provided`, { code: "bad-detach-keys" });
    }
    return byte;
  });
  return Buffer.from(bytes);
}

function keyByte(key: string): number | undefined {
  if (key.length === 1 && key.charCodeAt(0) < 128) return key.charCodeAt(0);
  const control = /^ctrl-([a-z@[\\\]^_])$/.exec(key);
  return control === null ? undefined : control[1]!.toUpperCase().charCodeAt(0) & 0x1f;
}

/** Finds the sequence in a stream of input, however it is cut into chunks. */
export class DetachScanner {
  readonly #keys: Buffer;
  #matched = 0;

  constructor(keys: Buffer) {
    this.#keys = keys;
  }

  /**
   * What may be passed on. Bytes that could be the beginning of the sequence are held back until the next chunk decides.
   * `detached` is set when the sequence is complete; nothing after it is passed on.
   */
  push(chunk: Buffer): { readonly passed: Buffer; readonly detached: boolean } {
    const passed: number[] = [];
    for (const byte of chunk) {
      while (this.#matched > 0 && byte !== this.#keys[this.#matched]) this.#giveBack(passed);
      if (byte !== this.#keys[this.#matched]) {
        passed.push(byte);
        continue;
      }
      this.#matched += 1;
      if (this.#matched === this.#keys.length) return { passed: Buffer.from(passed), detached: true };
    }
    return { passed: Buffer.from(passed), detached: false };
  }

  /** The longest shorter match that still holds stays held; what falls out of it is passed on. */
  #giveBack(passed: number[]): void {
    for (let shorter = this.#matched - 1; shorter >= 0; shorter -= 1) {
      const dropped = this.#matched - shorter;
      if (!this.#keys.subarray(0, shorter).equals(this.#keys.subarray(dropped, this.#matched))) continue;
      passed.push(...this.#keys.subarray(0, dropped));
      this.#matched = shorter;
      return;
    }
  }
}
