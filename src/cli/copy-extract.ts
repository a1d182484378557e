/** A container's archive onto this machine, for `cp`. */
import { spawnSync } from "node:child_process";
import {
  type BigIntStats,
  closeSync,
  constants,
  fchmodSync,
  ftruncateSync,
  futimesSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  rmSync,
  symlinkSync,
  writeSync,
} from "node:fs";
import { posix } from "node:path";
import type { TarEntry } from "#archive/tar-format.ts";
import type { TarSink } from "#archive/tar-read.ts";
import { type ByteString, bytesOfText, textOfBytes } from "#base/byte-string.ts";
import { ExitError } from "./command.ts";
import { type CopyPlan, renamed } from "./copy-path.ts";
import { fileError } from "./copy-source.ts";

const quoted = (bytes: string): string => JSON.stringify(textOfBytes(bytes));

function bufferOf(bytes: string): Buffer {
  return Buffer.from(bytes, "latin1");
}

/**
 * Unpacks below a directory. A container made the archive: nothing is written, linked or changed through a symbolic link of
 * its own making, no owner is set, and what exists is only replaced by its like. Files are the user's, with the modes and
 * times that they have in the container.
 */
export class HostExtractor implements TarSink, Disposable {
  readonly #root: ByteString;
  readonly #rename: CopyPlan["rename"];
  /** Directories below the root that were seen to be real ones. */
  readonly #real = new Set<string>();
  readonly #times = new Map<string, { readonly mode: number; readonly seconds: number }>();
  #file: { readonly fd: number; readonly entry: TarEntry; readonly path: string } | undefined;

  constructor(plan: CopyPlan) {
    this.#root = bytesOfText(plan.directory);
    this.#rename = plan.rename && { from: bytesOfText(plan.rename.from), to: bytesOfText(plan.rename.to) };
  }

  entry(entry: TarEntry): void {
    const name = renamed(entry.path, this.#rename);
    const inner = posix.normalize(`./${name}`).replace(/\/+$/, "");
    if (inner === ".." || inner.startsWith("../")) {
      throw new ExitError(1, `${quoted(name)} is outside of ${quoted(this.#root)}`);
    }
    if (inner === "." || inner === "") return;
    const path = this.#pathOf(inner);
    this.#checkParents(inner);
    const isDirectory = this.#makeRoom(entry, path);
    try {
      this.#make(entry, path, isDirectory);
    } catch (error) {
      throw this.#named(error, path);
    }
  }

  #pathOf(inner: string): string {
    return this.#root === "/" ? `/${inner}` : `${this.#root}/${inner}`;
  }

