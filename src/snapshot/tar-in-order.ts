import { constants } from "node:fs";
import type { TarEntry } from "#archive/tar-format.ts";
import { TarWriter } from "#archive/tar-write.ts";
import type { ByteString } from "#base/byte-string.ts";
import { openBytesBeneath } from "#sys/beneath.ts";
import { statAt } from "#sys/file-status.ts";
import { closeFd, O_PATH } from "#sys/files.ts";
import { baseOf, cleanPath, parentOf, whiteoutPrefix } from "./archive-path.ts";

const none = "" as ByteString;
/** stat(2) of a symlink. */
const linkMode = 0o777;
const second = 1_000_000_000n;

/** Kinds whose entry says all that packing the file again would find. */
function isPlain({ path, type, xattrs, sparse }: TarEntry): boolean {
  const hasKind = type === "file" || type === "directory" || type === "symlink";
  const isNamed = path !== "" && cleanPath(path) === path && !baseOf(path).startsWith(whiteoutPrefix);
  return hasKind && isNamed && xattrs === undefined && sparse === undefined;
}

/**
 * The tar that packing a layer again gives (tree-tar.ts), written while the layer is made. That works where the layer is made
 * in its tar's order: directories before their content, names in byte order. Most COPYs do, and their files need not be read
 * again. Where anything is out of order or not plain, the rest is ignored, and the layer is packed when it is whole.
 */
export class TarInOrder {
  readonly #tar: TarWriter;
  #inOrder = true;
  /** Directories in front of the last name, with the last name in each. */
  readonly #levels: { readonly path: string; last: string }[] = [{ path: "", last: "" }];
  /** What would tell that the file system does not keep times as they were set. */
  #earliest: TarEntry | undefined;
  #latest: TarEntry | undefined;
  #finest: TarEntry | undefined;

  constructor(write: (chunk: Uint8Array) => void) {
    this.#tar = new TarWriter(write);
  }

  entry(entry: TarEntry): void {
    this.#inOrder &&= isPlain(entry) && this.#follows(entry);
    if (!this.#inOrder) return;
    this.#keepSamples(entry);
    const { path, type, mode, uid, gid, sizeBytes, mtimeNs, linkPath } = entry;
    this.#tar.entry({
      path,
      type,
      mode: type === "symlink" ? linkMode : mode,
      uid,
      gid,
      sizeBytes: type === "file" ? sizeBytes : 0,
      mtimeNs,
      linkPath: type === "symlink" ? linkPath : none,
      deviceMajor: 0,
      deviceMinor: 0,
    });
  }

  /** Content of the last entry; its chunks together are as long as the entry says. */
  data(chunk: Uint8Array): void {
    if (this.#inOrder) this.#tar.data(chunk);
  }

  get inOrder(): boolean {
    return this.#inOrder;
  }

  #follows({ path, type }: TarEntry): boolean {
    const parent = parentOf(path);
    while (this.#levels.length > 1 && this.#levels.at(-1)?.path !== parent) this.#levels.pop();
    const level = this.#levels.at(-1);
    const name = baseOf(path);
    if (level?.path !== parent || name <= level.last) return false;
    level.last = name;
    if (type === "directory") this.#levels.push({ path, last: "" });
    return true;
  }

  #keepSamples(entry: TarEntry): void {
    const { mtimeNs } = entry;
    if (this.#earliest === undefined || mtimeNs < this.#earliest.mtimeNs) this.#earliest = entry;
    if (this.#latest === undefined || mtimeNs > this.#latest.mtimeNs) this.#latest = entry;
    if (this.#finest === undefined && mtimeNs % second !== 0n) this.#finest = entry;
  }

  /** Ends the archive of a layer that is whole. False: it is not what packing the layer gives. */
  finish(rootFd: number): boolean {
    if (!this.#inOrder) return false;
    this.#tar.finish();
    const samples = [this.#earliest, this.#latest, this.#finest];
    return samples.every((entry) => entry === undefined || isAsWritten(rootFd, entry));
  }
}

/** File systems with small inodes keep whole seconds, or times in a narrower range. */
function isAsWritten(rootFd: number, { path, uid, gid, mtimeNs }: TarEntry): boolean {
  const fd = openBytesBeneath(rootFd, path, O_PATH | constants.O_NOFOLLOW);
  try {
    const stat = statAt(fd, none);
    return stat?.mtimeNs === mtimeNs && stat.uid === uid && stat.gid === gid;
  } finally {
    closeFd(fd);
  }
}
