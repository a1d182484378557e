import { constants, readSync } from "node:fs";
import type { ChunkSink } from "#archive/chunk-sink.ts";
import type { EntryType } from "#archive/tar-format.ts";
import type { TarHeader } from "#archive/tar-write.ts";
import { TarWriter } from "#archive/tar-write.ts";
import { type ByteString, bytesOfText } from "#base/byte-string.ts";
import { errnoOf, SyscallError } from "#base/errors.ts";
import { openBytesBeneath, tryOpenat2 } from "#sys/beneath.ts";
import {
  type FileStatus,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFREG,
  statAt,
} from "#sys/file-status.ts";
import { closeFd, O_PATH, readlinkAt, tryOpenNameAt } from "#sys/files.ts";
import { readDirectory } from "#sys/statfs.ts";
import { getXattrAt, getXattrFd, listXattrAt, listXattrFd } from "#sys/xattr.ts";
import { baseOf, joinPath, parentOf, whiteoutPrefix } from "./archive-path.ts";
import { isOpaque, isWhiteout, type LayerStack } from "./layer-stack.ts";
import { walkMerged } from "./merged-walk.ts";
import { isMountPoint } from "./mount-points.ts";
import { type Visited, walkTree } from "./tree-walk.ts";

export interface TreeTarOptions {
  /**
   * Set when the tree is a writable layer: whiteouts become `.wh.` entries and directories that hide one below get an
   * opaque marker, by what these layers hold. `anything`: a finished layer, whose every mark counts. Undefined for a plain
   * tree.
   */
  readonly below?: LayerStack | "anything";
  /** Path inside the root to begin at, resolved beneath it without following a last symlink; all of it when undefined. */
  readonly from?: string;
  /** Name of that path in the archive; its own base name when undefined. Only with `from`. */
  readonly as?: string;
  /** Later times become this one. */
  readonly mtimeNsMax?: bigint;
  /** Paths that are left out while nothing is in them and the layers below lack them: targets of a container's mounts. */
  readonly omit?: ReadonlySet<string>;
  /** Times without their fraction, as Docker's archives have them. */
  readonly wholeSeconds?: boolean;
  /** Nobody changes the tree meanwhile: files are opened by their names. */
  readonly still?: boolean;
  /** Directories whose content is left out. Only with `from`. */
  readonly leaveOut?: (directory: Visited) => boolean;
}

/** What an archive calls a file, by the kind in its mode. Sockets have no form there. */
export const entryTypes: ReadonlyMap<number, EntryType> = new Map([
  [S_IFREG, "file"],
  [S_IFDIR, "directory"],
  [S_IFLNK, "symlink"],
  [S_IFCHR, "char"],
  [S_IFBLK, "block"],
  [S_IFIFO, "fifo"],
] as const);

/** Attributes that belong to the content; the others are the host's or a driver's. */
function isPortable(attribute: string): boolean {
  return (
    attribute === "security.capability" ||
    attribute.startsWith("system.posix_acl_") ||
    (attribute.startsWith("user.") && !attribute.startsWith("user.overlay."))
  );
}

export function readXattrs(dirFd: number, name: ByteString): Map<string, Buffer> | undefined {
  return portable(listXattrAt(dirFd, name), (attribute) => getXattrAt(dirFd, name, attribute));
}

function portable(
  attributes: readonly string[],
  read: (attribute: string) => Buffer | undefined,
): Map<string, Buffer> | undefined {
  let found: Map<string, Buffer> | undefined;
  for (const attribute of attributes) {
    if (!isPortable(attribute)) continue;
    const value = read(attribute);
    if (value === undefined) continue;
    found ??= new Map();
    found.set(attribute, value);
  }
  return found;
}

