/** A file or directory of this machine as a tar stream, for `cp`. */
import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  realpathSync,
} from "node:fs";
import { posix } from "node:path";
import { type EntryType, paddingOf } from "#archive/tar-format.ts";
import { encodeHeader, type TarHeader } from "#archive/tar-write.ts";
import { type ByteString, bytesOfText } from "#base/byte-string.ts";
import { describeErrno, errnoOf, messageOf } from "#base/errors.ts";
import { ExitError } from "./command.ts";
import { type CopyEnd, type CopyPlan, rebased, renamed, splitEntry } from "./copy-path.ts";

const zeros = Buffer.alloc(1024 * 1024);
const second = 1_000_000_000n;
const empty = "" as ByteString;

/** As Go words it. */
export function fileError(call: string, path: string, error: unknown): ExitError {
  const errno = errnoOf(error);
  return new ExitError(
    1,
    `${call} ${path}: ${errno === undefined ? messageOf(error) : describeErrno(errno)}`,
  );
}

/** The source of a copy. Links in front of the last name are always followed, the last one with `followLink`. */
export function localSource(path: string, followLink: boolean): CopyEnd {
  let found: { path: string; rebaseName: string };
  try {
    if (followLink) found = rebased(path, realpathSync(path));
    else {
      const slash = path.lastIndexOf("/");
      found = rebasedParent(path, realpathSync(path.slice(0, slash + 1)), path.slice(slash + 1));
    }
    const isDirectory = lstatSync(found.path).isDirectory();
    return { ...found, exists: true, isDirectory };
  } catch (error) {
    // Go names no path here.
    if (errnoOf(error) === "ENOTDIR") throw new ExitError(1, "not a directory");
    throw fileError("lstat", followLink ? missingTarget(firstMissing(path)) : firstMissing(path), error);
  }
}

/** The name of a path at which its resolution ends, which Go reports. */
function firstMissing(path: string): string {
  for (let at = path.indexOf("/", 1); at > 0; at = path.indexOf("/", at + 1)) {
    const front = path.slice(0, at);
    if (lstatSync(front, { throwIfNoEntry: false }) === undefined) return front;
  }
  return path;
}

/** What a dangling link leads to. */
function missingTarget(path: string): string {
  let at = path;
  for (let links = 0; links < 40 && lstatSync(at, { throwIfNoEntry: false })?.isSymbolicLink(); links += 1) {
    at = posix.resolve(posix.dirname(at), readlinkSync(at));
  }
  return at;
}

function rebasedParent(path: string, parent: string, name: string): { path: string; rebaseName: string } {
  const resolved = `${parent === "/" ? "" : parent}/${name}`;
  const other = path.endsWith("/") && posix.basename(path) !== posix.basename(resolved);
  return { path: resolved, rebaseName: other ? posix.basename(path) : "" };
}

interface Found {
  readonly path: Buffer;
  readonly name: ByteString;
  readonly stat: BigIntStats;
}

/** Chunks of an archive of `source`, its names as a plan wants them. What cannot be read is reported and left out. */
export async function* tarOf(
  source: CopyEnd,
  plan: CopyPlan,
  report: (line: string) => void,
): AsyncGenerator<Buffer> {
  const { directory, name } = splitEntry(source.path);
  const top = source.rebaseName === "" ? name : source.rebaseName;
  const rename = plan.rename && { from: bytesOfText(plan.rename.from), to: bytesOfText(plan.rename.to) };
  const linked = new Map<string, ByteString>();
  const start = Buffer.from(directory === "/" ? `/${name}` : `${directory}/${name}`);
  for (const found of walk(start, bytesOfText(top), report)) {
    const as = renamed(found.name, rename) as ByteString;
    const header = headerOf(found, as, linked);
    if (header === undefined) continue;
    if (header.type === "file") yield* fileChunks(found, header, report);
    else yield encodeHeader(header);
  }
  yield zeros.subarray(0, 1024);
}

/** Names in byte order, each directory before its content. */
function* walk(path: Buffer, name: ByteString, report: (line: string) => void): Generator<Found> {
  let stat: BigIntStats;
  let children: Buffer[] = [];
  try {
    stat = lstatSync(path, { bigint: true });
    if (stat.isDirectory()) children = readdirSync(path, { encoding: "buffer" });
  } catch (error) {
    report(fileError("Can't add file to the archive: open", path.toString(), error).message);
    return;
  }
  yield { path, name, stat };
  const prefix = name === "/" ? "/" : `${name}/`;
  for (const child of children.sort(Buffer.compare)) {
    const inner = `${prefix}${child.toString("latin1")}` as ByteString;
    yield* walk(Buffer.concat([path, Buffer.from("/"), child]), inner, report);
  }
}

function typeOf(stat: BigIntStats): EntryType | undefined {
  if (stat.isFile()) return "file";
  if (stat.isDirectory()) return "directory";
  if (stat.isSymbolicLink()) return "symlink";
  if (stat.isFIFO()) return "fifo";
  if (stat.isCharacterDevice()) return "char";
  if (stat.isBlockDevice()) return "block";
  return undefined;
}

function headerOf(
  { path, stat }: Found,
  as: ByteString,
  linked: Map<string, ByteString>,
): TarHeader | undefined {
  const type = typeOf(stat);
  if (type === undefined) return undefined;
  const isDevice = type === "char" || type === "block";
  const header: TarHeader = {
    path: as,
    type,
    mode: Number(stat.mode) & 0o7777,
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    sizeBytes: 0,
    // Whole seconds, as in Docker's archives.
    mtimeNs: stat.mtimeNs - (stat.mtimeNs % second),
    linkPath: type === "symlink" ? (readlinkSync(path, "latin1") as ByteString) : empty,
    deviceMajor: isDevice ? Number(((stat.rdev >> 8n) & 0xfffn) | ((stat.rdev >> 32n) & ~0xfffn)) : 0,
    deviceMinor: isDevice ? Number((stat.rdev & 0xffn) | ((stat.rdev >> 12n) & ~0xffn)) : 0,
  };
  if (type === "directory" || stat.nlink < 2n) return header;
  const identity = `${stat.dev}:${stat.ino}`;
  const first = linked.get(identity);
  if (first !== undefined)
    return { ...header, type: "link", linkPath: first, deviceMajor: 0, deviceMinor: 0 };
  linked.set(identity, as);
  return header;
}

/** As many bytes as the header says: a file that grows is cut, one that shrinks is filled up. */
function* fileChunks({ path }: Found, header: TarHeader, report: (line: string) => void): Generator<Buffer> {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  } catch (error) {
    report(fileError("Can't add file to the archive: open", path.toString(), error).message);
    return;
  }
  try {
    const sizeBytes = fstatSync(fd).size;
    yield encodeHeader({ ...header, sizeBytes });
    let left = sizeBytes;
    while (left > 0) {
      const buffer = Buffer.allocUnsafe(Math.min(left, 256 * 1024));
      const length = readSync(fd, buffer, 0, buffer.length, null);
      if (length === 0) break;
      left -= length;
      yield buffer.subarray(0, length);
    }
    for (; left > 0; left -= Math.min(left, zeros.length))
      yield zeros.subarray(0, Math.min(left, zeros.length));
    const padding = paddingOf(sizeBytes);
    if (padding > 0) yield zeros.subarray(0, padding);
  } finally {
    closeSync(fd);
  }
}
