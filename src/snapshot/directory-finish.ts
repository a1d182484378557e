import type { ByteString } from "#base/byte-string.ts";
import { EngineError, errnoOf } from "#base/errors.ts";
import { S_IFDIR, statAt } from "#sys/file-status.ts";
import { setTimesAt } from "#sys/files.ts";
import { setXattrAt } from "#sys/xattr.ts";
import { baseOf, parentOf } from "./archive-path.ts";

export interface DirectoryState {
  readonly mtimeNs: bigint;
  readonly defaultAcl?: Buffer;
}

/** Names of directories kept until the end: a million directories with long names would otherwise fill the memory. */
const pathBytesMax = 64 * 1024 * 1024;

/** What is set on directories after all entries: times, which every new name in them changes, and default ACLs. */
export class DirectoryFinish {
  readonly #states = new Map<ByteString, DirectoryState>();
  #bytes = 0;

  set(path: ByteString, state: DirectoryState): void {
    if (!this.#states.has(path)) this.#bytes += path.length + 16 + (state.defaultAcl?.length ?? 0);
    if (this.#bytes > pathBytesMax) {
      throw new EngineError("invalid", "archive has too many directories", { code: "archive-limit" });
    }
    this.#states.set(path, state);
  }

  /** The path is no directory any more. */
  drop(path: ByteString): void {
    this.#states.delete(path);
  }

  dropBelow(path: ByteString): void {
    this.#states.delete(path);
    for (const other of this.#states.keys()) if (other.startsWith(`${path}/`)) this.#states.delete(other);
  }

  /** `parentFd` gives the open parent of a path, or undefined where it is gone. */
  apply(parentFd: (path: ByteString) => number | undefined): void {
    const here = "." as ByteString;
    for (const [path, state] of this.#states) {
      const fd = parentFd(parentOf(path));
      if (fd === undefined) continue;
      const name = path === "" ? here : baseOf(path);
      try {
        if (state.defaultAcl !== undefined) {
          if (statAt(fd, name)?.type !== S_IFDIR) continue;
          setXattrAt(fd, name, "system.posix_acl_default", state.defaultAcl);
        }
        setTimesAt(fd, name, state.mtimeNs, state.mtimeNs);
      } catch (error) {
        const errno = errnoOf(error);
        if (errno !== "ENOENT" && errno !== "EOPNOTSUPP") throw error;
      }
    }
  }
}
