/** Zeros of at least this length are left out of a file: a bomb of zeros then costs no disk space. */
const holeBytesMin = 64 * 1024;
const zeros = Buffer.alloc(1024 * 1024);

/** Whether a piece of a file is a run of zeros that is better not written; the file's length is then set at its end. */
export function isHole(chunk: Uint8Array): boolean {
  return (
    chunk.length >= holeBytesMin &&
    chunk[0] === 0 &&
    chunk.length <= zeros.length &&
    zeros.compare(chunk, 0, chunk.length, 0, chunk.length) === 0
  );
}
