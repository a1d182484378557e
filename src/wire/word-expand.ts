import { EngineError } from "#base/errors.ts";
import { anyCharacter, exactly, type GlobToken, matchPrefixes } from "./glob.ts";

/** The value of a variable, undefined when it is not set. */
export type Lookup = (name: string) => string | undefined;

/**
 * Words of a Dockerfile as its reference documents them ("Environment replacement"): quotes, the escape character,
 * `$name`, `${name}` and the modifiers `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` `//`.
 */
export interface WordOptions {
  readonly lookup: Lookup;
  readonly escape: string;
  /** Only variables are replaced, and an escaped `$` stays one: the text of a heredoc. */
  readonly raw?: boolean;
}

/** Replacement grows text: a value used a thousand times in a loop of ARGs must not fill the memory. */
const resultLengthMax = 1024 * 1024;
const nestingMax = 64;
/** Replacing tries each place of the value: time grows with its square. */
const replaceLengthMax = 16 * 1024;

/** One word: quotes removed, variables replaced. Throws `invalid`. */
export function expandWord(text: string, options: WordOptions): string {
  return new Expander(text, options).word();
}

/** Words split at blanks that come from outside quotes, of the text or of a variable's value (EXPOSE). */
export function expandWords(text: string, options: WordOptions): string[] {
  return new Expander(text, options).words();
}

/** Splits at blanks outside quotes; quotes and escapes stay in the words (Dockerfile reference, ENV and LABEL). */
export function splitQuoted(text: string, escapeWith: string): string[] {
  const words: string[] = [];
  let word = "";
  let quote = "";
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at] as string;
    if (quote === "" && /\s/.test(character)) {
      if (word !== "") words.push(word);
      word = "";
      continue;
    }
    word += character;
    if (character === escapeWith && quote !== "'") {
      at += 1;
      word += text[at] ?? "";
    } else if (quote === "" && (character === '"' || character === "'")) quote = character;
    else if (character === quote) quote = "";
  }
  if (word !== "") words.push(word);
  return words;
}

class Expander {
  readonly #text: string;
  readonly #lookup: Lookup;
  readonly #escape: string;
  readonly #raw: boolean;
  #at = 0;
  #depth = 0;
  #words: string[] = [];
  #word: string | undefined;
  #isTop = true;

  constructor(text: string, options: WordOptions) {
    this.#text = text;
    this.#lookup = options.lookup;
    this.#escape = options.escape;
    this.#raw = options.raw === true;
  }

  word(): string {
    return this.#until("");
  }

  words(): string[] {
    this.#until("");
    if (this.#word !== undefined) this.#words.push(this.#word);
    return this.#words;
  }

  #error(reason: string): EngineError {
    return new EngineError("invalid", `failed to process ${JSON.stringify(this.#text)}: ${reason}`, {
      code: "bad-word",
    });
  }

  /** Everything up to an unquoted `stop` (which stays), or the end. */
  #until(stop: string): string {
    const top = this.#isTop;
    this.#isTop = false;
    let result = "";
    const add = (value: string, splits: boolean): void => {
      result += value;
      if (result.length > resultLengthMax) throw this.#error("the result is too long");
      if (top) this.#collect(value, splits);
    };
    while (this.#at < this.#text.length) {
      const character = this.#text[this.#at] as string;
      if (stop !== "" && stop.includes(character)) return result;
      if (this.#raw && top && character !== "$") this.#rawCharacter(character, add);
      else if (character === "'") add(this.#single(), false);
      else if (character === '"') add(this.#double(), false);
      else if (character === "$") add(this.#variable(), true);
      else if (character === this.#escape) {
        add(this.#text[this.#at + 1] ?? "", false);
        this.#at += 2;
      } else {
        add(character, true);
        this.#at += 1;
      }
    }
    if (stop !== "")
      throw this.#error(`unexpected end of statement while looking for matching ${stop.at(-1)}`);
    return result;
  }

  #rawCharacter(character: string, add: (value: string, splits: boolean) => void): void {
    const escaped = character === this.#escape ? this.#text[this.#at + 1] : undefined;
    const takesNext = escaped === "$" || escaped === this.#escape;
    add(escaped === "$" ? "$" : takesNext ? character + escaped : character, true);
    this.#at += takesNext ? 2 : 1;
  }

  #collect(value: string, splits: boolean): void {
    if (!splits) {
      this.#word = (this.#word ?? "") + value;
      return;
    }
    for (const part of value.split(/(\s+)/)) {
      if (part === "") continue;
      if (/^\s/.test(part)) {
        if (this.#word !== undefined) this.#words.push(this.#word);
        this.#word = undefined;
      } else this.#word = (this.#word ?? "") + part;
    }
  }

  #single(): string {
    const end = this.#text.indexOf("'", this.#at + 1);
    if (end < 0) throw this.#error("unexpected end of statement while looking for matching single-quote");
    const value = this.#text.slice(this.#at + 1, end);
    this.#at = end + 1;
    return value;
  }

  #double(): string {
    let value = "";
    this.#at += 1;
    for (;;) {
      const character = this.#text[this.#at];
      if (character === undefined)
        throw this.#error("unexpected end of statement while looking for matching double-quote");
      if (character === '"') {
        this.#at += 1;
        return value;
      }
      if (character === "$") value += this.#variable();
      else if (character === this.#escape) {
        const next = this.#text[this.#at + 1];
        if (next === undefined)
          throw this.#error("unexpected end of statement while looking for matching double-quote");
        // Before anything else the escape character is just itself.
        value += next === '"' || next === "$" || next === this.#escape ? next : this.#escape + next;
        this.#at += 2;
      } else {
        value += character;
        this.#at += 1;
      }
    }
  }

  #name(): string {
    const rest = this.#text.slice(this.#at, this.#at + 512);
    const name = /^(?:[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-])/.exec(rest)?.[0] ?? "";
    this.#at += name.length;
    return name;
  }

