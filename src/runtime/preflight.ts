import { type BigIntStats, constants, statSync } from "node:fs";
import { posix } from "node:path";
import { bytesOfText } from "#base/byte-string.ts";
import { EngineError, errnoOf } from "#base/errors.ts";
import { mkdirAllBeneath, openBeneath, openRoot, readlinkBeneath, statBeneath } from "#sys/beneath.ts";
import { closeFd, O_PATH, symlinkAt } from "#sys/files.ts";
import type { OciMount } from "#wire/oci-runtime.ts";

/**
 * Before a runtime runs: every mount target and the working directory is resolved beneath the root filesystem and made
 * where it is missing. The runtime gets paths without symbolic links in them. Both runtimes of Debian 12 follow a `/dev`
 * that is a symlink out onto the host, so that such an image is refused here.
 */
const S_IFMT = 0o170000n;
const S_IFDIR = 0o040000n;
const S_IFLNK = 0o120000n;
/** As the kernel: MAXSYMLINKS. */
const linksMax = 40;
const pathBytesMax = 4096;

function refused(message: string): EngineError {
  return new EngineError("invalid", message, { code: "preflight" });
}

/** A place inside the container's tree to be: the root filesystem or the source of a bind mounted in it. */
export interface TreeRoot {
  readonly fd: number;
  /** Path of this tree's root as the container sees it: "" for the root filesystem. */
  readonly at: string;
}

export interface Resolved {
  /** As the container sees it, without symlinks. */
  readonly path: string;
  readonly tree: TreeRoot;
  /** Relative to the tree; "" is its root. */
  readonly inTree: string;
  readonly status: BigIntStats | undefined;
}

/**
 * Resolves `path` as a process in the container would, links and `..` included, but never following a link in the host.
 * What does not exist yet keeps its name. `enter` says which other tree is mounted at a container path.
 */
export function resolveInside(
  rootFd: number,
  path: string,
  enter: (containerPath: string) => TreeRoot | "opaque" | undefined = () => undefined,
): Resolved | { readonly opaqueAt: string; readonly path: string } {
  const root: TreeRoot = { fd: rootFd, at: "" };
  let pending = path.split("/");
  let walked: string[] = [];
  let tree = root;
  let status: BigIntStats | undefined = statBeneath(rootFd, "");
  let links = 0;
  while (pending.length > 0) {
    const name = pending.shift()!;
    if (name === "" || name === ".") continue;
    if (name === "..") {
      pending = [...walked.slice(0, -1), ...pending];
      walked = [];
      tree = root;
      status = statBeneath(rootFd, "");
      continue;
    }
    const here = `/${[...walked, name].join("/")}`;
    const mounted = enter(here);
    if (mounted === "opaque") {
      // What the tree above holds by then is unknown: a way back out of it cannot be resolved.
      if (pending.includes("..")) throw refused(`cannot resolve ${path}: it leaves the mount at ${here}`);
      return { opaqueAt: here, path: posix.join(here, ...pending.map((part) => part || ".")) };
    }
    if (mounted !== undefined) tree = mounted;
    const inTree = here.slice(tree.at.length + 1);
    status = statBeneath(tree.fd, inTree, { noFollow: true });
    if (status !== undefined && (status.mode & S_IFMT) === S_IFLNK) {
      links += 1;
      if (links > linksMax) throw refused(`too many levels of symbolic links: ${path}`);
      const target = readlinkBeneath(tree.fd, inTree);
      pending = [...(target.startsWith("/") ? [] : walked), ...target.split("/"), ...pending];
      if (pending.join("/").length > pathBytesMax) throw refused(`file name too long: ${path}`);
      walked = [];
      tree = root;
      status = statBeneath(rootFd, "");
      continue;
    }
    walked.push(name);
  }
  const resolved = walked.length === 0 ? "/" : `/${walked.join("/")}`;
  return { path: resolved, tree, inTree: resolved.slice(tree.at.length + 1), status };
}