/** A mount point with nothing in it but other mount points. */
function isUnusedMountPoint(
  dirFd: number,
  name: ByteString,
  path: ByteString,
  stat: FileStatus,
  below: LayerStack,
): boolean {
  if (!isMountPoint(path, stat) || below.find(path) !== undefined) return false;
  if (stat.type !== S_IFDIR) return true;
  const fd = tryOpenNameAt(dirFd, name, constants.O_RDONLY | constants.O_DIRECTORY);
  if (typeof fd === "string") return false;
  try {
    return readDirectory(fd).every((entry) => {
      const child = statAt(fd, entry.name as ByteString);
      const childName = entry.name as ByteString;
      return (
        child === undefined || isUnusedMountPoint(fd, childName, joinPath(path, childName), child, below)
      );
    });
  } finally {
    closeFd(fd);
  }
}

const none = "" as ByteString;
const here = "." as ByteString;

type WriterOptions = Pick<TreeTarOptions, "below" | "mtimeNsMax" | "omit" | "wholeSeconds" | "still">;

/** One tree on its way into an archive. */
class TreeWriter {
  readonly #sink: ChunkSink;
  readonly #tar: TarWriter;
  readonly #below: LayerStack | "anything" | undefined;
  /** First name in the archive of files with several. */
  readonly #linked = new Map<string, ByteString>();

  readonly #mtimeNsMax: bigint | undefined;
  readonly #omit: ReadonlySet<string> | undefined;
  readonly #wholeSeconds: boolean;
  readonly #still: boolean;

  constructor(sink: ChunkSink, options: WriterOptions) {
    this.#sink = sink;
    this.#tar = new TarWriter((chunk) => sink.write(chunk));
    this.#below = options.below;
    this.#mtimeNsMax = options.mtimeNsMax;
    this.#omit = options.omit;
    this.#wholeSeconds = options.wholeSeconds === true;
    this.#still = options.still === true;
  }

  finish(): void {
    this.#tar.finish();
    this.#sink.flush();
  }