  #named(error: unknown, path: string): unknown {
    if (error instanceof ExitError) return error;
    const call = (error as NodeJS.ErrnoException).syscall ?? "open";
    return fileError(call, textOfBytes(path), error);
  }

  /** Makes the missing ones; a link among them would lead out. */
  #checkParents(inner: string): void {
    const names = inner.split("/").slice(0, -1);
    for (let length = 1; length <= names.length; length += 1) {
      const at = names.slice(0, length).join("/");
      if (this.#real.has(at)) continue;
      const path = this.#pathOf(at);
      const stat = lstatSync(bufferOf(path), { throwIfNoEntry: false });
      if (stat === undefined) mkdirSync(bufferOf(path), { mode: 0o755 });
      else if (!stat.isDirectory()) {
        throw new ExitError(1, `mkdir ${textOfBytes(path)}: not a directory`);
      }
      this.#real.add(at);
    }
  }

  /** Docker's `NoOverwriteDirNonDir`. Gives whether the directory is there already. */
  #makeRoom(entry: TarEntry, path: string): boolean {
    const old: BigIntStats | undefined = lstatSync(bufferOf(path), { bigint: true, throwIfNoEntry: false });
    if (old === undefined) return false;
    const isDirectory = entry.type === "directory";
    if (old.isDirectory() !== isDirectory) {
      const [before, after] = isDirectory ? ["non-directory", "directory"] : ["directory", "non-directory"];
      throw new ExitError(
        1,
        `cannot overwrite ${before} ${quoted(path)} with ${after} ${quoted(this.#root)}`,
      );
    }
    if (!isDirectory) rmSync(bufferOf(path));
    return isDirectory;
  }

  #make(entry: TarEntry, path: string, isDirectory: boolean): void {
    const target = bufferOf(path);
    const seconds = Number(entry.mtimeNs / 1_000_000n) / 1000;
    switch (entry.type) {
      case "directory":
        if (!isDirectory) mkdirSync(target, { mode: 0o700 });
        this.#times.set(path, { mode: entry.mode, seconds });
        return;
      case "file":
        this.#file = { fd: openSync(target, "wx", 0o600), entry, path };
        return;
      case "symlink":
        this.#checkLink("symlink", path, posix.join(posix.dirname(path), entry.linkPath), entry.linkPath);
        symlinkSync(bufferOf(entry.linkPath), target);
        lutimesSync(target, seconds, seconds);
        return;
      case "link":
        this.#link(entry, path);
        return;
      default:
        makeSpecial(entry, path);
    }
  }

  #checkLink(kind: "symlink" | "hardlink", path: string, target: string, link: string): void {
    const root = this.#root;
    if (root === "/" || target === root || target.startsWith(`${root}/`)) return;
    throw new ExitError(1, `invalid ${kind} ${quoted(path)} -> ${quoted(link)}`);
  }

  #link(entry: TarEntry, path: string): void {
    const link = renamed(entry.linkPath, this.#rename);
    const target = posix.join(this.#root, link);
    this.#checkLink("hardlink", target, target, link);
    this.#checkParents(target.slice(this.#root === "/" ? 1 : this.#root.length + 1));
    linkSync(bufferOf(target), bufferOf(path));
  }

  data(chunk: Uint8Array, offset: number): void {
    const file = this.#file;
    if (file === undefined) return;
    try {
      for (let at = 0; at < chunk.length; )
        at += writeSync(file.fd, chunk, at, chunk.length - at, offset + at);
    } catch (error) {
      throw this.#named(error, file.path);
    }
  }

  end(): void {
    const file = this.#file;
    if (file === undefined) return;
    const { fd, entry, path } = file;
    try {
      if (entry.sparse !== undefined) ftruncateSync(fd, entry.sizeBytes);
      const seconds = Number(entry.mtimeNs / 1_000_000n) / 1000;
      fchmodSync(fd, entry.mode);
      futimesSync(fd, seconds, seconds);
    } catch (error) {
      throw this.#named(error, path);
    }
    this.#file = undefined;
    closeSync(fd);
  }

  /** Modes and times of directories, which what was made in them would have changed; innermost first. */
  complete(): void {
    for (const [path, { mode, seconds }] of [...this.#times].reverse()) {
      try {
        const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
        const fd = openSync(bufferOf(path), flags);
        try {
          fchmodSync(fd, mode);
          futimesSync(fd, seconds, seconds);
        } finally {
          closeSync(fd);
        }
      } catch (error) {
        throw this.#named(error, path);
      }
    }
  }

  [Symbol.dispose](): void {
    const file = this.#file;
    this.#file = undefined;
    if (file === undefined) return;
    closeSync(file.fd);
    rmSync(bufferOf(file.path), { force: true });
  }
}

/** FIFOs and devices: Node cannot make them. */
function makeSpecial(entry: TarEntry, path: string): void {
  const kind = entry.type === "fifo" ? "p" : entry.type === "char" ? "c" : "b";
  const numbers = kind === "p" ? [] : [String(entry.deviceMajor), String(entry.deviceMinor)];
  const mode = (entry.mode & 0o777).toString(8);
  const made = spawnSync("mknod", ["-m", mode, "--", textOfBytes(path), kind, ...numbers], {
    stdio: "ignore",
  });
  if (made.status !== 0) throw new ExitError(1, `mknod ${textOfBytes(path)}: operation not permitted`);
}
