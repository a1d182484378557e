import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { readSmallFile, type SourceTree } from "./source-tree.ts";

/** Highest id: the one above means "leave as it is" to chown(2). */
const idMax = 0xfffffffe;

function invalid(message: string): EngineError {
  return new EngineError("invalid", message, { code: "chown" });
}

/**
 * `user[:group]` of `--chown`, by the passwd files of the image below. A name without a group takes the user's own group, a
 * bare number its own (Dockerfile reference, "COPY --chown"). Undefined for "".
 */
export function resolveOwner(tree: SourceTree, text: string): { uid: number; gid: number } | undefined {
  if (text === "") return undefined;
  const parts = text.split(":");
  if (parts.length > 2 || parts[0] === "")
    throw invalid(`invalid chown string parse: ${JSON.stringify(text)}`);
  const [user = "", group] = parts;
  const found = lookup(tree, "etc/passwd", user);
  if (found === undefined && !isNumber(user))
    throw invalid(
      `unable to convert uid/gid chown string to host mapping: can't find uid for user ${user}: no such user: ${user}`,
    );
  const uid = found?.id ?? idOf(user);
  if (group === undefined || group === "") return { uid, gid: isNumber(user) ? uid : (found?.group ?? uid) };
  const foundGroup = lookup(tree, "etc/group", group);
  if (foundGroup === undefined && !isNumber(group))
    throw invalid(
      `unable to convert uid/gid chown string to host mapping: can't find gid for group ${group}: no such group: ${group}`,
    );
  return { uid, gid: isNumber(group) ? idOf(group) : (foundGroup?.id ?? 0) };
}

function isNumber(text: string): boolean {
  return /^\d{1,10}$/.test(text);
}

function idOf(text: string): number {
  const id = Number(text);
  if (!Number.isInteger(id) || id < 0 || id > idMax)
    throw invalid(`uids and gids must be in range 0-${idMax}`);
  return id;
}

/** A line of passwd or group by its name. Names that are numbers are numbers. */
function lookup(
  tree: SourceTree,
  path: string,
  name: string,
): { id: number; group: number | undefined } | undefined {
  if (isNumber(name)) return undefined;
  const text = readSmallFile(tree, path, limits.passwdBytesMax)?.toString("latin1") ?? "";
  for (const line of text.split("\n")) {
    const fields = line.split(":");
    if (fields[0] !== name || !isNumber(fields[2] ?? "")) continue;
    return {
      id: idOf(fields[2] ?? ""),
      group: isNumber(fields[3] ?? "") ? idOf(fields[3] ?? "") : undefined,
    };
  }
  return undefined;
}
