import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";
import type { TarEntry } from "#archive/tar-format.ts";
import { isHole } from "./zero-holes.ts";

/** A file of at least this size is written to a file of its own, which a layer can take over as it is. */
const ownBytesMin = 256 * 1024;
const bufferBytes = 256 * 1024;

/**
 * Where the data of a context's files goes: small ones one behind the other into one file, large ones each into its own,
 * `<path>.<n>`. What it makes belongs to nobody else and is removed with the build.
 */
export class ContextData implements Disposable {
  readonly #path: string;
  readonly #fd: number;
  readonly #buffer = Buffer.allocUnsafeSlow(bufferBytes);
  #filled = 0;
  #written = 0;
  #count = 0;
  #own:
    | { readonly fd: number; readonly path: string; readonly sizeBytes: number; holes: boolean }
    | undefined;

  constructor(path: string) {
    this.#path = path;
    this.#fd = openSync(path, "wx", 0o600);
  }

  begin({ sizeBytes, sparse }: TarEntry): void {
    if (sizeBytes < ownBytesMin || sparse !== undefined) return;
    const path = `${this.#path}.${this.#count}`;
    this.#count += 1;
    this.#own = { fd: openSync(path, "wx", 0o600), path, sizeBytes, holes: false };
  }

  /** Where in its file the chunk lies now; `offset` is its place in the context's file. */
  write(chunk: Uint8Array, offset: number): number {
    const own = this.#own;
    if (own !== undefined) {
      if (isHole(chunk)) own.holes = true;
      else writeAll(own.fd, chunk, offset);
      return offset;
    }
    const position = this.#written + this.#filled;
    if (chunk.length > bufferBytes - this.#filled) this.finish();
    if (chunk.length > bufferBytes) {
      writeAll(this.#fd, chunk, this.#written);
      this.#written += chunk.length;
    } else {
      this.#buffer.set(chunk, this.#filled);
      this.#filled += chunk.length;
    }
    return position;
  }

  /** After a file's last chunk: the path of its own file, if it has one. */
  end(): string | undefined {
    const own = this.#own;
    if (own === undefined) return undefined;
    this.#own = undefined;
    if (own.holes) ftruncateSync(own.fd, own.sizeBytes);
    closeSync(own.fd);
    return own.path;
  }

  /** Writes what is still in memory. */
  finish(): void {
    writeAll(this.#fd, this.#buffer.subarray(0, this.#filled), this.#written);
    this.#written += this.#filled;
    this.#filled = 0;
  }

  [Symbol.dispose](): void {
    if (this.#own !== undefined) closeSync(this.#own.fd);
    closeSync(this.#fd);
  }
}

function writeAll(fd: number, bytes: Uint8Array, position: number): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, position + at);
}
