import {
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import type { TarEntry } from "#archive/tar-format.ts";
import { TarReader, type TarSink } from "#archive/tar-read.ts";
import type { ByteString } from "#base/byte-string.ts";
import { textOfBytes } from "#base/byte-string.ts";
import { LayerApplier } from "#snapshot/layer-apply.ts";
import { LayerStack } from "#snapshot/layer-stack.ts";
import { removeTreeAt } from "#snapshot/remove-tree.ts";
import { openRoot } from "#sys/beneath.ts";
import { closeFd } from "#sys/files.ts";
import { setXattrAt } from "#sys/xattr.ts";
import { fingerprint } from "./layer-fingerprint.ts";

/** A root that an archive may fill, and beside it a canary tree that nothing may touch. */
export class Scene implements Disposable {
  readonly base = mkdtempSync(join(tmpdir(), "skiff-hostile-"));
  /** Two levels below the base, so that `../../canary` leads out. */
  readonly root = join(this.base, "jail", "root");
  readonly canary = join(this.base, "canary");
  readonly #before: string[];

  constructor() {
    mkdirSync(this.root, { recursive: true });
    mkdirSync(join(this.canary, "sub"), { recursive: true });
    writeFileSync(join(this.canary, "secret"), "untouched", { mode: 0o600 });
    writeFileSync(join(this.canary, "sub/deep"), "untouched", { mode: 0o640 });
    symlinkSync("secret", join(this.canary, "link"));
    this.#before = this.#look();
  }

  /** Hash, mode, owner, inode, times and attributes of the canary, and the names around the root. */
  #look(): string[] {
    const around = [...readdirSync(this.base), ...readdirSync(join(this.base, "jail"))];
    return [...around, ...fingerprint(this.canary, { inodes: true })];
  }

  /** What an attack changed outside the root: empty when it failed. */
  damage(): string[] {
    const now = this.#look();
    return [
      ...now.filter((line) => !this.#before.includes(line)),
      ...this.#before.filter((line) => !now.includes(line)).map((line) => `gone: ${line}`),
    ];
  }

  [Symbol.dispose](): void {
    const fd = openRoot(dirname(this.base));
    removeTreeAt(fd, basename(this.base) as ByteString);
    closeFd(fd);
  }
}

/** `steps`: parts of one archive, with something done between them (a race, made certain). */
export interface Archive {
  readonly parts: readonly Buffer[];
  readonly between?: (scene: Scene) => void;
}

function feed(sink: TarSink, archive: Archive, scene: Scene): void {
  const reader = new TarReader(sink);
  for (const [index, part] of archive.parts.entries()) {
    if (index > 0) archive.between?.(scene);
    reader.push(part);
  }
  reader.finish();
}

/** Our extractor, over no layers below; gives the error's code or undefined. */
export function applyOurs(scene: Scene, archive: Archive): string | undefined {
  const rootFd = openRoot(scene.root);
  const below = new LayerStack([]);
  const applier = new LayerApplier(rootFd, below);
  try {
    feed(applier, archive, scene);
    applier.complete();
    return undefined;
  } catch (error) {
    if ((error as Error).name !== "EngineError" && (error as Error).name !== "SyscallError") throw error;
    return (error as { code: string }).code;
  } finally {
    applier[Symbol.dispose]();
    below[Symbol.dispose]();
    closeFd(rootFd);
  }
}

/**
 * Deliberately naive extractors, in the manner of those that were broken: `none` joins paths and hopes; `cached` refuses
 * names with `..` and looks for symlinks in parents, but not in directories it believes to have made itself, which it
 * remembers by their Unicode normal form.
 */
export type Naivety = "none" | "cached";

class NaiveSink implements TarSink {
  readonly #root: string;
  readonly #naivety: Naivety;
  readonly #made = new Set<string>();
  #fd: number | undefined;
  #finish: () => void = () => {};

  constructor(root: string, naivety: Naivety) {
    this.#root = root;
    this.#naivety = naivety;
  }

  #check(name: string): void {
    if (this.#naivety === "none") return;
    if (name.split("/").includes("..")) throw new Error(`${name} leaves the root`);
    const parents = name.split("/").slice(0, -1);
    for (let depth = 1; depth <= parents.length; depth += 1) {
      const path = parents.slice(0, depth).join("/");
      if (this.#made.has(path.normalize("NFC"))) continue;
      if (lstatSync(join(this.#root, path), { throwIfNoEntry: false })?.isSymbolicLink()) {
        throw new Error(`${path} is a symlink`);
      }
    }
  }

  entry(entry: TarEntry): void {
    const name = textOfBytes(entry.path).replace(/\/$/, "");
    this.#check(name);
    const path = join(this.#root, name);
    const link = textOfBytes(entry.linkPath);
    mkdirSync(dirname(path), { recursive: true });
    this.#finish = () => this.#metadata(path, entry);
    const base = basename(name);
    if (base.startsWith(".wh.")) {
      rmSync(join(dirname(path), base.slice(4)), { recursive: true, force: true });
      this.#finish = () => {};
      return;
    }
    switch (entry.type) {
      case "directory":
        if (statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) mkdirSync(path);
        this.#made.add(name.normalize("NFC"));
        break;
      case "symlink":
        rmSync(path, { recursive: true, force: true });
        symlinkSync(link, path);
        break;
      case "link":
        rmSync(path, { force: true });
        linkSync(join(this.#root, link), path);
        break;
      case "file":
        this.#fd = openSync(path, "w");
        break;
      default:
        throw new Error("not made by the naive extractor");
    }
  }

  data(chunk: Uint8Array): void {
    if (this.#fd !== undefined) writeSync(this.#fd, chunk);
  }

  end(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
    this.#finish();
  }

  /** By path, through whatever it has become. */
  #metadata(path: string, entry: TarEntry): void {
    if (!existsSync(path)) {
      lutimesSync(path, 0, Number(entry.mtimeNs) / 1e9);
      return;
    }
    chmodSync(path, entry.mode);
    utimesSync(path, 0, Number(entry.mtimeNs) / 1e9);
    for (const [attribute, value] of entry.xattrs ?? []) {
      const real = realpathSync(path);
      const fd = openRoot(dirname(real));
      setXattrAt(fd, basename(real) as ByteString, attribute, value);
      closeFd(fd);
    }
  }
}

/** Extracts as a careless program would; its own errors do not matter, the damage does. */
export function applyNaively(scene: Scene, archive: Archive, naivety: Naivety): void {
  try {
    feed(new NaiveSink(scene.root, naivety), archive, scene);
  } catch {
    // Stopped half way: what it did so far is what counts.
  }
}
