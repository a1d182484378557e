import { createHash, type Hash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { DetectingDecompressor } from "#archive/compression.ts";
import { cleanSlashPath, IgnoreRules, readIgnoreFile } from "#archive/ignore.ts";
import type { TarEntry } from "#archive/tar-format.ts";
import { TarReader, type TarSink } from "#archive/tar-read.ts";
import { type ByteString, bytesOfText, textOfBytes } from "#base/byte-string.ts";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { RingReader } from "#content/byte-ring.ts";
import { openArchive } from "./archive-format.ts";
import { cleanPath, parentOf } from "./archive-path.ts";
import { ContextData } from "./context-data.ts";
import { type ContextEntry, ContextTree, type Piece } from "./context-tree.ts";
import { abortCheck } from "./layer-job.ts";
import { PathMap, readSmallFile } from "./source-tree.ts";

/** Takes in a build context while it arrives. */
export interface ContextJob {
  readonly kind: "context";
  /** A ring (byte-ring.ts) through which the archive comes. */
  readonly ring: SharedArrayBuffer;
  /** Made by the job: the data of all small files. Each large one has a file of its own beside it, `<dataPath>.<n>`. */
  readonly dataPath: string;
  readonly indexPath: string;
  /** The Dockerfile's name in the context; its text is part of the result. */
  readonly dockerfile: string;
  /** No client has left out what the ignore file names: it is done here. */
  readonly appliesIgnore?: boolean;
}

export interface ContextOutcome {
  readonly entries: number;
  /** Undefined where the context has no such file. */
  readonly dockerfile: string | undefined;
}

/** A Dockerfile or ignore file; Docker's scanner takes no longer lines, but any number of them. */
const textBytesMax = 4 * 1024 * 1024;
/** A context of more names is taken for an attack: an index line costs some 300 bytes. */
const entriesMax = 1_000_000;
const xattrBytesMax = 64 * 1024;
const chunkBytes = 1024 * 1024;

class ContextSink implements TarSink {
  readonly entries = new PathMap<ContextEntry>();
  readonly #data: ContextData;
  readonly #checkAborted: () => void;
  #sizeBytes = 0;
  #current:
    | { readonly path: ByteString; readonly entry: TarEntry; readonly pieces: Piece[]; readonly hash: Hash }
    | undefined;
  #filled = 0;

  constructor(data: ContextData, checkAborted: () => void) {
    this.#data = data;
    this.#checkAborted = checkAborted;
  }

  entry(entry: TarEntry): void {
    const path = cleanPath(entry.path);
    this.#current = undefined;
    if (path === "") return;
    this.#makeParents(path);
    const old = this.entries.get(path);
    if (old !== undefined && !(old.type === "directory" && entry.type === "directory"))
      this.entries.remove(path);
    if (this.entries.size >= entriesMax) {
      throw new EngineError("invalid", "the build context has too many files", { code: "archive-limit" });
    }
    if (entry.type === "link") {
      this.#link(path, entry);
      return;
    }
    if (entry.type === "file") {
      // Holes count: every byte of them is hashed.
      this.#sizeBytes += entry.sizeBytes;
      if (this.#sizeBytes > limits.layerBytesMax)
        throw new EngineError("invalid", "the build context is too large", { code: "archive-limit" });
      this.#data.begin(entry);
      this.#current = { path, entry, pieces: [], hash: createHash("sha256") };
      this.#filled = 0;
      return;
    }
    this.#set(path, entry, [], "");
  }

  #set(
    path: ByteString,
    entry: TarEntry,
    pieces: readonly Piece[],
    contentHash: string,
    ownFile?: string,
  ): void {
    const xattrs = [...(entry.xattrs ?? [])].filter(([, value]) => value.length <= xattrBytesMax);
    this.entries.set(path, {
      path,
      type: entry.type,
      mode: entry.mode,
      sizeBytes: entry.sizeBytes,
      mtimeNs: String(entry.mtimeNs),
      linkPath: entry.type === "symlink" ? entry.linkPath : "",
      pieces,
      contentHash,
      ...(ownFile === undefined ? {} : { ownFile }),
      ...(xattrs.length === 0
        ? {}
        : { xattrs: xattrs.map(([name, value]) => [name, value.toString("base64")] as const) }),
    });
  }

  /** A name that stands where a directory is needed goes, as when the archive is unpacked. */
  #makeParents(path: ByteString): void {
    const parent = parentOf(path);
    if (parent === "" || this.entries.get(parent)?.type === "directory") return;
    this.#makeParents(parent);
    if (this.entries.get(parent) !== undefined) this.entries.remove(parent);
    this.entries.set(parent, {
      path: parent,
      type: "directory",
      mode: 0o755,
      sizeBytes: 0,
      mtimeNs: "0",
      linkPath: "",
      pieces: [],
      contentHash: "",
    });
  }

  #link(path: ByteString, entry: TarEntry): void {
    const target = this.entries.get(cleanPath(entry.linkPath));
    if (target === undefined || target.type === "directory") {
      throw new EngineError("invalid", `archive link to a missing file: ${JSON.stringify(entry.linkPath)}`, {
        code: "bad-archive",
      });
    }
    this.entries.set(path, { ...target, path });
  }

  data(chunk: Uint8Array, offset: number): void {
    const current = this.#current;
    if (current === undefined) return;
    if (offset > this.#filled) hashZeros(current.hash, offset - this.#filled, this.#checkAborted);
    current.hash.update(chunk);
    this.#filled = offset + chunk.length;
    const position = this.#data.write(chunk, offset);
    const last = current.pieces.at(-1);
    if (last !== undefined && last[0] + last[2] === offset && last[1] + last[2] === position) {
      current.pieces[current.pieces.length - 1] = [last[0], last[1], last[2] + chunk.length];
    } else current.pieces.push([offset, position, chunk.length]);
  }

  end(): void {
    const current = this.#current;
    if (current === undefined) return;
    this.#current = undefined;
    const { path, entry, pieces, hash } = current;
    if (entry.sizeBytes > this.#filled) hashZeros(hash, entry.sizeBytes - this.#filled, this.#checkAborted);
    this.#set(path, entry, pieces, hash.digest("hex"), this.#data.end());
  }
}

const zeros = Buffer.alloc(1024 * 1024);

/** A hole may be as large as it likes and cost its sender nothing: an abort is seen between its pieces. */
function hashZeros(hash: Hash, length: number, checkAborted: () => void): void {
  for (let left = length; left > 0; left -= zeros.length) {
    checkAborted();
    hash.update(zeros.subarray(0, Math.min(left, zeros.length)));
  }
}

/** Indexes a context: what its files hold is written out while it comes, once. */
export function runContext(job: ContextJob, control: Int32Array): ContextOutcome {
  using resources = new DisposableStack();
  const checkAborted = abortCheck(control);
  const source = new RingReader(job.ring, checkAborted);
  const data = resources.use(new ContextData(job.dataPath));
  const sink = new ContextSink(data, checkAborted);
  const tar = new TarReader(sink, entriesMax);
  const archive = resources.use(
    new DetectingDecompressor((head) => openArchive(head, (plain) => tar.push(plain))),
  );
  for (let read = source.read(chunkBytes); read !== undefined; read = source.read(chunkBytes)) {
    if (read === "failed") throw new EngineError("cancelled", "download failed", { code: "download-failed" });
    archive.push(read);
  }
  archive.finish();
  tar.finish();
  data.finish();
  return finishIndex(job, sink.entries, job.dataPath);
}

function finishIndex(job: ContextJob, entries: PathMap<ContextEntry>, dataPath: string): ContextOutcome {
  const write = (): void => {
    const lines = [...entries.entries()].map(([, entry]) => JSON.stringify(entry));
    writeFileSync(job.indexPath, [dataPath, ...lines].join("\n"), { mode: 0o600 });
  };
  write();
  using tree = ContextTree.load(job.indexPath);
  const dockerfile = textOf(tree, job.dockerfile);
  const ignore = textOf(tree, `${job.dockerfile}.dockerignore`) ?? textOf(tree, ".dockerignore");
  if (ignore !== undefined) {
    const rules = new IgnoreRules(readIgnoreFile(ignore));
    const isChanged =
      job.appliesIgnore === true ? dropAll(entries, rules) : dropOwn(entries, rules, job.dockerfile);
    if (isChanged) write();
  }
  return { entries: entries.size, dockerfile };
}

/** A client leaves ignored files out, but must send these: they are not to be seen by COPY when they are ignored. */
function dropOwn(entries: PathMap<ContextEntry>, rules: IgnoreRules, dockerfile: string): boolean {
  const own = [".dockerignore", cleanSlashPath(dockerfile), `${cleanSlashPath(dockerfile)}.dockerignore`];
  const hidden = own.filter((path) => rules.excludes(path) && entries.get(bytesOfText(path)) !== undefined);
  for (const path of hidden) entries.remove(bytesOfText(path));
  return hidden.length > 0;
}

/** Everything that is ignored; a directory stays where something below it was taken back in. */
function dropAll(entries: PathMap<ContextEntry>, rules: IgnoreRules): boolean {
  const before = entries.size;
  const hidden = [...entries.entries()].filter(([path]) => rules.excludes(textOfBytes(path as ByteString)));
  hidden.sort(([left], [right]) => right.length - left.length);
  for (const [path, { type }] of hidden) {
    if (type !== "directory" || entries.list(path).length === 0) entries.remove(path as ByteString);
  }
  return entries.size < before;
}

function textOf(tree: ContextTree, path: string): string | undefined {
  try {
    return readSmallFile(tree, bytesOfText(path), textBytesMax)?.toString("utf8");
  } catch (cause) {
    throw new EngineError("invalid", `${path} cannot be read`, { code: "dockerfile", cause });
  }
}
