import { assert } from "#base/assert.ts";
import { bytesOfText } from "#base/byte-string.ts";
import { blockBytes, checksumOf, type EntryType, paddingOf, type TarEntry } from "./tar-format.ts";

/** What a writer needs of an entry; a sparse file is written whole. */
export type TarHeader = Omit<TarEntry, "sparse" | "userName" | "groupName"> & {
  readonly userName?: string;
  readonly groupName?: string;
};

const flags: Readonly<Record<EntryType, string>> = {
  file: "0",
  link: "1",
  symlink: "2",
  char: "3",
  block: "4",
  directory: "5",
  fifo: "6",
};

const second = 1_000_000_000n;
const ascii = /^[\x01-\x7f]*$/;
const zeros = Buffer.alloc(2 * blockBytes);

function paxRecord(key: string, value: Buffer | string): Buffer {
  const bytes = typeof value === "string" ? Buffer.from(value, "latin1") : value;
  const rest = Buffer.byteLength(key) + bytes.length + 3;
  let length = rest + String(rest).length;
  // The length counts its own digits.
  if (rest + String(length).length !== length) length = rest + String(length).length;
  return Buffer.concat([Buffer.from(`${length} ${key}=`), bytes, Buffer.from("\n")]);
}

/** Seconds with as many digits of fraction as are needed: `-0.5`, `1700000000.123`. */
export function formatPaxTime(ns: bigint): string {
  const magnitude = ns < 0n ? -ns : ns;
  const fraction = (magnitude % second).toString().padStart(9, "0").replace(/0+$/, "");
  return `${ns < 0n ? "-" : ""}${magnitude / second}${fraction === "" ? "" : `.${fraction}`}`;
}

function octal(block: Buffer, at: number, length: number, value: number): void {
  block.write(value.toString(8).padStart(length - 1, "0"), at, "latin1");
}

function fits(value: number, digits: number): boolean {
  return value >= 0 && value < 8 ** digits;
}

interface Fields {
  readonly name: string;
  readonly type: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtimeSeconds: number;
  readonly linkName: string;
  readonly userName: string;
  readonly groupName: string;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
}

function ustarBlock(fields: Fields): Buffer {
  const block = Buffer.alloc(blockBytes);
  block.write(fields.name.slice(0, 100), 0, "latin1");
  octal(block, 100, 8, fields.mode);
  octal(block, 108, 8, fields.uid);
  octal(block, 116, 8, fields.gid);
  octal(block, 124, 12, fields.size);
  octal(block, 136, 12, fields.mtimeSeconds);
  block.write(fields.type, 156, "latin1");
  block.write(fields.linkName.slice(0, 100), 157, "latin1");
  block.write("ustar\x0000", 257, "latin1");
  block.write(fields.userName.slice(0, 31), 265, "latin1");
  block.write(fields.groupName.slice(0, 31), 297, "latin1");
  octal(block, 329, 8, fields.deviceMajor);
  octal(block, 337, 8, fields.deviceMinor);
  block.write(`${checksumOf(block).toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/** Records for what plain ustar cannot say, in a fixed order so that equal trees give equal archives. */
function paxRecords(header: TarHeader, path: string): Buffer[] {
  const records: Buffer[] = [];
  if (header.gid < 0 || !fits(header.gid, 7)) records.push(paxRecord("gid", String(header.gid)));
  if (header.linkPath.length > 100 || !ascii.test(header.linkPath)) {
    records.push(paxRecord("linkpath", header.linkPath));
  }
  const seconds = header.mtimeNs / second;
  if (header.mtimeNs < 0n || header.mtimeNs % second !== 0n || !fits(Number(seconds), 11)) {
    records.push(paxRecord("mtime", formatPaxTime(header.mtimeNs)));
  }
  if (path.length > 100 || !ascii.test(path)) records.push(paxRecord("path", path));
  if (!fits(header.sizeBytes, 11)) records.push(paxRecord("size", String(header.sizeBytes)));
  if (header.uid < 0 || !fits(header.uid, 7)) records.push(paxRecord("uid", String(header.uid)));
  const xattrs = [...(header.xattrs ?? [])].sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [name, value] of xattrs) records.push(paxRecord(`SCHILY.xattr.${name}`, value));
  return records;
}

function clamp(value: number, digits: number): number {
  return fits(value, digits) ? value : 0;
}

/**
 * Header blocks of an entry: one ustar block, before it a PAX header where a value does not fit (long or non-ASCII names,
 * nanoseconds, big numbers, xattrs). The same entry always gives the same bytes.
 */
export function encodeHeader(header: TarHeader): Buffer {
  const directory = header.type === "directory" && !header.path.endsWith("/");
  const path = directory ? `${header.path}/` : header.path;
  const records = paxRecords(header, path);
  const seconds = Number(header.mtimeNs < 0n ? 0n : header.mtimeNs / second);
  const block = ustarBlock({
    name: path,
    type: flags[header.type],
    mode: header.mode & 0o7777,
    uid: clamp(header.uid, 7),
    gid: clamp(header.gid, 7),
    size: header.type === "file" ? clamp(header.sizeBytes, 11) : 0,
    mtimeSeconds: clamp(seconds, 11),
    linkName: header.linkPath,
    userName: bytesOfText(header.userName ?? ""),
    groupName: bytesOfText(header.groupName ?? ""),
    deviceMajor: header.deviceMajor,
    deviceMinor: header.deviceMinor,
  });
  if (records.length === 0) return block;
  const body = Buffer.concat(records);
  const base = path.replace(/\/+$/, "").split("/").at(-1) ?? "";
  const paxBlock = ustarBlock({
    name: `PaxHeaders.0/${base.replaceAll(/[^\x20-\x7e]/g, "_").slice(0, 80)}`,
    type: "x",
    mode: 0o644,
    uid: 0,
    gid: 0,
    size: body.length,
    mtimeSeconds: 0,
    linkName: "",
    userName: "",
    groupName: "",
    deviceMajor: 0,
    deviceMinor: 0,
  });
  return Buffer.concat([paxBlock, body, zeros.subarray(0, paddingOf(body.length)), block]);
}

/** Writes an archive piece by piece: `entry`, then exactly `sizeBytes` of `data` for a file, …, then `finish`. */
export class TarWriter {
  readonly #write: (chunk: Uint8Array) => void;
  #left = 0;
  #padding = 0;

  constructor(write: (chunk: Uint8Array) => void) {
    this.#write = write;
  }

  entry(header: TarHeader): void {
    assert(this.#left === 0, "tar entry begun before the last one was complete");
    this.#write(encodeHeader(header));
    this.#left = header.type === "file" ? header.sizeBytes : 0;
    this.#padding = paddingOf(this.#left);
  }

  data(chunk: Uint8Array): void {
    assert(chunk.length <= this.#left, "tar data beyond the size in the header");
    if (chunk.length === 0) return;
    this.#write(chunk);
    this.passed(chunk.length);
  }

  /** So many of the file's next bytes were put behind what this writer wrote, by the caller itself. */
  passed(bytes: number): void {
    assert(bytes <= this.#left, "tar data beyond the size in the header");
    this.#left -= bytes;
    if (bytes > 0 && this.#left === 0 && this.#padding > 0) this.#write(zeros.subarray(0, this.#padding));
  }

  /** Bytes of the current file that are still to come: what a reader of a shrinking file must fill up. */
  get missing(): number {
    return this.#left;
  }

  finish(): void {
    assert(this.#left === 0, "tar finished inside an entry");
    this.#write(zeros);
  }
}
