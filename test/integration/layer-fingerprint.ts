import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync } from "node:fs";
import type { ByteString } from "#base/byte-string.ts";
import { walkTree } from "#snapshot/tree-walk.ts";
import { S_IFDIR, S_IFLNK, S_IFREG, statAt } from "#sys/file-status.ts";
import { openNameAt, readlinkAt } from "#sys/files.ts";
import { getXattrAt, listXattrAt } from "#sys/xattr.ts";

/**
 * Everything an observer can see of a tree: a line a name with type, mode, owner, size, time, target, device, attributes,
 * content and which names are one file. With `inodes` also each file's identity, to tell whether something was replaced.
 */
export function fingerprint(
  root: string,
  options: { inodes?: boolean; directoryTimes?: boolean } = {},
): string[] {
  const lines: string[] = [];
  const firstNames = new Map<string, string>();
  const describe = (dirFd: number, name: ByteString, path: string): void => {
    const stat = statAt(dirFd, name);
    if (stat === undefined) return;
    const first = firstNames.get(stat.identity) ?? path;
    firstNames.set(stat.identity, first);
    const attributes = listXattrAt(dirFd, name)
      .sort()
      .map((attribute) => `${attribute}=${getXattrAt(dirFd, name, attribute)?.toString("hex")}`);
    const isDirectory = stat.type === S_IFDIR;
    const showTime = !isDirectory || options.directoryTimes !== false;
    lines.push(
      [
        Buffer.from(path, "latin1").toString("utf8"),
        stat.type.toString(8),
        stat.mode.toString(8),
        `${stat.uid}:${stat.gid}`,
        isDirectory ? "-" : stat.sizeBytes,
        showTime ? stat.mtimeNs : "-",
        `${stat.deviceMajor},${stat.deviceMinor}`,
        stat.type === S_IFLNK ? readlinkAt(dirFd, name) : "",
        stat.type === S_IFREG ? hashOf(dirFd, name) : "",
        first === path ? "" : `= ${first}`,
        attributes.join(" "),
        options.inodes === true ? stat.identity : "",
      ].join(" | "),
    );
  };
  const rootFd = openSync(root, "r");
  try {
    describe(rootFd, "." as ByteString, ".");
    walkTree(rootFd, ({ dirFd, name, path }) => {
      describe(dirFd, name, path);
      return undefined;
    });
  } finally {
    closeSync(rootFd);
  }
  return lines;
}

function hashOf(dirFd: number, name: ByteString): string {
  const fd = openNameAt(dirFd, name, 0);
  try {
    return createHash("sha256").update(readFileSync(fd)).digest("hex").slice(0, 16);
  } finally {
    closeSync(fd);
  }
}
