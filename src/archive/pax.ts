import type { ByteString } from "#base/byte-string.ts";
import { limits } from "#base/limits.ts";
import { badArchive, type SparseExtent } from "./tar-format.ts";

/** Extended header records that the reader acts on; all others are skipped. */
export interface PaxRecords {
  path?: ByteString;
  linkPath?: ByteString;
  size?: number;
  uid?: number;
  gid?: number;
  mtimeNs?: bigint;
  userName?: string;
  groupName?: string;
  xattrs?: Map<string, Buffer>;
  sparse?: PaxSparse;
}

/** GNU.sparse.* as the three versions of the format spread it. */
export interface PaxSparse {
  major?: number;
  minor?: number;
  realSize?: number;
  extents: SparseExtent[];
  /** Offset of a 0.0 pair whose length has not come yet. */
  pendingOffset?: number;
}

const xattrPrefix = "SCHILY.xattr.";
const sparsePrefix = "GNU.sparse.";

function decimal(text: string): number {
  const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw badArchive("a PAX number is out of range");
  return value;
}

function signedDecimal(text: string): number {
  return text.startsWith("-") ? -decimal(text.slice(1)) : decimal(text);
}

/** `-?seconds[.fraction]` to nanoseconds; digits beyond nanoseconds are cut, as Go does. */
export function parsePaxTime(text: string): bigint {
  const match = /^(-?)([0-9]{1,12})(?:\.([0-9]*))?$/.exec(text);
  if (match === null) throw badArchive("a PAX time is malformed");
  const fraction = BigInt((match[3] ?? "").slice(0, 9).padEnd(9, "0"));
  const value = BigInt(match[2] ?? "0") * 1_000_000_000n + fraction;
  return match[1] === "-" ? -value : value;
}

/** Adds the records of one extended header to `into`; a record with an empty value undoes an earlier one. */
export function parsePax(bytes: Buffer, into: PaxRecords): void {
  let at = 0;
  while (at < bytes.length) {
    let length = 0;
    let digit = at;
    for (; digit < bytes.length && bytes[digit] !== 0x20; digit += 1) {
      const value = (bytes[digit] as number) - 0x30;
      if (value < 0 || value > 9 || digit - at > 7) throw badArchive("a PAX record has no length");
      length = length * 10 + value;
    }
    const end = at + length;
    const equals = bytes.indexOf(0x3d, digit + 1);
    if (length < 5 || end > bytes.length || bytes[end - 1] !== 0x0a || equals < 0 || equals >= end) {
      throw badArchive("a PAX record is malformed");
    }
    const key = bytes.toString("utf8", digit + 1, equals);
    setRecord(into, key, bytes.subarray(equals + 1, end - 1));
    at = end;
  }
}

function setRecord(into: PaxRecords, key: string, value: Buffer): void {
  if (key.startsWith(xattrPrefix)) {
    into.xattrs ??= new Map();
    // A copy: the header buffer is reused. An empty value is legal here, unlike for the standard keys.
    into.xattrs.set(key.slice(xattrPrefix.length), Buffer.from(value));
    return;
  }
  const text = value.toString("latin1");
  if (key.startsWith(sparsePrefix)) {
    into.sparse ??= { extents: [] };
    setSparse(into, into.sparse, key.slice(sparsePrefix.length), text);
    return;
  }
  setStandard(into, key, text, value);
}

function noNul(text: string): ByteString {
  if (text.includes("\0")) throw badArchive("a name holds a NUL byte");
  return text as ByteString;
}

function setStandard(into: PaxRecords, key: string, text: string, value: Buffer): void {
  const unset = text === "";
  switch (key) {
    case "path":
      if (unset) delete into.path;
      else into.path = noNul(text);
      break;
    case "linkpath":
      if (unset) delete into.linkPath;
      else into.linkPath = noNul(text);
      break;
    case "size":
      if (unset) delete into.size;
      else into.size = decimal(text);
      break;
    case "uid":
      if (unset) delete into.uid;
      else into.uid = signedDecimal(text);
      break;
    case "gid":
      if (unset) delete into.gid;
      else into.gid = signedDecimal(text);
      break;
    case "mtime":
      if (unset) delete into.mtimeNs;
      else into.mtimeNs = parsePaxTime(text);
      break;
    case "uname":
      into.userName = value.toString("utf8");
      break;
    case "gname":
      into.groupName = value.toString("utf8");
      break;
    default:
  }
}

function setSparse(into: PaxRecords, sparse: PaxSparse, key: string, text: string): void {
  switch (key) {
    case "major":
      sparse.major = decimal(text);
      break;
    case "minor":
      sparse.minor = decimal(text);
      break;
    case "size":
    case "realsize":
      sparse.realSize = decimal(text);
      break;
    case "name":
      into.path = noNul(text);
      break;
    case "offset":
      if (sparse.pendingOffset !== undefined) throw badArchive("a sparse map is malformed");
      sparse.pendingOffset = decimal(text);
      break;
    case "numbytes":
      if (sparse.pendingOffset === undefined) throw badArchive("a sparse map is malformed");
      sparse.extents.push({ offset: sparse.pendingOffset, length: decimal(text) });
      delete sparse.pendingOffset;
      break;
    case "map": {
      const numbers = text === "" ? [] : text.split(",").map(decimal);
      if (numbers.length % 2 !== 0) throw badArchive("a sparse map is malformed");
      sparse.extents = [];
      for (let index = 0; index < numbers.length; index += 2) {
        sparse.extents.push({ offset: numbers[index] ?? 0, length: numbers[index + 1] ?? 0 });
      }
      break;
    }
    default:
  }
}

/** Sum of what a set of records keeps in memory: global headers accumulate, so they are bounded together. */
export function checkGlobalSize(records: PaxRecords): void {
  let bytes = (records.path?.length ?? 0) + (records.linkPath?.length ?? 0);
  for (const [name, value] of records.xattrs ?? []) bytes += name.length + value.length + 64;
  if (bytes > limits.archiveHeaderBytesMax) throw badArchive("global headers are too large");
}

/** Extents must ascend, not overlap, lie in the file and add up to the data that is stored. */
export function checkExtents(
  extents: readonly SparseExtent[],
  realSize: number,
  storedBytes: number,
): SparseExtent[] {
  let at = 0;
  let total = 0;
  for (const { offset, length } of extents) {
    if (offset < at || offset + length > realSize) throw badArchive("a sparse map is out of order");
    at = offset + length;
    total += length;
  }
  if (total !== storedBytes) throw badArchive("a sparse map does not fit its data");
  return extents.filter((extent) => extent.length > 0);
}
