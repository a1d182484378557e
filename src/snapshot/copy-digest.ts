import { createHash } from "node:crypto";
import type { ByteString } from "#base/byte-string.ts";
import { type CopySpec, excludesOf, openTree, selectSources, walkSelected } from "./copy-spec.ts";
import type { SourceTree, TreeNode } from "./source-tree.ts";

/**
 * What a COPY would bring, as one digest: equal digests give equal files. Modification times do not count, as in Docker. In
 * front of it is what Docker's history calls it: `file:`, `dir:`, or `multi:` for several sources.
 */
export function copyDigest(spec: CopySpec, checkAborted: () => void): string {
  using tree = openTree(spec.source);
  const excludes = excludesOf(spec);
  const hash = createHash("sha256");
  const selected = selectSources(tree, spec);
  for (const top of selected) {
    hash.update(JSON.stringify(["top", top.name, top.prefix, top.node.type === "directory"]));
    walkSelected(tree, top, excludes, (path, node, inner) => {
      checkAborted();
      hash.update(JSON.stringify(describe(tree, path, node, inner)));
    });
  }
  const [first] = selected;
  const what = selected.length > 1 ? "multi" : first?.node.type === "directory" ? "dir" : "file";
  return `${what}:${hash.digest("hex")}`;
}

function describe(tree: SourceTree, path: ByteString, node: TreeNode, inner: ByteString): unknown[] {
  const xattrs = [...(node.xattrs ?? [])].sort(([a], [b]) => (a < b ? -1 : 1));
  return [
    inner,
    node.type,
    node.mode,
    node.uid,
    node.gid,
    node.sizeBytes,
    node.linkPath,
    node.deviceMajor,
    node.deviceMinor,
    node.type === "file" ? (node.contentHash ?? contentHash(tree, path)) : "",
    xattrs.map(([name, value]) => [name, value.toString("base64")]),
  ];
}

function contentHash(tree: SourceTree, path: ByteString): string {
  const hash = createHash("sha256");
  tree.read(path, (chunk) => hash.update(chunk));
  return hash.digest("hex");
}
