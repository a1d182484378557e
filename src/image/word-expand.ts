import { EngineError } from "#base/errors.ts";

/**
 * Words of Dockerfile instructions: quotes, backslash escapes, `$name`, `${name}`, `${name:-default}`, `${name:+value}`,
 * as Docker's shell lexer reads them.
 */
export type Lookup = (name: string) => string | undefined;

function broken(text: string): EngineError {
  return new EngineError(
    "invalid",
    `failed to process ${JSON.stringify(text)}: unexpected end of statement`,
    {
      code: "bad-change",
    },
  );
}

interface Cursor {
  readonly text: string;
  at: number;
}

/** One word: quotes removed, variables replaced. */
export function expandWord(text: string, lookup: Lookup): string {
  const cursor: Cursor = { text, at: 0 };
  let result = "";
  while (cursor.at < text.length) {
    const character = text[cursor.at]!;
    if (character === "'") result += singleQuoted(cursor);
    else if (character === '"') result += doubleQuoted(cursor, lookup);
    else if (character === "$") result += variable(cursor, lookup);
    else if (character === "\\") {
      result += text[cursor.at + 1] ?? "";
      cursor.at += 2;
    } else {
      result += character;
      cursor.at += 1;
    }
  }
  return result;
}

function singleQuoted(cursor: Cursor): string {
  const end = cursor.text.indexOf("'", cursor.at + 1);
  if (end === -1) throw broken(cursor.text);
  const value = cursor.text.slice(cursor.at + 1, end);
  cursor.at = end + 1;
  return value;
}

function doubleQuoted(cursor: Cursor, lookup: Lookup): string {
  let value = "";
  cursor.at += 1;
  for (;;) {
    const character = cursor.text[cursor.at];
    if (character === undefined) throw broken(cursor.text);
    if (character === '"') {
      cursor.at += 1;
      return value;
    }
    if (character === "$") value += variable(cursor, lookup);
    else if (character === "\\") {
      const next = cursor.text[cursor.at + 1];
      if (next === undefined) throw broken(cursor.text);
      value += next === '"' || next === "$" || next === "\\" ? next : `\\${next}`;
      cursor.at += 2;
    } else {
      value += character;
      cursor.at += 1;
    }
  }
}

function variable(cursor: Cursor, lookup: Lookup): string {
  const { text } = cursor;
  const rest = text.slice(cursor.at + 1);
  const plain = /^[A-Za-z_][A-Za-z0-9_]*/.exec(rest)?.[0];
  if (plain !== undefined) {
    cursor.at += 1 + plain.length;
    return lookup(plain) ?? "";
  }
  if (!rest.startsWith("{")) {
    cursor.at += 1;
    return "$";
  }
  const end = text.indexOf("}", cursor.at);
  const match =
    end === -1 ? null : /^\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-+])(.*))?$/s.exec(text.slice(cursor.at + 1, end));
  if (match === null) throw broken(text);
  cursor.at = end + 1;
  const [, name = "", operator = "", word = ""] = match;
  const value = lookup(name);
  const present = operator.startsWith(":") ? value !== undefined && value !== "" : value !== undefined;
  if (operator.endsWith("-")) return present ? (value ?? "") : expandWord(word, lookup);
  if (operator.endsWith("+")) return present ? expandWord(word, lookup) : "";
  return value ?? "";
}

/** Splits at blanks outside quotes; quotes and escapes stay in the words. */
export function splitWords(text: string): string[] {
  const words: string[] = [];
  let word = "";
  let quote = "";
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at]!;
    if (quote === "" && /\s/.test(character)) {
      if (word !== "") words.push(word);
      word = "";
      continue;
    }
    word += character;
    if (character === "\\" && quote !== "'") {
      at += 1;
      word += text[at] ?? "";
    } else if (quote === "" && (character === '"' || character === "'")) quote = character;
    else if (character === quote) quote = "";
  }
  if (quote !== "") throw broken(text);
  if (word !== "") words.push(word);
  return words;
}
