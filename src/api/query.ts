import { EngineError } from "#base/errors.ts";
import type { Query } from "./route.ts";

function unescapeQuery(text: string): string {
  if (!text.includes("%") && !text.includes("+")) return text;
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch (cause) {
    const bad = /%(?![0-9a-fA-F]{2}).{0,2}/.exec(text)?.[0] ?? text.slice(0, 32);
    throw new EngineError("invalid", `invalid URL escape ${JSON.stringify(bad)}`, {
      code: "bad-query",
      cause,
    });
  }
}

const falseWords: ReadonlySet<string> = new Set(["", "0", "no", "false", "none"]);

/** A query string as Go's url.ParseQuery reads it, with Docker's readings of booleans and numbers (api/server/httputils). */
export function parseQuery(text: string): Query {
  const values = new Map<string, string[]>();
  for (const pair of text === "" ? [] : text.split("&")) {
    if (pair === "") continue;
    const equals = pair.indexOf("=");
    const key = unescapeQuery(equals === -1 ? pair : pair.slice(0, equals));
    const value = equals === -1 ? "" : unescapeQuery(pair.slice(equals + 1));
    const list = values.get(key);
    if (list === undefined) values.set(key, [value]);
    else list.push(value);
  }
  const get = (name: string): string | undefined => values.get(name)?.[0];
  return {
    get,
    all: (name) => values.get(name) ?? [],
    bool: (name, whenAbsent = false) => {
      const value = get(name);
      return value === undefined ? whenAbsent : !falseWords.has(value.toLowerCase().trim());
    },
    integer: (name, whenAbsent = 0) => {
      const value = get(name);
      if (value === undefined || value === "") return whenAbsent;
      const number = /^[+-]?[0-9]{1,18}$/.test(value) ? Number(value) : Number.NaN;
      if (!Number.isSafeInteger(number)) {
        throw new EngineError(
          "invalid",
          `strconv.ParseInt: parsing ${JSON.stringify(value.slice(0, 64))}: invalid syntax`,
          { code: "bad-query" },
        );
      }
      return number;
    },
  };
}