  /**
   * Writes one name. `path` is where it is in the tree (for the layers below), `as` what the archive calls it. `still`: in
   * this directory nothing changes, whatever the rest of the tree does.
   */
  add(
    dirFd: number,
    name: ByteString,
    path: ByteString,
    as: ByteString,
    stat: FileStatus,
    still = this.#still,
  ): void {
    if (this.#below !== undefined && isWhiteout(stat)) {
      // Something must be there to hide: a name made and removed again leaves a device that means nothing.
      if (this.#below === "anything" || this.#below.find(path) !== undefined)
        this.#marker(joinPath(parentOf(as), whiteoutPrefix + baseOf(as)));
      return;
    }
    // Made by the start of the container, not by what ran in it.
    if (typeof this.#below === "object" && isUnusedMountPoint(dirFd, name, path, stat, this.#below)) return;
    if (this.#omit?.has(path) === true && this.#isUnusedTarget(dirFd, name, path, stat)) return;
    const type = entryTypes.get(stat.type);
    // Sockets: tar has no form for them, and nobody listens after a copy.
    if (type === undefined) return;
    const header: TarHeader = {
      path: as,
      type,
      mode: stat.mode,
      uid: stat.uid,
      gid: stat.gid,
      sizeBytes: 0,
      mtimeNs: this.#timeOf(stat),
      linkPath: none,
      deviceMajor: stat.type === S_IFCHR || stat.type === S_IFBLK ? stat.deviceMajor : 0,
      deviceMinor: stat.type === S_IFCHR || stat.type === S_IFBLK ? stat.deviceMinor : 0,
    };
    if (stat.type === S_IFREG && (stat.linkCount === 1 || !this.#linked.has(stat.identity))) {
      if (this.#file(dirFd, name, header, still ? stat : undefined) && stat.linkCount > 1) {
        this.#linked.set(stat.identity, as);
      }
      return;
    }
    // No attribute that belongs to the content can be set on a symlink (xattr(7)).
    const xattrs = stat.type === S_IFLNK ? undefined : readXattrs(dirFd, name);
    const full = xattrs === undefined ? header : { ...header, xattrs };
    if (stat.type !== S_IFDIR && stat.linkCount > 1 && this.#link(full, stat)) return;
    if (stat.type === S_IFLNK) this.#tar.entry({ ...full, linkPath: readlinkAt(dirFd, name) });
    else this.#tar.entry(full);
    if (stat.type === S_IFDIR && this.#hidesBelow(dirFd, name, path)) {
      this.#marker(joinPath(as, ".wh..wh..opq"));
    }
  }

  #timeOf({ mtimeNs }: FileStatus): bigint {
    if (this.#mtimeNsMax !== undefined && mtimeNs > this.#mtimeNsMax) return this.#mtimeNsMax;
    return this.#wholeSeconds ? mtimeNs - (mtimeNs % 1_000_000_000n) : mtimeNs;
  }

  #isUnusedTarget(dirFd: number, name: ByteString, path: ByteString, stat: FileStatus): boolean {
    if (typeof this.#below === "object" && this.#below.find(path) !== undefined) return false;
    if (stat.type !== S_IFDIR) return stat.sizeBytes === 0;
    const fd = tryOpenNameAt(dirFd, name, constants.O_RDONLY | constants.O_DIRECTORY);
    if (typeof fd === "string") return false;
    try {
      return readDirectory(fd).every((entry) => {
        const child = entry.name as ByteString;
        const at = joinPath(path, child);
        const status = statAt(fd, child);
        if (status === undefined) return true;
        return this.#omit?.has(at) === true && this.#isUnusedTarget(fd, child, at, status);
      });
    } finally {
      closeFd(fd);
    }
  }

  #hidesBelow(dirFd: number, name: ByteString, path: ByteString): boolean {
    // The kernel marks every new directory opaque; only one that has something to hide needs the marker.
    if (this.#below === undefined || !isOpaque(dirFd, name)) return false;
    return this.#below === "anything" || this.#below.find(path)?.stat.type === S_IFDIR;
  }

  #link(header: TarHeader, stat: FileStatus): boolean {
    const first = this.#linked.get(stat.identity);
    if (first === undefined) {
      this.#linked.set(stat.identity, header.path);
      return false;
    }
    this.#tar.entry({ ...header, type: "link", linkPath: first, deviceMajor: 0, deviceMinor: 0 });
    return true;
  }

  #marker(path: ByteString): void {
    this.#tar.entry({
      path,
      type: "file",
      mode: 0o600,
      uid: 0,
      gid: 0,
      sizeBytes: 0,
      // An unpacked layer does not keep a marker's time, and packed again it must give the same bytes.
      mtimeNs: 0n,
      linkPath: none,
      deviceMajor: 0,
      deviceMinor: 0,
    });
  }

  /** Writes a file, of which `known` holds for sure. False where there is none any more. */
  #file(dirFd: number, name: ByteString, header: TarHeader, known: FileStatus | undefined): boolean {
    if (known === undefined) return this.#liveFile(dirFd, name, header);
    const fd = tryOpenNameAt(dirFd, name, readFlags);
    if (typeof fd === "string") throw new SyscallError("openat", fd, name);
    this.#content(fd, header, known);
    return true;
  }

  #liveFile(dirFd: number, name: ByteString, header: TarHeader): boolean {
    const found = tryOpenNameAt(dirFd, name, O_PATH);
    if (typeof found === "string") {
      if (found === "ENOENT") return false;
      throw new SyscallError("openat", found, name);
    }
    try {
      // Asked of what is held: the name may be another file's by now, and merely opening a device can act on the host.
      const stat = statAt(found, none);
      if (stat?.type !== S_IFREG) return false;
      this.#content(openHeld(found, name), header, stat);
      return true;
    } finally {
      closeFd(found);
    }
  }

  /** Closes the file. */
  #content(fd: number, header: TarHeader, { sizeBytes }: FileStatus): void {
    try {
      const xattrs = portable(listXattrFd(fd), (attribute) => getXattrFd(fd, attribute));
      this.#tar.entry(xattrs === undefined ? { ...header, sizeBytes } : { ...header, sizeBytes, xattrs });
      this.#copy(fd);
    } finally {
      closeFd(fd);
    }
  }

  /** Exactly as many bytes as the header says: a file that grows is cut, one that shrinks is filled with zeros. */
  #copy(fd: number): void {
    while (this.#tar.missing > 0) {
      const size = this.#sink.fill(this.#tar.missing, (buffer, offset, length) =>
        readSync(fd, buffer, offset, length, null),
      );
      if (size === 0) break;
      this.#tar.passed(size);
    }
    while (this.#tar.missing > 0) {
      const size = this.#sink.fill(this.#tar.missing, (buffer, offset, length) => {
        buffer.fill(0, offset, offset + length);
        return length;
      });
      this.#tar.passed(size);
    }
  }
}

