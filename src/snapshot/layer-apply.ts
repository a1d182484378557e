import { constants, fstatSync, ftruncateSync, readSync, writeSync } from "node:fs";
import type { TarEntry } from "#archive/tar-format.ts";
import type { TarSink } from "#archive/tar-read.ts";
import { type ByteString, textOfBytes } from "#base/byte-string.ts";
import { EngineError, errnoOf, SyscallError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
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
import {
  chmodAt,
  chmodFd,
  chownAt,
  chownFd,
  closeFd,
  linkAt,
  linkFile,
  makeDevice,
  mkdirAt,
  mknodAt,
  openNameAt,
  setTimesAt,
  setTimesFd,
  symlinkAt,
  tryOpenNameAt,
} from "#sys/files.ts";
import { startWriteback } from "#sys/statfs.ts";
import { setXattrAt, setXattrFd } from "#sys/xattr.ts";
import { baseOf, cleanPath, joinPath, parentOf, whiteoutOf } from "./archive-path.ts";
import { DirectoryFinish } from "./directory-finish.ts";
import { type Found, isWhiteout, type LayerStack, opaqueAttribute } from "./layer-stack.ts";
import {
  copyAttributes,
  DependsOnBelow,
  isOverlayAttribute,
  ParentDirectories,
} from "./parent-directories.ts";
import { removeTreeAt } from "./remove-tree.ts";
import { treeSizeBytes } from "./tree-walk.ts";
import { isHole } from "./zero-holes.ts";

const yes = Buffer.from("y");
/** Highest uid and gid: the one above means "leave as it is" to chown(2). */
const idMax = 0xfffffffe;
const createFlags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
/** An attribute that would change how later files of the directory are made: set at the end. */
const defaultAcl = "system.posix_acl_default";

interface OpenFile {
  readonly fd: number;
  readonly entry: TarEntry;
  holes: boolean;
  /** It belongs to root since it was made. */
  readonly owned: boolean;
}

export interface ApplyResult {
  /** Regular files once an inode, and symlink targets: what Docker's graph drivers report as a layer's size. */
  readonly sizeBytes: number;
  /** The archive implied parents or linked into layers below: the result is only right over these layers. */
  readonly usedBelow: boolean;
}

/**
 * Applies the entries of a layer to a directory, as overlay wants it: whiteouts become 0:0 devices, opaque markers the
 * `trusted.overlay.opaque` attribute. Everything is done by descriptor and single name beneath the root; nothing the
 * archive says reaches outside. Runs in a worker, all calls block. The directory must be ours alone until it is done.
 *
 * Without `below` an entry that depends on the layers below throws `DependsOnBelow`: start again with them.
 */
export class LayerApplier implements TarSink, Disposable {
  readonly #rootFd: number;
  readonly #below: LayerStack | undefined;
  readonly #parents: ParentDirectories;
  readonly #finish = new DirectoryFinish();
  #inodes = 0;
  #sizeBytes = 0;
  /** Something that counted was removed again, so the sum is taken from the tree. */
  #recount = false;
  #usedBelow = false;
  /** Every directory so far belongs to group 0, so a new file does, too: also where directories give theirs to what is in them. */
  #groupIsRoot: boolean;
  #file: OpenFile | undefined;

  constructor(rootFd: number, below?: LayerStack) {
    this.#rootFd = rootFd;
    this.#below = below;
    this.#groupIsRoot = fstatSync(rootFd).gid === 0;
    this.#parents = new ParentDirectories(rootFd, below, (path, mtimeNs) => {
      this.#usedBelow = true;
      this.#groupIsRoot = false;
      this.#countInode();
      if (mtimeNs !== undefined) this.#finish.set(path, { mtimeNs });
    });
  }

  entry(entry: TarEntry): void {
    const path = cleanPath(entry.path);
    checkOwner(entry);
    if (path === "") {
      if (entry.type === "directory") this.#applyRoot(entry);
      return;
    }
    const whiteout = whiteoutOf(path);
    if (whiteout.kind === "ignored") return;
    this.#countInode();
    if (whiteout.kind === "whiteout") this.#whiteout(whiteout.hides);
    else if (whiteout.kind === "opaque") this.#opaque(parentOf(path));
    else this.#place(entry, path);
  }

  data(chunk: Uint8Array, offset: number): void {
    const file = this.#file;
    if (file === undefined) return;
    if (isHole(chunk)) {
      file.holes = true;
      return;
    }
    let at = 0;
    while (at < chunk.length) at += writeSync(file.fd, chunk, at, chunk.length - at, offset + at);
  }

  end(): void {
    const file = this.#file;
    if (file === undefined) return;
    this.#file = undefined;
    try {
      if (file.holes) ftruncateSync(file.fd, file.entry.sizeBytes);
      // Owner first: it clears setuid bits and file capabilities. Times last: writes change them.
      if (!file.owned) chownFd(file.fd, file.entry.uid, file.entry.gid);
      this.#setXattrs(file.entry, (attribute, value) => setXattrFd(file.fd, attribute, value));
      chmodFd(file.fd, file.entry.mode);
      setTimesFd(file.fd, file.entry.mtimeNs, file.entry.mtimeNs);
    } finally {
      closeFd(file.fd);
    }
    this.#sizeBytes += file.entry.sizeBytes;
  }

  /**
   * A file whose content is there already, in a file of the daemon's own that nothing else will use as more than content:
   * it becomes the layer's by a hard link, in place of `entry`, `data` and `end`. False where the two do not share a file
   * system: nothing was done.
   */
  adopt(entry: TarEntry, file: string): boolean {
    const path = cleanPath(entry.path);
    checkOwner(entry);
    const name = baseOf(path);
    try {
      this.#create(path, (parentFd) => linkFile(file, parentFd, name));
    } catch (error) {
      if (errnoOf(error) !== "EXDEV" && errnoOf(error) !== "EMLINK") throw error;
      return false;
    }
    this.#countInode();
    this.#finish.drop(path);
    const fd = openNameAt(
      this.#parents.fdOf(parentOf(path)),
      name,
      constants.O_RDONLY | constants.O_NONBLOCK,
    );
    // On its way to the disk while the rest of the layer is made.
    startWriteback(fd);
    this.#file = { fd, entry, holes: false, owned: false };
    this.end();
    return true;
  }

  /** After the last entry: directory times, and the sums. */
  complete(): ApplyResult {
    this.#finish.apply((path) => this.#parents.find(path));
    const sizeBytes = this.#recount ? treeSizeBytes(this.#rootFd) : this.#sizeBytes;
    return { sizeBytes, usedBelow: this.#usedBelow };
  }

  [Symbol.dispose](): void {
    if (this.#file !== undefined) closeFd(this.#file.fd);
    this.#file = undefined;
    this.#parents[Symbol.dispose]();
  }

  #countInode(): void {
    this.#inodes += 1;
    if (this.#inodes > limits.archiveEntriesMax) {
      throw new EngineError("invalid", "archive has too many entries", { code: "archive-limit" });
    }
  }

  #applyRoot(entry: TarEntry): void {
    const here = "." as ByteString;
    if (entry.gid !== 0) this.#groupIsRoot = false;
    chownAt(this.#rootFd, here, entry.uid, entry.gid);
    this.#setXattrs(entry, (attribute, value) => setXattrAt(this.#rootFd, here, attribute, value));
    chmodAt(this.#rootFd, here, entry.mode);
    this.#finish.set("" as ByteString, { mtimeNs: entry.mtimeNs });
  }

  #place(entry: TarEntry, path: ByteString): void {
    const name = baseOf(path);
    if (entry.type !== "directory") this.#finish.drop(path);
    switch (entry.type) {
      case "file":
        this.#create(path, (parentFd) => this.#startFile(entry, parentFd, name));
        break;
      case "directory":
        this.#directory(entry, path, name);
        break;
      case "symlink":
        this.#create(path, (parentFd) => symlinkAt(entry.linkPath, parentFd, name));
        this.#sizeBytes += entry.linkPath.length;
        this.#metadata(entry, path, name, false);
        break;
      case "link":
        this.#hardlink(entry, path, name);
        break;
      default: {
        const kind = { char: S_IFCHR, block: S_IFBLK, fifo: S_IFIFO }[entry.type];
        const device = makeDevice(entry.deviceMajor, entry.deviceMinor);
        this.#create(path, (parentFd) => mknodAt(parentFd, name, kind | 0o600, device));
        this.#metadata(entry, path, name, true);
      }
    }
  }

  /** Makes a name; where it is taken, what was there goes first, as in Docker (a directory with all below it). */
  #create(path: ByteString, make: (parentFd: number) => void): void {
    const parent = parentOf(path);
    try {
      make(this.#parents.fdOf(parent));
    } catch (error) {
      if (errnoOf(error) !== "EEXIST") throw error;
      this.#clear(path);
      make(this.#parents.fdOf(parent));
    }
  }

  #clear(path: ByteString): FileStatus | undefined {
    const parentFd = this.#parents.fdOf(parentOf(path));
    const name = baseOf(path);
    const old = statAt(parentFd, name);
    removeTreeAt(parentFd, name);
    if (old !== undefined && !isWhiteout(old)) this.#recount = true;
    if (old?.type === S_IFDIR) this.#finish.dropBelow(path);
    if (old?.type === S_IFDIR || old?.type === S_IFLNK) this.#parents.forget();
    return old;
  }

  #startFile(entry: TarEntry, parentFd: number, name: ByteString): void {
    const fd = tryOpenNameAt(parentFd, name, createFlags, 0o600);
    // ELOOP: O_NOFOLLOW met a symlink, which O_EXCL reports as EEXIST on most but not all file systems.
    if (typeof fd === "string") throw new SyscallError("openat", fd === "ELOOP" ? "EEXIST" : fd, name);
    const owned = this.#groupIsRoot && entry.uid === 0 && entry.gid === 0;
    this.#file = { fd, entry, holes: entry.sparse !== undefined, owned };
  }

  #directory(entry: TarEntry, path: ByteString, name: ByteString): void {
    const parent = parentOf(path);
    let parentFd = this.#parents.fdOf(parent);
    try {
      mkdirAt(parentFd, name, 0o700);
    } catch (error) {
      if (errnoOf(error) !== "EEXIST") throw error;
      const old = statAt(parentFd, name);
      if (old?.type !== S_IFDIR) {
        this.#clear(path);
        parentFd = this.#parents.fdOf(parent);
        mkdirAt(parentFd, name, 0o700);
        // A whiteout and a new directory of one name in one layer: what lies below must not shine through.
        if (old !== undefined && isWhiteout(old)) setXattrAt(parentFd, name, opaqueAttribute, yes);
      }
    }
    if (entry.gid !== 0) this.#groupIsRoot = false;
    chownAt(parentFd, name, entry.uid, entry.gid);
    let acl: Buffer | undefined;
    this.#setXattrs(entry, (attribute, value) => {
      if (attribute === defaultAcl) acl = value;
      else setXattrAt(parentFd, name, attribute, value);
    });
    chmodAt(parentFd, name, entry.mode);
    this.#finish.set(path, { mtimeNs: entry.mtimeNs, ...(acl === undefined ? {} : { defaultAcl: acl }) });
  }

  /** Owner, attributes, mode and times of what was just made; never through a link. */
  #metadata(entry: TarEntry, path: ByteString, name: ByteString, withMode: boolean): void {
    const parentFd = this.#parents.fdOf(parentOf(path));
    chownAt(parentFd, name, entry.uid, entry.gid);
    this.#setXattrs(entry, (attribute, value) => setXattrAt(parentFd, name, attribute, value));
    if (withMode) chmodAt(parentFd, name, entry.mode);
    setTimesAt(parentFd, name, entry.mtimeNs, entry.mtimeNs);
  }

  #setXattrs(entry: TarEntry, set: (attribute: string, value: Buffer) => void): void {
    if (entry.xattrs === undefined) return;
    for (const [attribute, value] of entry.xattrs) {
      if (isOverlayAttribute(attribute)) continue;
      try {
        set(attribute, value);
      } catch (error) {
        // Docker's rule: what the file system or the kind of file cannot hold is left out.
        const errno = errnoOf(error);
        const unsupported = errno === "EOPNOTSUPP" || errno === "ENOTSUP";
        if (!unsupported && !(errno === "EPERM" && attribute.startsWith("user."))) throw error;
      }
    }
  }

  #hardlink(entry: TarEntry, path: ByteString, name: ByteString): void {
    const target = cleanPath(entry.linkPath);
    if (target === path) return;
    if (target === "") throw new SyscallError("linkat", "EPERM", textOfBytes(path));
    const old = this.#statTarget(target);
    if (old === undefined) this.#copyUp(target);
    const parent = parentOf(path);
    const link = (): void => {
      const parentFd = this.#parents.fdOf(parent);
      const targetFd = this.#parents.find(parentOf(target));
      if (targetFd === undefined) throw new SyscallError("linkat", "ENOENT", textOfBytes(target));
      linkAt(targetFd, baseOf(target), parentFd, name);
    };
    try {
      link();
    } catch (error) {
      if (errnoOf(error) !== "EEXIST") throw error;
      this.#clear(path);
      link();
    }
    this.#linkMetadata(entry, path, name);
  }

  /** The header of a link carries metadata too. It is set where it differs: a chown clears file capabilities. */
  #linkMetadata(entry: TarEntry, path: ByteString, name: ByteString): void {
    const parentFd = this.#parents.fdOf(parentOf(path));
    const stat = statAt(parentFd, name);
    if (stat === undefined) return;
    const changed = stat.uid !== entry.uid || stat.gid !== entry.gid;
    if (changed) chownAt(parentFd, name, entry.uid, entry.gid);
    this.#setXattrs(entry, (attribute, value) => setXattrAt(parentFd, name, attribute, value));
    if (stat.type === S_IFREG && (changed || stat.mode !== entry.mode)) {
      const fd = openNameAt(parentFd, name, constants.O_RDONLY | constants.O_NONBLOCK);
      try {
        chmodFd(fd, entry.mode);
      } finally {
        closeFd(fd);
      }
    }
    if (stat.mtimeNs !== entry.mtimeNs) setTimesAt(parentFd, name, entry.mtimeNs, entry.mtimeNs);
  }

  #statTarget(target: ByteString): FileStatus | undefined {
    const parentFd = this.#parents.find(parentOf(target));
    const stat = parentFd === undefined ? undefined : statAt(parentFd, baseOf(target));
    return stat !== undefined && isWhiteout(stat) ? undefined : stat;
  }

  /** Brings a file of the layers below into this one, so that a link to it can be made. */
  #copyUp(target: ByteString): void {
    if (this.#below === undefined) throw new DependsOnBelow(target);
    this.#usedBelow = true;
    // Made first: it may lie behind a symlink of the merged tree; the file is then looked up where it really is.
    const parentFd = this.#parents.fdOf(parentOf(target));
    const found = this.#below.find(joinPath(this.#parents.canonicalOf(parentOf(target)), baseOf(target)));
    const own = statAt(parentFd, baseOf(target));
    if (found === undefined || own !== undefined)
      throw new SyscallError("link", "ENOENT", textOfBytes(target));
    if (found.stat.type === S_IFDIR) throw new SyscallError("link", "EPERM", textOfBytes(target));
    this.#countInode();
    if (found.stat.type === S_IFREG) this.#copyFile(found, target);
    else this.#copySpecial(found, target);
  }

  #copyFile(found: Found, target: ByteString): void {
    const name = baseOf(target);
    const below = this.#below as LayerStack;
    const from = below.openFound(found, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const to = openNameAt(this.#parents.fdOf(parentOf(target)), name, createFlags, 0o600);
      try {
        copyData(from, to);
        chownFd(to, found.stat.uid, found.stat.gid);
        chmodFd(to, found.stat.mode);
      } finally {
        closeFd(to);
      }
      this.#copyMetadata(found, target);
      this.#sizeBytes += found.stat.sizeBytes;
    } finally {
      closeFd(from);
    }
  }

  #copySpecial(found: Found, target: ByteString): void {
    const parentFd = this.#parents.fdOf(parentOf(target));
    const name = baseOf(target);
    const below = this.#below as LayerStack;
    if (found.stat.type === S_IFLNK) {
      symlinkAt(below.readLink(found), parentFd, name);
      this.#sizeBytes += found.stat.sizeBytes;
    } else {
      const device = makeDevice(found.stat.deviceMajor, found.stat.deviceMinor);
      mknodAt(parentFd, name, found.stat.type | 0o600, device);
      chmodAt(parentFd, name, found.stat.mode);
    }
    chownAt(parentFd, name, found.stat.uid, found.stat.gid);
    this.#copyMetadata(found, target);
  }

  #copyMetadata(found: Found, target: ByteString): void {
    const parentFd = this.#parents.fdOf(parentOf(target));
    const name = baseOf(target);
    const below = this.#below as LayerStack;
    const fromParent = below.openParent(found);
    try {
      copyAttributes(fromParent, baseOf(found.path), parentFd, name);
    } finally {
      closeFd(fromParent);
    }
    setTimesAt(parentFd, name, found.stat.mtimeNs, found.stat.mtimeNs);
  }

  #whiteout(hides: ByteString): void {
    const parentFd = this.#parents.fdOf(parentOf(hides));
    const name = baseOf(hides);
    const own = statAt(parentFd, name);
    if (own === undefined) {
      mknodAt(parentFd, name, S_IFCHR, 0n);
      return;
    }
    // A whiteout only concerns the layers below: what this layer has of that name stays, and hides them itself.
    if (own.type === S_IFDIR) setXattrAt(parentFd, name, opaqueAttribute, yes);
  }

  #opaque(path: ByteString): void {
    const fd = this.#parents.fdOf(path);
    setXattrAt(fd, "." as ByteString, opaqueAttribute, yes);
  }
}

function checkOwner(entry: TarEntry): void {
  for (const id of [entry.uid, entry.gid]) {
    if (id < 0 || id > idMax) {
      throw new EngineError("invalid", `archive entry has the owner ${id}: out of range`, {
        code: "bad-archive",
      });
    }
  }
}

function copyData(from: number, to: number): void {
  const buffer = Buffer.allocUnsafe(256 * 1024);
  for (;;) {
    const size = readSync(from, buffer, 0, buffer.length, null);
    if (size === 0) return;
    let at = 0;
    while (at < size) at += writeSync(to, buffer, at, size - at, null);
  }
}
