import type { ByteString } from "#base/byte-string.ts";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { checkExtents, checkGlobalSize, type PaxRecords, parsePax } from "./pax.ts";
import {
  badArchive,
  blockBytes,
  checksumMatches,
  type EntryType,
  paddingOf,
  readNumber,
  readText,
  type SparseExtent,
  type TarEntry,
} from "./tar-format.ts";

/** Where the reader hands over what it finds; all calls are synchronous, chunks are only valid during the call. */
export interface TarSink {
  entry(entry: TarEntry): void;
  /** Data of the current file, to lie at `offset`; offsets ascend, gaps are holes. */
  data(chunk: Uint8Array, offset: number): void;
  /** The current entry is complete. */
  end(): void;
}

type State = "header" | "meta" | "sparse-header" | "sparse-map" | "data" | "padding" | "done";

const regular = new Set(["0", "\0", "7", "S"]);
const typeOf: Readonly<Record<string, EntryType>> = {
  "1": "link",
  "2": "symlink",
  "3": "char",
  "4": "block",
  "5": "directory",
  "6": "fifo",
  D: "directory",
};

/**
 * Streaming tar reader: ustar, PAX (local and global), GNU long names, GNU sparse (old, 0.0, 0.1, 1.0), base-256
 * numbers. `push` takes chunks of any size and calls the sink; `finish` tells a truncated archive. Hostile input is
 * bounded by `limits`: path bytes and depth, header bytes, entries, file size. Throws `EngineError` code `bad-archive`.
 */
export class TarReader {
  readonly #sink: TarSink;
  readonly #block = Buffer.alloc(blockBytes);
  #filled = 0;
  #state: State = "header";
  readonly #headersMax: number;
  #headers = 0;
  #zeroBlocks = 0;
  readonly #global: PaxRecords = {};
  #records: PaxRecords | undefined;
  #longPath: ByteString | undefined;
  #longLink: ByteString | undefined;
  #metaType = "";
  #meta: Buffer = Buffer.alloc(0);
  #metaFilled = 0;
  /** Data or padding bytes still to come. */
  #left = 0;
  #padding = 0;
  #skip = false;
  #open = false;
  #entry: TarEntry | undefined;
  #extents: SparseExtent[] = [];
  #extentIndex = 0;
  #offset = 0;
  #extentLeft = 0;
  #pendingSparse: { entry: TarEntry; stored: number } | undefined;
  #map: { text: string; numbers: number[]; bytes: number } = { text: "", numbers: [], bytes: 0 };

  constructor(sink: TarSink, entriesMax: number = limits.archiveEntriesMax) {
    this.#sink = sink;
    // Two header entries (PAX, long names) may precede each real one.
    this.#headersMax = 3 * entriesMax;
  }

  /** True once the end-of-archive mark was read; what follows is ignored, as tar and Docker do. */
  get ended(): boolean {
    return this.#state === "done";
  }

  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      switch (this.#state) {
        case "done":
          return;
        case "data":
          at = this.#data(chunk, at);
          break;
        case "padding": {
          const taken = Math.min(this.#left, chunk.length - at);
          at += taken;
          this.#left -= taken;
          if (this.#left === 0) this.#state = "header";
          break;
        }
        case "meta":
          at = this.#collectMeta(chunk, at);
          break;
        default:
          at = this.#collectBlock(chunk, at);
      }
    }
  }

  /** Call at the end of input. An archive may end without its two zero blocks, but not inside an entry. */
  finish(): void {
    // Padding of the last entry may be cut off: GNU tar and Go take it.
    const between = this.#state === "padding" || (this.#state === "header" && this.#filled === 0);
    const clean = this.#state === "done" || (between && !this.#headerPending());
    if (!clean) throw new EngineError("invalid", "unexpected EOF", { code: "truncated-archive" });
  }

