import { EngineError } from "#base/errors.ts";
import { anyCharacter, exactly, type GlobToken, matchesAll, notSlash } from "#wire/glob.ts";

/**
 * `.dockerignore`: which files of a build context count. Patterns are Go's `filepath.Match` with `**` for any number of
 * directories and a leading `!` that takes a file back in; the last pattern that matches decides (Docker's reference,
 * ".dockerignore file"). Paths are relative, with slashes.
 */
export interface IgnorePattern {
  /** Cleaned, without `!`. */
  readonly text: string;
  readonly exclusion: boolean;
  matches(path: string): boolean;
}

/** A context with more patterns than this is no honest one: each is tried on each file. */
const patternsMax = 10_000;

function badPattern(text: string): EngineError {
  return new EngineError(
    "invalid",
    `error checking context: syntax error in pattern: ${JSON.stringify(text)}`,
    {
      code: "bad-pattern",
    },
  );
}

/** Go's `path.Clean`. */
export function cleanSlashPath(path: string): string {
  const rooted = path.startsWith("/");
  const names: string[] = [];
  for (const name of path.split("/")) {
    if (name === "" || name === ".") continue;
    if (name !== "..") names.push(name);
    else if (names.length > 0 && names.at(-1) !== "..") names.pop();
    else if (!rooted) names.push("..");
  }
  const joined = names.join("/");
  if (rooted) return `/${joined}`;
  return joined === "" ? "." : joined;
}

/** The patterns of an ignore file, cleaned; comments and empty lines are left out. */
export function readIgnoreFile(text: string): string[] {
  const patterns: string[] = [];
  for (const [index, raw] of text.split("\n").entries()) {
    const line = index === 0 ? raw.replace(/^\uFEFF/, "") : raw;
    if (line.startsWith("#")) continue;
    let pattern = line.trim();
    if (pattern === "") continue;
    const exclusion = pattern.startsWith("!");
    if (exclusion) pattern = pattern.slice(1).trim();
    if (pattern !== "") {
      pattern = cleanSlashPath(pattern);
      if (pattern.length > 1 && pattern.startsWith("/")) pattern = pattern.slice(1);
    }
    patterns.push(exclusion ? `!${pattern}` : pattern);
    if (patterns.length > patternsMax) {
      throw new EngineError("invalid", `more than ${patternsMax} ignore patterns`, { code: "too-many" });
    }
  }
  return patterns;
}

/** One character class of Go's Match, from `[`: its test and where it ends. Undefined when malformed. */
function classAt(
  pattern: string,
  start: number,
): { accepts: (character: string) => boolean; next: number } | undefined {
  let at = start + 1;
  const negated = pattern[at] === "^";
  if (negated) at += 1;
  const ranges: [string, string][] = [];
  const one = (): string | undefined => {
    let character = pattern[at];
    if (character === undefined || character === "-" || character === "]") return undefined;
    if (character === "\\") {
      at += 1;
      character = pattern[at];
      if (character === undefined) return undefined;
    }
    at += 1;
    return character;
  };
  for (;;) {
    if (pattern[at] === "]" && ranges.length > 0) break;
    const low = one();
    if (low === undefined) return undefined;
    let high: string | undefined = low;
    if (pattern[at] === "-") {
      at += 1;
      high = one();
    }
    // A class that does not end is malformed, as is a range without its upper end.
    if (high === undefined || at >= pattern.length) return undefined;
    ranges.push([low, high]);
  }
  const accepts = (character: string): boolean =>
    character !== "/" && ranges.some(([low, high]) => low <= character && character <= high) !== negated;
  return { accepts, next: at + 1 };
}

/** `deep`: `**` crosses directories. Undefined for a syntax error. */
function tokensOf(pattern: string, deep: boolean): GlobToken[] | undefined {
  const tokens: GlobToken[] = [];
  let at = 0;
  while (at < pattern.length) {
    const character = pattern[at] as string;
    at += 1;
    if (character === "*") {
      if (!deep || pattern[at] !== "*") {
        tokens.push({ kind: "many", accepts: notSlash });
        continue;
      }
      at += 1;
      // `**/` is also no directory at all.
      if (pattern[at] === "/") at += 1;
      tokens.push(at >= pattern.length ? { kind: "many", accepts: anyCharacter } : { kind: "directories" });
    } else if (character === "?") tokens.push({ kind: "one", accepts: notSlash });
    else if (character === "[") {
      const found = classAt(pattern, at - 1);
      if (found === undefined) return undefined;
      tokens.push({ kind: "one", accepts: found.accepts });
      at = found.next;
    } else {
      const literal = character === "\\" ? pattern[at] : character;
      if (literal === undefined) return undefined;
      if (character === "\\") at += 1;
      tokens.push({ kind: "one", accepts: exactly(literal) });
    }
  }
  return tokens;
}

function matcherOf(pattern: string, deep: boolean): ((path: string) => boolean) | undefined {
  if (!hasWildcards(pattern)) return (path) => path === pattern;
  const tokens = tokensOf(pattern, deep);
  return tokens === undefined ? undefined : (path) => matchesAll(tokens, path);
}

/** Go's `filepath.Match` on slash paths. Throws `invalid` for a malformed pattern. */
export function matchPath(pattern: string, path: string): boolean {
  const matches = matcherOf(pattern, false);
  if (matches === undefined) throw badPattern(pattern);
  return matches(path);
}

/** Whether a path is a pattern rather than a name. */
export function hasWildcards(path: string): boolean {
  return /[*?[\\]/.test(path);
}

function parsePattern(raw: string): IgnorePattern | undefined {
  let text = raw.trim();
  if (text === "") return undefined;
  text = cleanSlashPath(text);
  const exclusion = text.startsWith("!");
  if (exclusion) {
    if (text.length === 1) {
      throw new EngineError("invalid", `illegal exclusion pattern: "!"`, { code: "bad-pattern" });
    }
    text = text.slice(1);
  }
  const matches = matcherOf(text, true);
  if (matches === undefined) throw badPattern(text);
  return { text, exclusion, matches };
}

/** Patterns in order. A matched directory takes along all that is in it, until a later `!` takes some back. */
export class IgnoreRules {
  readonly #patterns: readonly IgnorePattern[];

  /** Throws `invalid` for a malformed pattern. */
  constructor(patterns: readonly string[]) {
    this.#patterns = patterns.map(parsePattern).filter((pattern) => pattern !== undefined);
  }

  get isEmpty(): boolean {
    return this.#patterns.length === 0;
  }

  /** Whether a file is left out. */
  excludes(path: string): boolean {
    let excluded = false;
    const parents = parentsOf(path);
    for (const pattern of this.#patterns) {
      // Only a pattern that could change the verdict so far is tried.
      if (pattern.exclusion !== excluded) continue;
      if (pattern.matches(path) || parents.some((parent) => pattern.matches(parent))) {
        excluded = !pattern.exclusion;
      }
    }
    return excluded;
  }

  /** Whether nothing below an excluded directory can be taken back in, so that it need not be walked. */
  excludesAllBelow(directory: string): boolean {
    if (!this.excludes(directory)) return false;
    const inside = `${directory}/`;
    return !this.#patterns.some(
      ({ exclusion, text }) =>
        exclusion && (text.includes("**") || hasWildcards(text) || `${text}/`.startsWith(inside)),
    );
  }
}

function parentsOf(path: string): string[] {
  const parents: string[] = [];
  for (let at = path.indexOf("/"); at > 0; at = path.indexOf("/", at + 1)) parents.push(path.slice(0, at));
  return parents;
}
