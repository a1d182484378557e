import { cleanSlashPath, hasWildcards, IgnoreRules, matchPath } from "#archive/ignore.ts";
import { type ByteString, bytesOfText, textOfBytes } from "#base/byte-string.ts";
import { EngineError, errnoOf } from "#base/errors.ts";
import { baseOf, joinPath } from "./archive-path.ts";
import { ContextTree, type LooseFile, openContext } from "./context-tree.ts";
import type { ModeChange } from "./mode-change.ts";
import { resolveIn, type SourceTree, type TreeNode } from "./source-tree.ts";
import { StackTree } from "./stack-tree.ts";

/** Where files are copied from. Can be posted to a thread. */
export type TreeSource =
  | { readonly kind: "context"; readonly indexPath: string }
  | { readonly kind: "files"; readonly files: readonly LooseFile[] }
  /** Directories of an image's layers, top first. */
  | { readonly kind: "layers"; readonly directories: readonly string[] };

/** One COPY or ADD: what of which tree goes where. */
export interface CopySpec {
  readonly source: TreeSource;
  /** As in the Dockerfile, variables replaced; Go's patterns. */
  readonly paths: readonly string[];
  /** Absolute; a slash at its end makes it a directory. */
  readonly target: string;
  /** `user[:group]` by name or number, "" to keep the owners. */
  readonly chown: string;
  /** Permission bits, changes of them, undefined to keep them. */
  readonly chmod: number | readonly ModeChange[] | undefined;
  readonly excludes: readonly string[];
  /** Keep the directories in front of each source; `/./` says from where on. */
  readonly parents: boolean;
  /** Local archives are unpacked (ADD). */
  readonly unpack: boolean;
}

export interface Selected {
  /** Canonical path in the tree. */
  readonly path: ByteString;
  readonly node: TreeNode;
  /** Name it has been selected by, for the target's file name. */
  readonly name: ByteString;
  /** Directories to be kept in front of it, "" for none. */
  readonly prefix: ByteString;
}

export function openTree(source: TreeSource): SourceTree {
  switch (source.kind) {
    case "context":
      return openContext(source.indexPath);
    case "files":
      return ContextTree.ofFiles(source.files);
    case "layers":
      return new StackTree(source.directories);
  }
}

function invalid(message: string): EngineError {
  return new EngineError("invalid", message, { code: "copy" });
}

/** Sources of one COPY: a pattern can match a whole context. */
const selectedMax = 1_000_000;

/** The files and directories that a spec names, in its order. Throws `invalid` with Docker's words. */
export function selectSources(tree: SourceTree, spec: CopySpec): Selected[] {
  const selected: Selected[] = [];
  for (const text of spec.paths) {
    const clean = cleanSlashPath(text.replace(/^\/+/, ""));
    if (clean === ".." || clean.startsWith("../")) {
      throw invalid(`forbidden path outside the build context: ${text} ()`);
    }
    const pivot = spec.parents ? text.replace(/^\/+/, "").indexOf("/./") : -1;
    const base = pivot < 0 ? "" : cleanSlashPath(text.replace(/^\/+/, "").slice(0, pivot));
    const paths = hasWildcards(clean) ? matchAll(tree, clean) : [bytesOfText(clean)];
    const found = paths.map((path) => selectOne(tree, path, spec, base)).filter((one) => one !== undefined);
    if (found.length === 0 && !hasWildcards(clean)) throw missing(spec, clean);
    selected.push(...found);
    if (selected.length > selectedMax) throw invalid("too many source files");
  }
  if (selected.length === 0) throw invalid("no source files were specified");
  return selected;
}

function missing(spec: CopySpec, path: string): EngineError {
  return spec.source.kind === "context"
    ? invalid(
        `file not found in build context or excluded by .dockerignore: stat ${path}: file does not exist`,
      )
    : invalid(`stat ${path}: file does not exist`);
}

function selectOne(tree: SourceTree, path: ByteString, spec: CopySpec, base: string): Selected | undefined {
  let found: ReturnType<typeof resolveIn>;
  try {
    found = resolveIn(tree, path === "." ? "" : path);
  } catch (error) {
    if (errnoOf(error) === "ENOTDIR") return undefined;
    throw error;
  }
  if (found.node === undefined) return undefined;
  const clean = path === "." ? "" : path;
  const inner =
    base !== "" && clean.startsWith(`${bytesOfText(base)}/`) ? clean.slice(base.length + 1) : clean;
  const prefix = spec.parents
    ? inner.slice(0, Math.max(0, inner.length - baseOf(inner as ByteString).length - 1))
    : "";
  return {
    path: found.path,
    node: found.node,
    name: baseOf(clean as ByteString),
    prefix: prefix as ByteString,
  };
}

/** Paths that match a pattern, segment by segment: only directories that can hold a match are listed. */
function matchAll(tree: SourceTree, pattern: string): ByteString[] {
  const segments = pattern.split("/");
  // A malformed segment is an error even where the directories in front of it match nothing.
  for (const segment of segments) matchPath(segment, "");
  let paths: ByteString[] = ["" as ByteString];
  for (const [index, segment] of segments.entries()) {
    const next: ByteString[] = [];
    for (const path of paths) {
      const directory = resolveIn(tree, path);
      if (directory.node?.type !== "directory") continue;
      if (!hasWildcards(segment)) {
        const child = joinPath(path, bytesOfText(segment));
        if (index < segments.length - 1 || resolveIn(tree, child).node !== undefined) next.push(child);
        continue;
      }
      for (const name of tree.list(directory.path)) {
        if (matchPath(segment, textOfBytes(name))) next.push(joinPath(path, name));
      }
    }
    paths = next;
  }
  return paths;
}

/** Visits what is selected with all below it, in a fixed order, without what is excluded. `inner` is "" for the top. */
export function walkSelected(
  tree: SourceTree,
  top: Selected,
  excludes: IgnoreRules,
  visit: (path: ByteString, node: TreeNode, inner: ByteString) => void,
): void {
  const walk = (path: ByteString, node: TreeNode, inner: ByteString): void => {
    visit(path, node, inner);
    if (node.type !== "directory") return;
    for (const name of tree.list(path)) {
      const child = joinPath(path, name);
      const childInner = joinPath(inner, name);
      const childNode = tree.stat(child);
      if (childNode === undefined) continue;
      if (!excludes.isEmpty && excludes.excludes(textOfBytes(child))) {
        if (childNode.type !== "directory" || excludes.excludesAllBelow(textOfBytes(child))) continue;
      }
      walk(child, childNode, childInner);
    }
  };
  if (!excludes.isEmpty && excludes.excludes(textOfBytes(top.path)) && top.node.type !== "directory") return;
  walk(top.path, top.node, "" as ByteString);
}

export function excludesOf(spec: CopySpec): IgnoreRules {
  return new IgnoreRules(spec.excludes);
}
