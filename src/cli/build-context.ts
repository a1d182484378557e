/** The files that `build` sends: a directory as a tar stream, without what its ignore file leaves out. */
import {
  type BigIntStats,
  closeSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  realpathSync,
  statSync,
} from "node:fs";
import { join, relative, resolve } from "node:path";
import { cleanSlashPath, IgnoreRules, readIgnoreFile } from "#archive/ignore.ts";
import { encodeHeader, TarWriter } from "#archive/tar-write.ts";
import { type ByteString, bytesOfText, textOfBytes } from "#base/byte-string.ts";
import { describeErrno, errnoOf } from "#base/errors.ts";
import { ExitError } from "./command.ts";

export interface LocalContext {
  readonly root: string;
  /** Name of the Dockerfile in the archive. */
  readonly dockerfile: string;
  /** Its text, where it lies outside of the context (or came by stdin). */
  readonly dockerfileText: string | undefined;
  readonly rules: IgnoreRules;
}

function fail(message: string): ExitError {
  return new ExitError(1, `unable to prepare context: ${message}`);
}

/** Checks the directory and finds the Dockerfile. Throws Docker's errors. */
export function localContext(path: string, file: string, stdinDockerfile: string | undefined): LocalContext {
  const status = statSync(path, { throwIfNoEntry: false });
  if (status === undefined) throw fail(`path ${JSON.stringify(path)} not found`);
  const root = realpathSync(path);
  if (!status.isDirectory()) throw fail(`context must be a directory: ${root}`);
  if (stdinDockerfile !== undefined) {
    return {
      root,
      ...outside(),
      dockerfileText: stdinDockerfile,
      rules: rulesOf(root, [join(root, ".dockerignore")], []),
    };
  }
  const wanted = file === "" ? join(root, "Dockerfile") : resolve(file);
  const real = realDockerfile(wanted, root, file === "");
  const inside = relative(root, real);
  const ignores = [`${wanted}.dockerignore`, join(root, ".dockerignore")];
  if (inside === "" || inside.startsWith("..")) {
    return { root, ...outside(), dockerfileText: readText(real), rules: rulesOf(root, ignores, []) };
  }
  return {
    root,
    dockerfile: inside,
    dockerfileText: undefined,
    rules: rulesOf(root, ignores, [inside, ".dockerignore", `${inside}.dockerignore`]),
  };
}

/** The name that Docker's client gives a Dockerfile from elsewhere: one that no file of the context has. */
function outside(): { dockerfile: string } {
  return { dockerfile: `.dockerfile.${crypto.randomUUID().replaceAll("-", "").slice(0, 20)}` };
}

function realDockerfile(path: string, root: string, isDefault: boolean): string {
  for (const candidate of isDefault ? [path, join(root, "dockerfile")] : [path]) {
    try {
      return realpathSync(candidate);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT")
        throw fail(`unable to evaluate symlinks in Dockerfile path: ${describeErrno(errnoOf(error) ?? "")}`);
    }
  }
  throw fail(`unable to evaluate symlinks in Dockerfile path: lstat ${path}: no such file or directory`);
}

function rulesOf(_root: string, files: readonly string[], always: readonly string[]): IgnoreRules {
  for (const file of files) {
    const text = statSync(file, { throwIfNoEntry: false }) === undefined ? undefined : readText(file);
    if (text === undefined) continue;
    // The daemon needs these whatever the file says; it hides them from COPY itself.
    return new IgnoreRules([
      ...readIgnoreFile(text),
      ...always.map((name) => `!${name.replace(/[*?[\\]/g, "\\$&")}`),
    ]);
  }
  return new IgnoreRules([]);
}

const textBytesMax = 4 * 1024 * 1024;

function readText(path: string): string {
  const fd = openSync(path, "r");
  try {
    const buffer = Buffer.alloc(textBytesMax + 1);
    let filled = 0;
    for (;;) {
      const size = readSync(fd, buffer, filled, buffer.length - filled, null);
      filled += size;
      if (size === 0 || filled > textBytesMax) break;
    }
    if (filled > textBytesMax) throw fail(`${path} is too large`);
    return buffer.toString("utf8", 0, filled);
  } finally {
    closeSync(fd);
  }
}

const chunkBytes = 256 * 1024;

/** The archive, in chunks. Owners are root's, as Docker's client sends them. */
export async function* contextArchive(context: LocalContext): AsyncGenerator<Buffer> {
  if (context.dockerfileText !== undefined) yield* textFile(context.dockerfile, context.dockerfileText);
  yield* directory(context, "" as ByteString);
  yield Buffer.alloc(1024);
}

