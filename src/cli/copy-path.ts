/** Paths of `cp`: what a trailing slash or `/.` means, and which name an archive's entries get. Pure. */
import { posix } from "node:path";
import { ExitError } from "./command.ts";

/** One end of a copy. */
export interface CopyEnd {
  readonly path: string;
  readonly exists: boolean;
  readonly isDirectory: boolean;
  /** The name that was asked for, where links have led to one of another. */
  readonly rebaseName: string;
}

/** Where an archive is to be unpacked, and what becomes of its names. */
export interface CopyPlan {
  readonly directory: string;
  /** The first occurrence of `from` in each name becomes `to`. */
  readonly rename: { readonly from: string; readonly to: string } | undefined;
}

/** `container:path`, or a path of this machine: absolute, without a colon, or with a dot in front of it. */
export function splitArgument(argument: string): { readonly container: string; readonly path: string } {
  const colon = argument.indexOf(":");
  const isLocal = argument.startsWith("/") || colon < 0 || argument.startsWith(".");
  if (isLocal) return { container: "", path: argument };
  return { container: argument.slice(0, colon), path: argument.slice(colon + 1) };
}

function endsInDot(path: string): boolean {
  return path === "" || posix.basename(path) === ".";
}

/** Go's `filepath.Clean`. */
function clean(path: string): string {
  const normal = posix.normalize(path);
  return normal.length > 1 && normal.endsWith("/") ? normal.slice(0, -1) : normal;
}

/** Go's `filepath.Base`. */
function base(path: string): string {
  if (path === "") return ".";
  return posix.basename(path) || "/";
}

/** Keeps what a path ended in: `.` or a slash means the content of a directory, or that it must be one. */
export function withEnding(cleaned: string, original: string): string {
  let path = cleaned;
  if (!endsInDot(path) && endsInDot(original)) path += path.endsWith("/") ? "." : "/.";
  if (!path.endsWith("/") && original.endsWith("/")) path += "/";
  return path;
}

/** Directory and last name; the last name of `x/.` is `.`. */
export function splitEntry(path: string): { readonly directory: string; readonly name: string } {
  let cleaned = clean(path);
  if (endsInDot(path)) cleaned += "/.";
  // Not normalised again: `x/.` lies in `x`.
  const slash = cleaned.lastIndexOf("/");
  const directory = slash < 0 ? "." : slash === 0 ? "/" : cleaned.slice(0, slash);
  return { directory: clean(directory), name: base(cleaned) };
}

/** The end of a resolved path as it was asked for, and the name it was asked by where that is another. */
export function rebased(
  path: string,
  resolved: string,
): { readonly path: string; readonly rebaseName: string } {
  const kept = withEnding(resolved, path);
  return { path: kept, rebaseName: base(path) === base(kept) ? "" : base(path) };
}

/** What a copy does, by what its ends are. Throws Docker's errors for a directory onto a file and the like. */
export function planCopy(source: CopyEnd, destination: CopyEnd): CopyPlan {
  if (destination.exists && destination.isDirectory) {
    return { directory: destination.path, rename: undefined };
  }
  if (destination.exists && source.isDirectory) throw new ExitError(1, "cannot copy directory");
  const isNewDirectory = destination.path.endsWith("/") || endsInDot(destination.path);
  if (!destination.exists && !source.isDirectory && isNewDirectory) {
    throw new ExitError(1, "no such directory");
  }
  const { directory, name } = splitEntry(destination.path);
  const from = source.rebaseName === "" ? splitEntry(source.path).name : source.rebaseName;
  return { directory, rename: { from, to: name } };
}

/** A name in an archive after a plan's renaming; works on bytes as on text. */
export function renamed(name: string, rename: CopyPlan["rename"]): string {
  if (rename === undefined) return name;
  // Every name of an archive of the root begins with it.
  const from = rename.from === "/" ? "" : rename.from;
  const at = name.indexOf(from);
  return at < 0 ? name : name.slice(0, at) + rename.to + name.slice(at + from.length);
}
