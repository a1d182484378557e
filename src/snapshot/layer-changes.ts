import { type ByteString, textOfBytes } from "#base/byte-string.ts";
import { S_IFDIR } from "#sys/file-status.ts";
import { parentOf } from "./archive-path.ts";
import { isOpaque, isWhiteout, type LayerStack } from "./layer-stack.ts";
import type { Change } from "./snapshotter.ts";
import { type Visited, walkTree } from "./tree-walk.ts";

/**
 * What a writable layer changed, as Docker's overlay2 driver reports it: in the order of a sorted walk, a directory before
 * its content. A directory that only stands there because something below it changed is listed as modified too.
 */
export function layerChanges(upperFd: number, below: LayerStack): Change[] {
  const changes: Change[] = [];
  const listedDirectories = new Set<ByteString>();
  walkTree(upperFd, (visited) => {
    const kind = kindOf(visited, below);
    if (kind === undefined) return undefined;
    const parent = parentOf(visited.path);
    if (visited.stat.type === S_IFDIR) listedDirectories.add(visited.path);
    if (kind !== 0 && parent !== "" && !listedDirectories.has(parent)) {
      listedDirectories.add(parent);
      changes.push({ path: `/${textOfBytes(parent)}`, kind: 0 });
    }
    changes.push({ path: `/${textOfBytes(visited.path)}`, kind });
    return undefined;
  });
  return changes;
}

function kindOf({ dirFd, name, path, stat }: Visited, below: LayerStack): Change["kind"] | undefined {
  const old = below.find(path)?.stat;
  if (isWhiteout(stat)) return old === undefined ? undefined : 2;
  if (old === undefined) return 1;
  if (stat.type !== S_IFDIR || old.type !== S_IFDIR) return 0;
  // A directory replaced by a new one of the same name.
  if (isOpaque(dirFd, name)) return 2;
  const same = stat.mode === old.mode && stat.mtimeNs === old.mtimeNs && stat.sizeBytes === old.sizeBytes;
  return same ? undefined : 0;
}