function isDirectory(status: BigIntStats | undefined): boolean {
  return status !== undefined && (status.mode & S_IFMT) === S_IFDIR;
}

/** `/dev`, `/proc`, `/sys` and `/etc` must be directories of the image itself, and `/run` where something is mounted below. */
function checkTopDirectories(rootFd: number, mounts: readonly OciMount[]): void {
  const below = (name: string): boolean =>
    mounts.some(({ destination }) => destination === name || destination.startsWith(`${name}/`));
  for (const name of ["/dev", "/proc", "/sys", "/etc", "/run"]) {
    // mtab is made in /etc.
    const always = name !== "/run";
    if (!always && !below(name)) continue;
    const status = statBeneath(rootFd, name, { noFollow: true });
    if (status === undefined) {
      if (always) mkdirAllBeneath(rootFd, name, 0o755, 0, 0);
    } else if ((status.mode & S_IFMT) === S_IFLNK) {
      throw refused(`refusing to start the container: ${name} of the image is a symbolic link`);
    } else if (!isDirectory(status)) {
      throw refused(`refusing to start the container: ${name} of the image is not a directory`);
    }
  }
}

// What may be mounted over single files of /proc: the list both runtimes agree on.
const procTargets = new Set([
  "/proc/cpuinfo",
  "/proc/diskstats",
  "/proc/loadavg",
  "/proc/meminfo",
  "/proc/net/dev",
  "/proc/slabinfo",
  "/proc/stat",
  "/proc/swaps",
  "/proc/sys/kernel/ns_last_pid",
  "/proc/uptime",
]);

function makeTarget(rootFd: number, target: Resolved, source: string, asDirectory: boolean): void {
  if (target.status !== undefined) {
    if (isDirectory(target.status) === asDirectory) return;
    throw refused(
      `failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: error mounting ${JSON.stringify(source)} to rootfs at ${JSON.stringify(target.path)}: not a directory: unknown: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type`,
    );
  }
  if (asDirectory) {
    mkdirAllBeneath(rootFd, target.path, 0o755, 0, 0);
    return;
  }
  mkdirAllBeneath(rootFd, posix.dirname(target.path), 0o755, 0, 0);
  const flags = constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW | constants.O_WRONLY;
  closeFd(openBeneath(rootFd, target.path, flags, 0o755));
}

/** A bind's source decides what its target must be. Its path is the administrator's. */
function sourceIsDirectory(mount: OciMount): boolean {
  if (mount.type !== "bind") return true;
  try {
    return statSync(mount.source).isDirectory();
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    throw refused(`invalid mount config for type "bind": bind source path does not exist: ${mount.source}`);
  }
}

function insideAny(path: string, parents: readonly string[]): boolean {
  return parents.some((parent) => path.startsWith(`${parent}/`));
}

/** crun asks for recursive read-only on an open directory; a file has nothing below it. */
function withoutRecursion(mount: OciMount): OciMount {
  if (!mount.options.includes("rro") || sourceIsDirectory(mount)) return mount;
  return { ...mount, options: mount.options.filter((option) => option !== "rro") };
}

/** Mounts with resolved destinations; targets in the root filesystem exist afterwards. */
function resolveMounts(rootFd: number, mounts: readonly OciMount[]): OciMount[] {
  const mounted: string[] = [];
  return mounts.map(withoutRecursion).map((mount) => {
    // Below another mount of the list the target is not in the root filesystem: the runtime makes it, beneath its root.
    if (insideAny(mount.destination, mounted)) {
      if (mount.destination.startsWith("/proc/") && !procTargets.has(mount.destination)) {
        throw refused(`"${mount.destination}" cannot be mounted because it is inside /proc`);
      }
      mounted.push(mount.destination);
      return mount;
    }
    const target = resolveInside(rootFd, mount.destination, (path) =>
      mounted.includes(path) ? "opaque" : undefined,
    );
    if ("opaqueAt" in target) {
      if (target.path === "/proc" || target.path.startsWith("/proc/")) {
        throw refused(`"${mount.destination}" cannot be mounted because it is inside /proc`);
      }
      mounted.push(target.path);
      return { ...mount, destination: target.path };
    }
    if (target.path === "/") throw refused("invalid specification: destination can't be '/'");
    makeTarget(rootFd, target, mount.source, sourceIsDirectory(mount));
    mounted.push(target.path);
    return { ...mount, destination: target.path };
  });
}

