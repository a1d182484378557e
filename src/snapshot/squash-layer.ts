import type { ByteString } from "#base/byte-string.ts";
import { joinPath, whiteoutPrefix } from "./archive-path.ts";
import type { LayerEntries } from "./layer-entries.ts";
import { impliedDirectory, type SourceTree } from "./source-tree.ts";
import { StackTree } from "./stack-tree.ts";

/**
 * Writes several layers as one over those below them: what the upper ones show together, and a whiteout for each name of
 * below that they hide. `layers` top first.
 */
export function writeSquashed(
  layers: readonly string[],
  below: readonly string[],
  entries: LayerEntries,
  checkAborted: () => void,
): void {
  using added = new StackTree(layers);
  using whole = new StackTree([...layers, ...below]);
  walk({ added, whole, entries, checkAborted }, "" as ByteString);
}

interface Squash {
  readonly added: SourceTree;
  readonly whole: SourceTree;
  readonly entries: LayerEntries;
  readonly checkAborted: () => void;
}

function walk(squash: Squash, directory: ByteString): void {
  const { added, whole, entries, checkAborted } = squash;
  if (entries.below.stat(directory)?.type === "directory") {
    for (const name of entries.below.list(directory)) {
      const path = joinPath(directory, name);
      if (whole.stat(path) === undefined)
        entries.output.entry(whiteout(joinPath(directory, `${whiteoutPrefix}${name}` as ByteString)));
    }
  }
  for (const name of added.list(directory)) {
    checkAborted();
    const path = joinPath(directory, name);
    const node = added.stat(path);
    if (node === undefined) continue;
    if (node.type === "file") entries.file(path, node, added, path);
    else entries.entry(path, node);
    if (node.type === "directory") walk(squash, path);
  }
}

function whiteout(path: ByteString): Parameters<LayerEntries["output"]["entry"]>[0] {
  return { ...impliedDirectory, path, type: "file", mode: 0 };
}
