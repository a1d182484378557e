import assert from "node:assert/strict";

/** Folders of the five-layer image. */
const imageFolders =
  "bin boot etc home lib lib64 media mnt opt root sbin srv usr var layer1 layer2 layer3 layer4".split(" ");

/**
 * A shell script for a container: names, kinds, modes, owners, sizes, times, links and bytes of every file below these
 * folders of the root, as two lines. Of busybox it needs `find` without `-printf`, so that both lists are made by `stat`.
 */
export function fingerprint(...folders: readonly string[]): string {
  return script(folders, "%n %f %u %g %Y");
}

/** The same without the times of folders, which engines give another way where they make or copy one. */
export function fingerprintOfFiles(...folders: readonly string[]): string {
  return script(folders, "%n %f %u %g");
}

function script(folders: readonly string[], ofFolder: string): string {
  const names = (folders.length === 0 ? imageFolders : folders).join(" ");
  return [
    "cd /",
    // Left out: what the engine puts into /etc, whose time dockerd changes by it, and sizes of folders.
    "own='-path /etc/hosts -o -path /etc/hostname -o -path /etc/resolv.conf -o -path /etc/mtab'",
    `for folder in ${names}; do`,
    "find /$folder \\( $own \\) -prune -o ! -type d -print0 | xargs -0 -r stat -c '%n %f %u %g %s %Y %N' >>/tmp/names",
    `find /$folder \\( $own \\) -prune -o -type d ! -path /etc -print0 | xargs -0 -r stat -c '${ofFolder}' >>/tmp/names`,
    "find /$folder \\( $own \\) -prune -o -type f -print0 | xargs -0 -r sha256sum >>/tmp/sums",
    "done",
    "LC_ALL=C sort /tmp/names /tmp/sums >/tmp/list",
    "wc -l </tmp/list",
    "sha256sum </tmp/list",
  ].join("\n");
}

/** Every side has done the same, as far as `seen` tells. */
export function assertSame(row: string, seen: ReadonlyMap<string, string>): void {
  const distinct = new Set(seen.values());
  assert.equal(distinct.size, 1, `${row}: the engines differ: ${JSON.stringify([...seen])}`);
  console.log(`${row}: the same on every side: ${[...distinct][0]!.trim().replace(/\s+/g, " ")}`);
}