  /** An extended header came, and the entry it belongs to did not. */
  #headerPending(): boolean {
    return this.#records !== undefined || this.#longPath !== undefined || this.#longLink !== undefined;
  }

  #collectBlock(chunk: Uint8Array, at: number): number {
    if (this.#filled === 0 && chunk.length - at >= blockBytes) {
      const view = Buffer.from(chunk.buffer, chunk.byteOffset + at, blockBytes);
      this.#blockDone(view);
      return at + blockBytes;
    }
    const taken = Math.min(blockBytes - this.#filled, chunk.length - at);
    this.#block.set(chunk.subarray(at, at + taken), this.#filled);
    this.#filled += taken;
    if (this.#filled === blockBytes) {
      this.#filled = 0;
      this.#blockDone(this.#block);
    }
    return at + taken;
  }

  #blockDone(block: Buffer): void {
    if (this.#state === "header") this.#header(block);
    else if (this.#state === "sparse-header") this.#sparseHeader(block);
    else this.#sparseMap(block);
  }

  #header(block: Buffer): void {
    if (block[0] === 0 && isZero(block)) {
      this.#zeroBlocks += 1;
      if (this.#zeroBlocks === 2) this.#state = "done";
      return;
    }
    if (this.#zeroBlocks > 0) throw badArchive("data after a zero block");
    if (!checksumMatches(block)) throw badArchive("checksum mismatch");
    this.#headers += 1;
    if (this.#headers > this.#headersMax) {
      throw new EngineError("invalid", "archive has too many entries", { code: "archive-limit" });
    }
    const flag = String.fromCharCode(block[156] ?? 0);
    switch (flag) {
      case "x":
      case "X":
      case "g":
      case "L":
      case "K":
        this.#startMeta(flag, readNumber(block, 124, 12));
        return;
      case "V":
      case "M":
      case "N":
        throw badArchive(`entries of type ${JSON.stringify(flag)} are not supported`);
      default:
        this.#startEntry(block, flag);
    }
  }

  #startMeta(flag: string, size: number): void {
    if (size < 0 || size > limits.archiveHeaderBytesMax) throw badArchive("an extended header is too large");
    this.#metaType = flag;
    this.#meta = Buffer.alloc(size);
    this.#metaFilled = 0;
    this.#padding = paddingOf(size);
    if (size === 0) this.#metaDone();
    else this.#state = "meta";
  }

  #collectMeta(chunk: Uint8Array, at: number): number {
    const taken = Math.min(this.#meta.length - this.#metaFilled, chunk.length - at);
    this.#meta.set(chunk.subarray(at, at + taken), this.#metaFilled);
    this.#metaFilled += taken;
    if (this.#metaFilled === this.#meta.length) this.#metaDone();
    return at + taken;
  }

  #metaDone(): void {
    const meta = this.#meta;
    this.#meta = Buffer.alloc(0);
    switch (this.#metaType) {
      case "g":
        parsePax(meta, this.#global);
        checkGlobalSize(this.#global);
        break;
      case "L":
        this.#longPath = readText(meta, 0, meta.length);
        break;
      case "K":
        this.#longLink = readText(meta, 0, meta.length);
        break;
      default:
        // A second extended header for one entry replaces the first, as Go has it.
        this.#records = {};
        parsePax(meta, this.#records);
    }
    this.#afterData();
  }

  /** Next comes padding, then a header. */
  #afterData(): void {
    this.#left = this.#padding;
    this.#state = this.#padding === 0 ? "header" : "padding";
  }

  #startEntry(block: Buffer, flag: string): void {
    const records = this.#merged();
    const path = checkPath(records.path ?? this.#longPath ?? headerPath(block));
    const type = entryType(flag, path);
    const stored = type === "file" || flag === "D" ? (records.size ?? readNumber(block, 124, 12)) : 0;
    if (stored < 0 || stored > limits.layerBytesMax) {
      throw new EngineError("invalid", `archive entry of ${stored} bytes is too large`, {
        code: "archive-limit",
      });
    }
    const entry = buildEntry(block, records, path, type, stored, this.#longLink);
    this.#records = undefined;
    this.#longPath = undefined;
    this.#longLink = undefined;
    this.#padding = paddingOf(stored);
    this.#left = stored;
    this.#skip = flag === "D";
    if (flag === "S") this.#startOldSparse(block, entry, stored);
    else if (type === "file" && records.sparse !== undefined) this.#startPaxSparse(records, entry, stored);
    else this.#begin(entry, undefined);
  }

  #merged(): PaxRecords {
    const local = this.#records;
    if (local === undefined) return this.#global;
    const merged: PaxRecords = { ...this.#global, ...local };
    if (this.#global.xattrs !== undefined && local.xattrs !== undefined) {
      merged.xattrs = new Map([...this.#global.xattrs, ...local.xattrs]);
    }
    return merged;
  }

  #begin(entry: TarEntry, extents: SparseExtent[] | undefined): void {
    this.#entry = entry;
    this.#extents = extents ?? [];
    this.#extentIndex = -1;
    this.#extentLeft = extents === undefined ? this.#left : 0;
    this.#offset = 0;
    this.#open = true;
    this.#sink.entry(extents === undefined ? entry : { ...entry, sparse: extents });
    if (this.#left === 0) this.#close();
    else this.#state = "data";
  }

  #close(): void {
    this.#entry = undefined;
    if (this.#open) this.#sink.end();
    this.#open = false;
    this.#afterData();
  }

  #data(chunk: Uint8Array, at: number): number {
    if (this.#extentLeft === 0) {
      this.#extentIndex += 1;
      const extent = this.#extents[this.#extentIndex];
      if (extent === undefined) throw badArchive("a sparse map does not fit its data");
      this.#offset = extent.offset;
      this.#extentLeft = extent.length;
    }
    const taken = Math.min(this.#extentLeft, chunk.length - at);
    if (!this.#skip) this.#sink.data(chunk.subarray(at, at + taken), this.#offset);
    this.#offset += taken;
    this.#extentLeft -= taken;
    this.#left -= taken;
    if (this.#left === 0) this.#close();
    return at + taken;
  }

  #startOldSparse(block: Buffer, entry: TarEntry, stored: number): void {
    const realSize = checkRealSize(readNumber(block, 483, 12));
    this.#extents = readOldExtents(block, 386, 4);
    this.#pendingSparse = { entry: { ...entry, sizeBytes: realSize }, stored };
    if (block[482] === 0) this.#sparseReady();
    else this.#state = "sparse-header";
  }

  #sparseHeader(block: Buffer): void {
    for (const extent of readOldExtents(block, 0, 21)) this.#extents.push(extent);
    if (this.#extents.length * 24 > limits.archiveHeaderBytesMax)
      throw badArchive("a sparse map is too large");
    if (block[504] === 0) this.#sparseReady();
  }

  #sparseReady(): void {
    const pending = this.#pendingSparse;
    if (pending === undefined) throw badArchive("a sparse map is malformed");
    this.#pendingSparse = undefined;
    const extents = checkExtents(this.#extents, pending.entry.sizeBytes, this.#left);
    this.#begin(pending.entry, extents);
  }

  #startPaxSparse(records: PaxRecords, entry: TarEntry, stored: number): void {
    const sparse = records.sparse;
    if (sparse?.realSize === undefined || sparse.pendingOffset !== undefined) {
      throw badArchive("a sparse map is malformed");
    }
    this.#pendingSparse = { entry: { ...entry, sizeBytes: checkRealSize(sparse.realSize) }, stored };
    if (sparse.major === 1 && (sparse.minor ?? 0) === 0) {
      this.#map = { text: "", numbers: [], bytes: 0 };
      this.#state = "sparse-map";
      return;
    }
    this.#extents = sparse.extents;
    this.#sparseReady();
  }

  /** Version 1.0: the map comes first in the data, decimal lines, padded to a block. */
  #sparseMap(block: Buffer): void {
    const map = this.#map;
    map.bytes += blockBytes;
    this.#left -= blockBytes;
    if (map.bytes > limits.archiveHeaderBytesMax || this.#left < 0) {
      throw badArchive("a sparse map is too large");
    }
    const lines = (map.text + block.toString("latin1")).split("\n");
    map.text = lines.pop() ?? "";
    for (const line of lines) {
      if (!/^[0-9]{1,15}$/.test(line)) throw badArchive("a sparse map is malformed");
      map.numbers.push(Number(line));
      const count = map.numbers[0] ?? 0;
      if (map.numbers.length === 1 + 2 * count) {
        this.#extents = [];
        for (let index = 1; index < map.numbers.length; index += 2) {
          this.#extents.push({ offset: map.numbers[index] ?? 0, length: map.numbers[index + 1] ?? 0 });
        }
        this.#sparseReady();
        return;
      }
    }
    if (map.text.length > 16) throw badArchive("a sparse map is malformed");
  }
}

/** Holds an entry that was not read from an archive to the same bounds. Throws code `archive-limit`. */
export function checkEntry({ path, linkPath, sizeBytes }: TarEntry): void {
  checkPath(path);
  checkPath(linkPath);
  checkRealSize(sizeBytes);
}

function isZero(block: Buffer): boolean {
  for (let index = 0; index < blockBytes; index += 1) if (block[index] !== 0) return false;
  return true;
}

function checkRealSize(size: number): number {
  if (size < 0 || size > limits.layerBytesMax) {
    throw new EngineError("invalid", `archive entry of ${size} bytes is too large`, {
      code: "archive-limit",
    });
  }
  return size;
}

function entryType(flag: string, path: string): EntryType {
  if (regular.has(flag)) return flag === "\0" && path.endsWith("/") ? "directory" : "file";
  const type = typeOf[flag];
  if (type === undefined) throw badArchive(`unhandled tar header type ${flag.charCodeAt(0)}`);
  return type;
}

/** Name and, in POSIX archives only, the prefix before it (GNU puts times there, star has a shorter one). */
function headerPath(block: Buffer): ByteString {
  const name = readText(block, 0, 100);
  if (block.toString("latin1", 257, 263) !== "ustar\0") return name;
  const star = block.toString("latin1", 508, 512) === "tar\0";
  const prefix = readText(block, 345, star ? 131 : 155);
  return (prefix === "" ? name : `${prefix}/${name}`) as ByteString;
}

function checkPath(path: ByteString): ByteString {
  if (path.length > limits.archivePathBytesMax) {
    throw new EngineError("invalid", `archive path of ${path.length} bytes is too long`, {
      code: "archive-limit",
    });
  }
  let depth = 0;
  for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1)) depth += 1;
  if (depth > limits.archivePathDepthMax) {
    throw new EngineError("invalid", `archive path is ${depth} levels deep`, { code: "archive-limit" });
  }
  return path;
}

function buildEntry(
  block: Buffer,
  records: PaxRecords,
  path: ByteString,
  type: EntryType,
  stored: number,
  longLink: ByteString | undefined,
): TarEntry {
  const linked = type === "link" || type === "symlink";
  const device = type === "char" || type === "block";
  const userName = records.userName ?? utf8(readText(block, 265, 32));
  const groupName = records.groupName ?? utf8(readText(block, 297, 32));
  return {
    path,
    type,
    mode: readNumber(block, 100, 8) & 0o7777,
    uid: records.uid ?? readNumber(block, 108, 8),
    gid: records.gid ?? readNumber(block, 116, 8),
    sizeBytes: type === "file" ? stored : 0,
    mtimeNs: records.mtimeNs ?? BigInt(readNumber(block, 136, 12)) * 1_000_000_000n,
    linkPath: linked
      ? checkPath(records.linkPath ?? longLink ?? readText(block, 157, 100))
      : ("" as ByteString),
    deviceMajor: device ? readNumber(block, 329, 8) : 0,
    deviceMinor: device ? readNumber(block, 337, 8) : 0,
    ...(userName === "" ? {} : { userName }),
    ...(groupName === "" ? {} : { groupName }),
    ...(records.xattrs === undefined ? {} : { xattrs: records.xattrs }),
  };
}

function utf8(bytes: ByteString): string {
  return bytes === "" || bytes === "root" ? bytes : Buffer.from(bytes, "latin1").toString("utf8");
}

function readOldExtents(block: Buffer, at: number, count: number): SparseExtent[] {
  const extents: SparseExtent[] = [];
  for (let index = 0; index < count; index += 1) {
    const start = at + index * 24;
    if (block[start] === 0) break;
    extents.push({ offset: readNumber(block, start, 12), length: readNumber(block, start + 12, 12) });
  }
  return extents;
}
