import type { ByteString } from "#base/byte-string.ts";
import { EngineError } from "#base/errors.ts";

/** What both directions of the tar codec share: POSIX.1-2017 pax, "ustar Interchange Format", and GNU tar's manual. */
export const blockBytes = 512;

export const entryTypes = ["file", "link", "symlink", "char", "block", "directory", "fifo"] as const;
export type EntryType = (typeof entryTypes)[number];

export interface SparseExtent {
  readonly offset: number;
  readonly length: number;
}

export interface TarEntry {
  /** As the archive spells it, with bytes as characters; not cleaned. */
  readonly path: ByteString;
  readonly type: EntryType;
  /** Permission bits with setuid, setgid and sticky: 07777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Length of the file as it is to be on disk: with the holes of a sparse file. 0 for all but files. */
  readonly sizeBytes: number;
  /** Nanoseconds since the epoch. */
  readonly mtimeNs: bigint;
  /** Target of a link or symlink, "" otherwise. */
  readonly linkPath: ByteString;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  readonly userName?: string;
  readonly groupName?: string;
  /** SCHILY.xattr records: attribute name to value. */
  readonly xattrs?: ReadonlyMap<string, Buffer>;
  /** Where data lies in a sparse file, ascending; undefined for an ordinary file. */
  readonly sparse?: readonly SparseExtent[];
}

/** Text matches Go's archive/tar where Docker's clients see it. */
export function badArchive(detail: string): EngineError {
  return new EngineError("invalid", `archive/tar: invalid tar header: ${detail}`, { code: "bad-archive" });
}

/** Octal text, or base-256 where the first bit is set (GNU, for values that octal cannot hold). */
export function readNumber(block: Buffer, at: number, length: number): number {
  const first = block[at] ?? 0;
  if ((first & 0x80) !== 0) return readBase256(block, at, length);
  let value = 0;
  let index = at;
  const end = at + length;
  while (index < end && (block[index] === 0x20 || block[index] === 0)) index += 1;
  for (; index < end; index += 1) {
    const byte = block[index] ?? 0;
    if (byte === 0x20 || byte === 0) break;
    if (byte < 0x30 || byte > 0x37) throw badArchive("a number is not octal");
    value = value * 8 + (byte - 0x30);
  }
  return value;
}

function readBase256(block: Buffer, at: number, length: number): number {
  const negative = block[at] === 0xff;
  let value = negative ? -1n : BigInt((block[at] ?? 0) & 0x7f);
  for (let index = at + 1; index < at + length; index += 1) value = (value << 8n) | BigInt(block[index] ?? 0);
  const number = Number(value);
  if (!Number.isSafeInteger(number)) throw badArchive("a number does not fit");
  return number;
}

/** Bytes up to the first NUL of a field. */
export function readText(block: Buffer, at: number, length: number): ByteString {
  let end = at;
  while (end < at + length && block[end] !== 0) end += 1;
  return block.toString("latin1", at, end) as ByteString;
}

/** The checksum is over the header with its own field as spaces; old tars summed signed bytes. */
export function checksumMatches(block: Buffer): boolean {
  let unsigned = 8 * 0x20;
  let high = 0;
  for (let index = 0; index < blockBytes; index += 1) {
    if (index === 148) index = 156;
    const byte = block[index] as number;
    unsigned += byte;
    high += byte >> 7;
  }
  const stored = readNumber(block, 148, 8);
  return stored === unsigned || stored === unsigned - 256 * high;
}

export function checksumOf(block: Buffer): number {
  let sum = 8 * 0x20;
  for (let index = 0; index < blockBytes; index += 1) {
    if (index === 148) index = 156;
    sum += block[index] as number;
  }
  return sum;
}

/** Bytes that pad data of this length to whole blocks. */
export function paddingOf(sizeBytes: number): number {
  return (blockBytes - (sizeBytes % blockBytes)) % blockBytes;
}