/** Magic links live here: a working directory below them may be a descriptor of the runtime, thus of the host. */
function isMagic(path: string): boolean {
  return (
    /^\/proc\/(?:self|thread-self|\d+)(?:\/|$)/.test(path) ||
    /^\/dev\/(?:fd|stdin|stdout|stderr)(?:\/|$)/.test(path)
  );
}

/**
 * The working directory without symlinks, made where it is missing (Docker does so, as root). Followed through bind
 * mounts, since a volume's links are as hostile as the image's; below other mounts the runtime makes it.
 */
function resolveWorkingDir(rootFd: number, workingDir: string, mounts: readonly OciMount[]): string {
  const opened = new Map<string, TreeRoot | "opaque">();
  const byTarget = new Map(mounts.map((mount) => [mount.destination, mount]));
  const enter = (path: string): TreeRoot | "opaque" | undefined => {
    const mount = byTarget.get(path);
    if (mount === undefined) return undefined;
    let tree = opened.get(path);
    if (tree === undefined) {
      tree =
        mount.type === "bind" && sourceIsDirectory(mount)
          ? { fd: openRoot(mount.source), at: path }
          : "opaque";
      opened.set(path, tree);
    }
    return tree;
  };
  try {
    const target = resolveInside(rootFd, workingDir === "" ? "/" : workingDir, enter);
    if (isMagic(target.path))
      throw refused(`the working directory ${workingDir} is inside ${target.path.split("/", 3).join("/")}`);
    if ("opaqueAt" in target) return target.path;
    if (target.status === undefined) {
      mkdirAllBeneath(target.tree.fd, target.inTree, 0o755, 0, 0);
    } else if (!isDirectory(target.status)) {
      throw refused(`Cannot mkdir: ${target.path} is not a directory`);
    }
    return target.path;
  } finally {
    for (const tree of opened.values()) if (tree !== "opaque") closeFd(tree.fd);
  }
}

/** `/.dockerenv`, by which programs know that they run in a container, and `/etc/mtab`: usually from the scaffold layer. */
function makeMarkers(rootFd: number): void {
  if (statBeneath(rootFd, ".dockerenv", { noFollow: true }) === undefined) {
    const flags = constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW | constants.O_WRONLY;
    closeFd(openBeneath(rootFd, ".dockerenv", flags, 0o755));
  }
  if (statBeneath(rootFd, "etc/mtab", { noFollow: true }) !== undefined) return;
  mkdirAllBeneath(rootFd, "etc", 0o755, 0, 0);
  const etc = openBeneath(rootFd, "etc", O_PATH | constants.O_DIRECTORY);
  try {
    symlinkAt(bytesOfText("/proc/mounts"), etc, bytesOfText("mtab"));
  } finally {
    closeFd(etc);
  }
}

export interface Preflight {
  readonly mounts: readonly OciMount[];
  readonly workingDir: string;
}

/** Throws `invalid` before anything outside the root filesystem is touched. `mounts` as `planMounts` gives them. */
export function preflight(rootFd: number, mounts: readonly OciMount[], workingDir: string): Preflight {
  checkTopDirectories(rootFd, mounts);
  makeMarkers(rootFd);
  const resolved = resolveMounts(rootFd, mounts);
  return { mounts: resolved, workingDir: resolveWorkingDir(rootFd, workingDir, resolved) };
}
