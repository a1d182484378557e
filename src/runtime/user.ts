import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { EngineError, errnoOf, SyscallError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { openBeneath } from "#sys/beneath.ts";
import { O_PATH } from "#sys/files.ts";

/**
 * `-u` against the container's own /etc/passwd and /etc/group, which an image may have filled with anything: files are
 * read beneath its root, regular ones only, up to a bound, and nothing of the container is executed for it.
 */
export interface ResolvedUser {
  readonly uid: number;
  readonly gid: number;
  /** The primary group first: without it a process could shed it and pass a "deny this group" permission (setgroups). */
  readonly additionalGids: readonly number[];
  readonly home: string;
}

/** Ids above this are refused as Docker does: -1 and 2^32-1 mean "no change" to the kernel. */
const idMax = 2 ** 31 - 1;

interface PasswdEntry {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

interface GroupEntry {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

// Docker answers 500: it finds out when it starts the container.
function userError(message: string): EngineError {
  return new EngineError("system", message, { code: "user" });
}

/** A decimal number as Go's Atoi takes it, or undefined. */
function parseNumber(text: string): number | undefined {
  return /^[+-]?\d{1,20}$/.test(text) ? Number(text) : undefined;
}

function parseId(text: string): number | undefined {
  const id = /^\d{1,10}$/.test(text) ? Number(text) : undefined;
  return id !== undefined && id <= idMax ? id : undefined;
}

function checkedId(id: number): number {
  if (id < 0 || id > idMax) throw userError(`uids and gids must be in range 0-${idMax}`);
  return id;
}

// Lines that do not parse are skipped: taking a bad number for 0, as some engines do, would make its owner root.
function* parsePasswd(text: string): Generator<PasswdEntry> {
  for (const line of text.split("\n")) {
    const [name = "", , uidText = "", gidText = "", , home = ""] = line.trim().split(":");
    const uid = parseId(uidText);
    const gid = parseId(gidText);
    if (name !== "" && uid !== undefined && gid !== undefined) yield { name, uid, gid, home };
  }
}

function* parseGroup(text: string): Generator<GroupEntry> {
  for (const line of text.split("\n")) {
    const [name = "", , gidText = "", members = ""] = line.trim().split(":");
    const gid = parseId(gidText);
    if (name !== "" && gid !== undefined) yield { name, gid, members: members.split(",") };
  }
}

/** Text of a small regular file beneath the root, "" where there is none. Opens neither FIFOs nor devices. */
function readSmallFile(rootFd: number, path: string): string {
  let found: number;
  try {
    found = openBeneath(rootFd, path, O_PATH);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOENT" || errno === "ENOTDIR") return "";
    throw error instanceof SyscallError ? userError(`/${path} of the container: ${error.message}`) : error;
  }
  try {
    const stats = fstatSync(found);
    if (!stats.isFile()) throw userError(`/${path} of the container is not a regular file`);
    if (stats.size > limits.passwdBytesMax) {
      throw userError(`/${path} of the container is larger than ${limits.passwdBytesMax} bytes`);
    }
    // The very inode that was looked at, whatever the name means by now.
    const fd = openSync(`/proc/self/fd/${found}`, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const buffer = Buffer.alloc(stats.size);
      return buffer.toString("utf8", 0, readSync(fd, buffer, 0, buffer.length, 0));
    } finally {
      closeSync(fd);
    }
  } finally {
    closeSync(found);
  }
}

function safeHome(home: string): string {
  return home.startsWith("/") && !/[\0-\x1f]/.test(home) ? home : "/";
}

export interface UserRequest {
  /** "", name, uid, name:group, uid:gid and the mixed forms. */
  readonly user: string;
  readonly groupAdd: readonly string[];
}

/** Pure part of `resolveUser`. Throws with Docker's words for unknown names and ids out of range. */
export function resolveUserIn(passwd: string, groupText: () => string, request: UserRequest): ResolvedUser {
  const colon = request.user.indexOf(":");
  const userPart = colon < 0 ? request.user : request.user.slice(0, colon);
  const groupPart = colon < 0 ? "" : request.user.slice(colon + 1);
  const number = parseNumber(userPart);
  let entry: PasswdEntry | undefined;
  for (const candidate of parsePasswd(passwd)) {
    // A number is always an id, never the name of an entry that happens to look like one.
    const wanted = userPart === "" ? 0 : number;
    if (wanted === undefined ? candidate.name === userPart : candidate.uid === wanted) {
      entry = candidate;
      break;
    }
  }
  if (entry === undefined && userPart !== "" && number === undefined) {
    throw userError(`unable to find user ${userPart}: no matching entries in passwd file`);
  }
  const uid = checkedId(entry?.uid ?? number ?? 0);
  const groups = resolveGroups(groupText, groupPart, entry, request.groupAdd);
  return { uid, ...groups, home: safeHome(entry?.home ?? "/") };
}

function resolveGroups(
  groupText: () => string,
  groupPart: string,
  entry: PasswdEntry | undefined,
  groupAdd: readonly string[],
): { gid: number; additionalGids: number[] } {
  const needed = groupPart !== "" || entry !== undefined || groupAdd.length > 0;
  const groups = needed ? [...parseGroup(groupText())] : [];
  const named = (wanted: string): number | undefined => {
    const number = parseNumber(wanted);
    if (number !== undefined) return checkedId(number);
    return groups.find((group) => group.name === wanted)?.gid;
  };
  let gid = entry?.gid ?? 0;
  const additional = new Set<number>();
  if (groupPart !== "") {
    const found = named(groupPart);
    if (found === undefined) {
      throw userError(`unable to find group ${groupPart}: no matching entries in group file`);
    }
    gid = found;
  }
  additional.add(gid);
  if (groupPart === "" && entry !== undefined) {
    for (const group of groups) if (group.members.includes(entry.name)) additional.add(group.gid);
  }
  for (const wanted of groupAdd) {
    const found = named(wanted);
    if (found === undefined)
      throw userError(`Unable to find group ${wanted}: no matching entries in group file`);
    additional.add(found);
  }
  return { gid, additionalGids: [...additional] };
}

/** Resolves `-u` and `--group-add` in the root filesystem behind `rootFd`. Never blocks; throws `system` as Docker does. */
export function resolveUser(rootFd: number, request: UserRequest): ResolvedUser {
  return resolveUserIn(
    readSmallFile(rootFd, "etc/passwd"),
    () => readSmallFile(rootFd, "etc/group"),
    request,
  );
}
