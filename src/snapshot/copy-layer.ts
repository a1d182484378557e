import { type ByteString, bytesOfText, textOfBytes } from "#base/byte-string.ts";
import { EngineError } from "#base/errors.ts";
import { joinPath } from "./archive-path.ts";
import { resolveOwner } from "./copy-owner.ts";
import {
  type CopySpec,
  excludesOf,
  openTree,
  type Selected,
  selectSources,
  walkSelected,
} from "./copy-spec.ts";
import type { LayerEntries } from "./layer-entries.ts";
import { applyModeChanges } from "./mode-change.ts";
import { resolveIn, type SourceTree, type TreeNode } from "./source-tree.ts";
import { unpackInto } from "./unpack-archive.ts";

const none = "" as ByteString;

function invalid(message: string): EngineError {
  return new EngineError("invalid", message, { code: "copy" });
}

/** Writes the layer that a COPY or ADD makes over the layers below. Throws `invalid` with Docker's words. */
export function writeCopy(spec: CopySpec, entries: LayerEntries, checkAborted: () => void): void {
  using tree = openTree(spec.source);
  const selected = selectSources(tree, spec);
  const wantsDirectory = spec.target.endsWith("/") || spec.target.endsWith("/.");
  if (selected.length > 1 && !wantsDirectory) {
    throw new EngineError(
      "invalid",
      "When using COPY with more than one source file, the destination must be a directory and end with a /",
      { code: "copy-target" },
    );
  }
  const owner = resolveOwner(entries.below, spec.chown);
  const own = (node: TreeNode): TreeNode => ({
    ...node,
    ...(owner ?? {}),
    mode: modeOf(node, spec.chmod),
  });
  const target = resolveIn(entries.below, spec.target);
  if (target.node !== undefined && target.node.type !== "directory" && wantsDirectory) {
    throw invalid(`cannot copy to non-directory: ${spec.target}`);
  }
  const job: CopyWork = {
    spec,
    tree,
    entries,
    own,
    target: target.path,
    isDirectory: wantsDirectory || target.node?.type === "directory",
    checkAborted,
  };
  for (const one of selected) copyOne(job, one);
}

function modeOf(node: TreeNode, chmod: CopySpec["chmod"]): number {
  if (chmod === undefined || node.type === "symlink") return node.mode;
  return typeof chmod === "number" ? chmod : applyModeChanges(node.mode, node.type === "directory", chmod);
}

interface CopyWork {
  readonly spec: CopySpec;
  readonly tree: SourceTree;
  readonly entries: LayerEntries;
  readonly own: (node: TreeNode) => TreeNode;
  readonly target: ByteString;
  readonly isDirectory: boolean;
  readonly checkAborted: () => void;
}

/** A directory that COPY has to make: its time is the source's, so that equal sources give equal layers. */
function freshDirectory(work: CopyWork, like: TreeNode): TreeNode {
  const { mode: _mode, ...owned } = work.own({ ...like, type: "directory", sizeBytes: 0, linkPath: none });
  const { xattrs: _xattrs, identity: _identity, ...plain } = owned;
  return {
    ...plain,
    ...(work.spec.chown === "" ? { uid: 0, gid: 0 } : {}),
    mode: 0o755,
    deviceMajor: 0,
    deviceMinor: 0,
  };
}

function copyOne(work: CopyWork, top: Selected): void {
  const { spec, tree, entries } = work;
  const fresh = freshDirectory(work, top.node);
  const into = joinPath(work.target, top.prefix).replace(/\/$/, "") as ByteString;
  if (top.node.type !== "directory") {
    if (
      spec.unpack &&
      unpackInto(tree, top, {
        entries,
        target: work.target,
        own: work.own,
        fresh,
        checkAborted: work.checkAborted,
      })
    )
      return;
    const path = work.isDirectory || spec.parents ? joinPath(into, top.name) : work.target;
    if (entries.below.stat(path)?.type === "directory") {
      throw invalid(`cannot overwrite directory with non-directory: /${textOfBytes(path)}`);
    }
    entries.parents(path, fresh);
    place(work, path, top.path, top.node);
    return;
  }
  const base = spec.parents ? joinPath(into, top.name) : work.target;
  walkSelected(tree, top, excludesOf(spec), (path, node, inner) => {
    work.checkAborted();
    const to = joinPath(base, inner).replace(/\/$/, "") as ByteString;
    if (inner !== "") {
      entries.parents(to, fresh);
      place(work, to, path, node);
    } else if (base !== "") copyTop(work, base, node, fresh);
  });
}

/** The target itself: one that is there keeps its mode and owner; a new one takes the source's. */
function copyTop(work: CopyWork, base: ByteString, node: TreeNode, fresh: TreeNode): void {
  const { entries } = work;
  if (entries.has(base)) return;
  entries.parents(base, fresh);
  const old = entries.below.stat(base);
  if (old !== undefined) entries.directory(base, fresh);
  else entries.entry(base, work.own(node));
}

function place(work: CopyWork, to: ByteString, from: ByteString, node: TreeNode): void {
  const { entries, tree } = work;
  const owned = work.own(node);
  if (node.type === "file") entries.file(to, owned, tree, from);
  else entries.entry(to, owned);
}

/** The layer of WORKDIR: the directory and those in front of it, as far as they are missing. */
export function writeDirectory(path: string, chown: string, mtimeNs: bigint, entries: LayerEntries): void {
  const target = resolveIn(entries.below, bytesOfText(path));
  if (target.node?.type === "directory" || target.path === "") return;
  if (target.node !== undefined) throw invalid(`cannot mkdir: ${path} is not a directory`);
  const owner = resolveOwner(entries.below, chown) ?? { uid: 0, gid: 0 };
  entries.directory(target.path, {
    type: "directory",
    mode: 0o755,
    ...owner,
    sizeBytes: 0,
    mtimeNs,
    linkPath: none,
    deviceMajor: 0,
    deviceMinor: 0,
  });
}
