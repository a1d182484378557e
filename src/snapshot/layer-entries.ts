import type { TarEntry } from "#archive/tar-format.ts";
import { type ByteString, textOfBytes } from "#base/byte-string.ts";
import { EngineError } from "#base/errors.ts";
import { baseOf, parentOf, whiteoutPrefix } from "./archive-path.ts";
import type { LayerOutput } from "./layer-output.ts";
import type { SourceTree, TreeNode } from "./source-tree.ts";

const none = "" as ByteString;

function invalid(message: string): EngineError {
  return new EngineError("invalid", message, { code: "copy" });
}

/** Name in the layer that its readers take for a whiteout. */
export function checkNoWhiteout(path: ByteString): void {
  if (!baseOf(path).startsWith(whiteoutPrefix)) return;
  throw invalid(
    `${JSON.stringify(textOfBytes(path))} cannot be stored in a layer: the name means a removed file`,
  );
}

/**
 * Writes entries of a layer over the layers below: directories in front of a name come first, as they are below or made
 * new, so that the layer stands on its own.
 */
export class LayerEntries {
  readonly #output: LayerOutput;
  readonly #below: SourceTree;
  readonly #mtimeNsMax: bigint | undefined;
  readonly #written = new Set<string>();
  readonly #linked = new Map<string, ByteString>();

  constructor(output: LayerOutput, below: SourceTree, mtimeNsMax: bigint | undefined) {
    this.#output = output;
    this.#below = below;
    this.#mtimeNsMax = mtimeNsMax;
  }

  get output(): LayerOutput {
    return this.#output;
  }

  get below(): SourceTree {
    return this.#below;
  }

  clamp(mtimeNs: bigint): bigint {
    return this.#mtimeNsMax !== undefined && mtimeNs > this.#mtimeNsMax ? this.#mtimeNsMax : mtimeNs;
  }

  has(path: ByteString): boolean {
    return this.#written.has(path);
  }

  /** The directories in front of a path, with those of below kept as they are. */
  parents(path: ByteString, fresh: TreeNode): void {
    const parent = parentOf(path);
    if (parent === "" || this.#written.has(parent)) return;
    this.directory(parent, fresh);
  }

  /** A directory that keeps what it is below, or becomes `fresh`. */
  directory(path: ByteString, fresh: TreeNode): void {
    if (path === "" || this.#written.has(path)) return;
    this.parents(path, fresh);
    const old = this.#below.stat(path);
    if (old !== undefined && old.type !== "directory") {
      throw invalid(`cannot copy to non-directory: /${textOfBytes(path)}`);
    }
    this.entry(path, old ?? fresh);
  }

  /** Anything but a file's data. */
  entry(path: ByteString, node: TreeNode): void {
    this.#output.entry(this.#headerOf(path, node));
  }

  #headerOf(path: ByteString, node: TreeNode): TarEntry {
    checkNoWhiteout(path);
    this.#written.add(path);
    return {
      path,
      type: node.type,
      mode: node.mode,
      uid: node.uid,
      gid: node.gid,
      sizeBytes: node.type === "file" ? node.sizeBytes : 0,
      mtimeNs: this.clamp(node.mtimeNs),
      linkPath: node.type === "symlink" ? node.linkPath : none,
      deviceMajor: node.deviceMajor,
      deviceMinor: node.deviceMinor,
      ...(node.xattrs === undefined ? {} : { xattrs: node.xattrs }),
    };
  }

  /** A file with its data, or a link to the name it was written under before. */
  file(path: ByteString, node: TreeNode, tree: SourceTree, from: ByteString): void {
    const first = node.identity === undefined ? undefined : this.#linked.get(node.identity);
    if (first === path) return;
    if (first !== undefined) {
      const { xattrs: _xattrs, ...header } = this.#headerOf(path, node);
      this.#output.entry({
        ...header,
        type: "link",
        sizeBytes: 0,
        linkPath: first,
        deviceMajor: 0,
        deviceMinor: 0,
      });
      return;
    }
    if (node.identity !== undefined) this.#linked.set(node.identity, path);
    const header = this.#headerOf(path, node);
    const own = tree.take?.(from);
    const read = (write: (chunk: Uint8Array) => void): void => tree.read(from, write);
    if (own !== undefined && this.#output.adopt(header, own, read)) return;
    this.#output.entry(header);
    read((chunk) => this.#output.data(chunk));
  }
}
