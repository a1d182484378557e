import { createHash, type Hash, hash } from "node:crypto";
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
import { type ContextNode, ContextTree, holdContext, type Piece, plainNode } from "./context-tree.ts";
import { abortCheck } from "./layer-job.ts";
import { impliedDirectory, PathMap, readSmallFile } from "./source-tree.ts";

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

/** The file whose data comes. */
interface CurrentFile {
  readonly path: ByteString;
  readonly entry: TarEntry;
  readonly pieces: Piece[];
  /** Bytes hashed so far. */
  filled: number;
  hash: Hash | undefined;
  /** Of a file that came in one piece. */
  contentHash: string;
}

class ContextSink implements TarSink {
  readonly nodes = new PathMap<ContextNode>();
  readonly #data: ContextData;
  readonly #checkAborted: () => void;
  #sizeBytes = 0;
  #current: CurrentFile | undefined;

  constructor(data: ContextData, checkAborted: () => void) {
    this.#data = data;
    this.#checkAborted = checkAborted;
  }

  entry(entry: TarEntry): void {
    const path = cleanPath(entry.path);
    this.#current = undefined;
    if (path === "") return;
    this.#makeParents(path);
    const old = this.nodes.get(path);
    if (old !== undefined && !(old.type === "directory" && entry.type === "directory"))
      this.nodes.remove(path);
    if (this.nodes.size >= entriesMax) {
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
      this.#current = { path, entry, pieces: [], filled: 0, hash: undefined, contentHash: "" };
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
    this.nodes.set(path, {
      ...plainNode,
      type: entry.type,
      mode: entry.mode,
      sizeBytes: entry.sizeBytes,
      mtimeNs: entry.mtimeNs,
      linkPath: entry.type === "symlink" ? entry.linkPath : ("" as ByteString),
      pieces,
      ...(contentHash === "" ? {} : { contentHash }),
      ...(ownFile === undefined ? {} : { ownFile }),
      ...(xattrs.length === 0 ? {} : { xattrs: new Map(xattrs) }),
    });
  }

  /** A name that stands where a directory is needed goes, as when the archive is unpacked. */
  #makeParents(path: ByteString): void {
    const parent = parentOf(path);
    if (parent === "" || this.nodes.get(parent)?.type === "directory") return;
    this.#makeParents(parent);
    if (this.nodes.get(parent) !== undefined) this.nodes.remove(parent);
    this.nodes.set(parent, { ...impliedDirectory, pieces: [] });
  }

  #link(path: ByteString, entry: TarEntry): void {
    const target = this.nodes.get(cleanPath(entry.linkPath));
    if (target === undefined || target.type === "directory") {
      throw new EngineError("invalid", `archive link to a missing file: ${JSON.stringify(entry.linkPath)}`, {
        code: "bad-archive",
      });
    }
    this.nodes.set(path, target);
  }

  data(chunk: Uint8Array, offset: number): void {
    const current = this.#current;
    if (current === undefined) return;
    if (current.entry.sizeBytes === chunk.length) current.contentHash = hash("sha256", chunk, "hex");
    else this.#hashPart(current, chunk, offset);
    const position = this.#data.write(chunk, offset);
    const last = current.pieces.at(-1);
    if (last !== undefined && last[0] + last[2] === offset && last[1] + last[2] === position) {
      current.pieces[current.pieces.length - 1] = [last[0], last[1], last[2] + chunk.length];
    } else current.pieces.push([offset, position, chunk.length]);
  }

  #hashPart(current: CurrentFile, chunk: Uint8Array, offset: number): void {
    current.hash ??= createHash("sha256");
    if (offset > current.filled) hashZeros(current.hash, offset - current.filled, this.#checkAborted);
    current.hash.update(chunk);
    current.filled = offset + chunk.length;
  }

  end(): void {
    const current = this.#current;
    if (current === undefined) return;
    this.#current = undefined;
    const { path, entry, pieces } = current;
    this.#set(path, entry, pieces, this.#contentHash(current), this.#data.end());
  }

  #contentHash(current: CurrentFile): string {
    if (current.contentHash !== "") return current.contentHash;
    const whole = current.hash ?? createHash("sha256");
    const { sizeBytes } = current.entry;
    if (sizeBytes > current.filled) hashZeros(whole, sizeBytes - current.filled, this.#checkAborted);
    return whole.digest("hex");
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
  return finishIndex(job, sink.nodes);
}

function finishIndex(job: ContextJob, nodes: PathMap<ContextNode>): ContextOutcome {
  using tree = new ContextTree(nodes, job.dataPath);
  const dockerfile = textOf(tree, job.dockerfile);
  const ignore = textOf(tree, `${job.dockerfile}.dockerignore`) ?? textOf(tree, ".dockerignore");
  if (ignore !== undefined) {
    const rules = new IgnoreRules(readIgnoreFile(ignore));
    if (job.appliesIgnore === true) dropAll(nodes, rules);
    else dropOwn(nodes, rules, job.dockerfile);
  }
  tree.save(job.indexPath);
  holdContext(job.indexPath, tree);
  return { entries: nodes.size, dockerfile };
}

/** A client leaves ignored files out, but must send these: they are not to be seen by COPY when they are ignored. */
function dropOwn(nodes: PathMap<ContextNode>, rules: IgnoreRules, dockerfile: string): void {
  const own = [".dockerignore", cleanSlashPath(dockerfile), `${cleanSlashPath(dockerfile)}.dockerignore`];
  for (const path of own) if (rules.excludes(path)) nodes.remove(bytesOfText(path));
}

/** Everything that is ignored; a directory stays where something below it was taken back in. */
function dropAll(nodes: PathMap<ContextNode>, rules: IgnoreRules): void {
  const hidden = [...nodes.entries()].filter(([path]) => rules.excludes(textOfBytes(path as ByteString)));
  hidden.sort(([left], [right]) => right.length - left.length);
  for (const [path, { type }] of hidden) {
    if (type !== "directory" || nodes.list(path).length === 0) nodes.remove(path as ByteString);
  }
}

function textOf(tree: ContextTree, path: string): string | undefined {
  try {
    return readSmallFile(tree, bytesOfText(path), textBytesMax)?.toString("utf8");
  } catch (cause) {
    throw new EngineError("invalid", `${path} cannot be read`, { code: "dockerfile", cause });
  }
}