  #variable(): string {
    this.#at += 1;
    if (this.#text[this.#at] !== "{") {
      // `$-` and the like are the shell's; only names and digits are taken outside braces, and Docker drops the specials.
      const name = this.#name();
      return name === "" ? "$" : (this.#lookup(name) ?? "");
    }
    this.#at += 1;
    if (this.#text[this.#at] === "}")
      throw this.#error("syntax error: missing variable name in substitution");
    const name = this.#name();
    if (name === "") throw this.#error("syntax error: bad substitution");
    this.#depth += 1;
    if (this.#depth > nestingMax) throw this.#error("substitutions are nested too deep");
    const value = this.#modified(name);
    this.#depth -= 1;
    return value;
  }

  #modified(name: string): string {
    const value = this.#lookup(name);
    const operator = /^(?:\}|:[-+?]|[-+?]|##|#|%%|%|\/\/|\/)/.exec(
      this.#text.slice(this.#at, this.#at + 2),
    )?.[0];
    if (operator === undefined) {
      const found = this.#text[this.#at];
      if (found === undefined) throw this.#error("syntax error: missing '}' in substitution");
      const shown = found === ":" ? this.#text.slice(this.#at, this.#at + 2) : found;
      throw this.#error(`unsupported modifier (${shown}) in substitution`);
    }
    this.#at += operator.length;
    if (operator === "}") return value ?? "";
    if (operator.startsWith("/")) return this.#replaced(value ?? "", operator === "//");
    if (/^[#%]/.test(operator)) {
      const pattern = this.#pattern("}");
      this.#at += 1;
      return stripped(value ?? "", pattern, operator);
    }
    const word = this.#until("}");
    this.#at += 1;
    const isSet = operator.startsWith(":") ? (value ?? "") !== "" : value !== undefined;
    if (operator.endsWith("-")) return isSet ? (value ?? "") : word;
    if (operator.endsWith("+")) return isSet ? word : "";
    if (isSet) return value ?? "";
    const reason = value === undefined ? "is not allowed to be unset" : "is not allowed to be empty";
    throw this.#error(`${name}: ${word === "" ? reason : word}`);
  }

  #replaced(value: string, all: boolean): string {
    const pattern = this.#pattern("/}");
    let replacement = "";
    if (this.#text[this.#at] === "/") {
      this.#at += 1;
      replacement = this.#until("}");
    }
    this.#at += 1;
    if (value.length > replaceLengthMax) throw this.#error("the value is too long to be replaced in");
    return pattern === "" ? value : replaceMatches(value, pattern, replacement, all);
  }

  /** A pattern keeps its escapes: `\*` is a star. Variables in it are replaced. */
  #pattern(stop: string): string {
    let pattern = "";
    for (;;) {
      const character = this.#text[this.#at];
      if (character === undefined) throw this.#error("syntax error: missing '}' in substitution");
      if (stop.includes(character)) return pattern;
      if (character === "$") pattern += this.#variable();
      else if (character === this.#escape) {
        pattern += `\\${this.#text[this.#at + 1] ?? ""}`;
        this.#at += 2;
      } else {
        pattern += character;
        this.#at += 1;
      }
      if (pattern.length > resultLengthMax) throw this.#error("the result is too long");
    }
  }
}

/** A shell pattern: `*`, `?`, `\x`. */
function globOf(pattern: string): GlobToken[] {
  const tokens: GlobToken[] = [];
  for (let at = 0; at < pattern.length; at += 1) {
    const character = pattern[at] as string;
    if (character === "*") tokens.push({ kind: "many", accepts: anyCharacter });
    else if (character === "?") tokens.push({ kind: "one", accepts: anyCharacter });
    else {
      if (character === "\\" && at + 1 < pattern.length) at += 1;
      tokens.push({ kind: "one", accepts: exactly(pattern[at] as string) });
    }
  }
  return tokens;
}

/** Length of the shortest or longest prefix that matches, undefined for none. */
function prefixLength(tokens: readonly GlobToken[], text: string, longest: boolean): number | undefined {
  let found: number | undefined;
  matchPrefixes(tokens, text, (length) => {
    found = length;
    return longest;
  });
  return found;
}

function stripped(value: string, pattern: string, operator: string): string {
  const longest = operator.length === 2;
  const tokens = globOf(pattern);
  if (operator.startsWith("#")) return value.slice(prefixLength(tokens, value, longest) ?? 0);
  const length = prefixLength(tokens.reverse(), [...value].reverse().join(""), longest);
  return length === undefined ? value : value.slice(0, value.length - length);
}

function replaceMatches(value: string, pattern: string, replacement: string, all: boolean): string {
  const tokens = globOf(pattern);
  let result = "";
  let at = 0;
  while (at < value.length) {
    const length = prefixLength(tokens, value.slice(at), true) ?? 0;
    if (length === 0) {
      result += value[at];
      at += 1;
      continue;
    }
    result += replacement;
    at += length;
    if (!all) break;
  }
  return result + value.slice(at);
}

/** The JSON form of arguments, or undefined where the text is none: Docker then takes it for plain text. */
export function jsonWords(text: string): string[] | undefined {
  if (!text.startsWith("[")) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    if (Array.isArray(value) && value.every((word) => typeof word === "string")) return value as string[];
  } catch {
    // Not JSON.
  }
  return undefined;
}