function* directory(context: LocalContext, inner: ByteString): Generator<Buffer> {
  const path = Buffer.from(join(bytesOfText(context.root), inner), "latin1");
  const names = readdirSync(path, { encoding: "latin1" }).sort() as ByteString[];
  for (const name of names) {
    const child = (inner === "" ? name : `${inner}/${name}`) as ByteString;
    const status = lstatSync(Buffer.from(join(bytesOfText(context.root), child), "latin1"), {
      bigint: true,
      throwIfNoEntry: false,
    });
    if (status === undefined) continue;
    const text = textOfBytes(child);
    const excluded = !context.rules.isEmpty && context.rules.excludes(text);
    if (!excluded) yield* one(context, child, status);
    // Something below may be taken back in.
    if (status.isDirectory() && !(excluded && context.rules.excludesAllBelow(text)))
      yield* directory(context, child);
  }
}

function* one(context: LocalContext, path: ByteString, status: BigIntStats): Generator<Buffer> {
  const full = Buffer.from(join(bytesOfText(context.root), path), "latin1");
  const header = {
    path,
    mode: Number(status.mode) & 0o7777,
    uid: 0,
    gid: 0,
    sizeBytes: 0,
    // Whole seconds, as Docker's client sends them: parts of one would need a second header each.
    mtimeNs: status.mtimeNs - (status.mtimeNs % 1_000_000_000n),
    linkPath: "" as ByteString,
    deviceMajor: 0,
    deviceMinor: 0,
  };
  if (status.isDirectory()) yield encodeHeader({ ...header, type: "directory" });
  else if (status.isSymbolicLink()) {
    const linkPath = readlinkSync(full, { encoding: "latin1" }) as ByteString;
    yield encodeHeader({ ...header, type: "symlink", linkPath });
  } else if (status.isFile()) yield* file(full, { ...header, type: "file", sizeBytes: Number(status.size) });
  else if (status.isFIFO()) yield encodeHeader({ ...header, type: "fifo" });
}

function* file(path: Buffer, header: Parameters<typeof encodeHeader>[0]): Generator<Buffer> {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    throw new ExitError(
      1,
      `error checking context: can't stat '${textOfBytes(path.toString("latin1"))}': ${describeErrno(errnoOf(error) ?? "")}`,
    );
  }
  try {
    const pieces: Buffer[] = [];
    const tar = new TarWriter((chunk) => pieces.push(Buffer.from(chunk)));
    tar.entry(header);
    const buffer = Buffer.allocUnsafe(chunkBytes);
    while (tar.missing > 0) {
      // A file that shrinks is filled up with zeros, one that grows is cut: the length was told already.
      const size = readSync(fd, buffer, 0, Math.min(chunkBytes, tar.missing), null);
      if (size === 0) buffer.fill(0);
      tar.data(buffer.subarray(0, size === 0 ? Math.min(chunkBytes, tar.missing) : size));
      yield Buffer.concat(pieces.splice(0));
    }
    if (pieces.length > 0) yield Buffer.concat(pieces);
  } finally {
    closeSync(fd);
  }
}

function* textFile(name: string, text: string): Generator<Buffer> {
  const pieces: Buffer[] = [];
  const tar = new TarWriter((chunk) => pieces.push(Buffer.from(chunk)));
  const bytes = Buffer.from(text);
  const path = bytesOfText(cleanSlashPath(name));
  tar.entry({
    path,
    type: "file",
    mode: 0o600,
    uid: 0,
    gid: 0,
    sizeBytes: bytes.length,
    mtimeNs: 0n,
    linkPath: "" as ByteString,
    deviceMajor: 0,
    deviceMinor: 0,
  });
  tar.data(bytes);
  yield Buffer.concat(pieces);
}

/** Whether the first bytes are those of an archive; else it is a Dockerfile that came by stdin. */
export function isArchive(head: Buffer): boolean {
  const magics = [
    [0x1f, 0x8b],
    [0x42, 0x5a, 0x68],
    [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00],
    [0x28, 0xb5, 0x2f, 0xfd],
  ];
  if (magics.some((magic) => magic.every((byte, index) => head[index] === byte))) return true;
  return head.length >= 512 && head.toString("latin1", 257, 262) === "ustar";
}

/** The context of a Dockerfile that comes alone. */
export async function* loneDockerfile(text: string): AsyncGenerator<Buffer> {
  yield* textFile("Dockerfile", text);
  yield Buffer.alloc(1024);
}