const readFlags = constants.O_RDONLY | constants.O_NONBLOCK;

/** Opens the very file an O_PATH descriptor stands for, to read. */
function openHeld(pathFd: number, name: ByteString): number {
  // Not by Node, which in a thread keeps a list of what it opened and closes those numbers when the thread ends.
  const fd = tryOpenat2(-100, `/proc/self/fd/${pathFd}`, readFlags, 0, 0);
  if (typeof fd === "string") throw new SyscallError("openat", fd, name);
  return fd;
}

/**
 * Writes a directory tree as a tar archive: names in byte order, numeric owners, nanosecond times, hard links kept, xattrs
 * that belong to content. The same tree gives the same bytes. Blocks; for workers. The sink is flushed at the end.
 */
export function writeTreeTar(rootFd: number, sink: ChunkSink, options: TreeTarOptions = {}): void {
  const writer = new TreeWriter(sink, options);
  if (options.from === undefined) {
    walkTree(rootFd, ({ dirFd, name, path, stat }) => {
      writer.add(dirFd, name, path, path, stat);
      return undefined;
    });
  } else addFrom(rootFd, writer, options.from, options);
  writer.finish();
}

/**
 * Writes what overlayfs would show of layers (`rootFds`, top first) as a plain tree, with times as Docker's exports have
 * them. The top one may change meanwhile. Otherwise as `writeTreeTar`.
 */
export function writeMergedTar(rootFds: readonly number[], sink: ChunkSink): void {
  const writer = new TreeWriter(sink, { wholeSeconds: true });
  walkMerged(rootFds, ({ dirFd, name, path, stat, isTop }) =>
    writer.add(dirFd, name, path, path, stat, !isTop),
  );
  writer.finish();
}

function addFrom(
  rootFd: number,
  writer: TreeWriter,
  from: string,
  { as, leaveOut }: Pick<TreeTarOptions, "as" | "leaveOut">,
): void {
  const trimmed = bytesOfText(from.replace(/\/+$/, ""));
  const base = baseOf(trimmed);
  // The last name is not followed; `.`, `..` and the root itself are directories either way.
  const isDots = base === "" || base === "." || base === "..";
  using opened = new DisposableStack();
  const open = (dirFd: number, path: ByteString, flags: number): number => {
    const fd = openBytesBeneath(dirFd, path, O_PATH | flags);
    opened.defer(() => closeFd(fd));
    return fd;
  };
  let parentFd: number;
  let fd: number;
  try {
    parentFd = open(rootFd, parentOf(trimmed), constants.O_DIRECTORY);
    fd = isDots ? open(rootFd, trimmed, constants.O_DIRECTORY) : open(parentFd, base, constants.O_NOFOLLOW);
  } catch (error) {
    if (errnoOf(error) === "ENOTDIR") throw new SyscallError("lstat", "ENOENT", from);
    throw error;
  }
  const stat = statAt(fd, none);
  if (stat === undefined) return;
  const name = as === undefined ? (isDots ? here : base) : bytesOfText(as);
  if (stat.type !== S_IFDIR) {
    writer.add(parentFd, base, trimmed, name, stat);
    return;
  }
  writer.add(fd, here, trimmed, name, stat);
  walkTree(fd, (visited) => {
    const path = joinPath(trimmed, visited.path);
    // Docker's name for the root is `/`.
    const as = (name === "/" ? `/${visited.path}` : joinPath(name, visited.path)) as ByteString;
    writer.add(visited.dirFd, visited.name, path, as, visited.stat);
    return visited.stat.type === S_IFDIR && leaveOut?.({ ...visited, path }) === true ? false : undefined;
  });
}
