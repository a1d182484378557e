/** `--name=value` and `--name` between an instruction's keyword and its arguments. */
export interface FlagRules {
  readonly text?: readonly string[];
  /** May be given several times. */
  readonly list?: readonly string[];
  readonly boolean?: readonly string[];
}

export interface ParsedFlags {
  text(name: string): string;
  list(name: string): readonly string[];
  bool(name: string): boolean;
  /** Undefined where the flag was not given. */
  optionalBool(name: string): boolean | undefined;
  /** What follows the flags. */
  readonly rest: string;
}

/** Reads flags. Throws plain `Error`s with Docker's wording; the parser adds the place. */
export function readFlags(text: string, rules: FlagRules): ParsedFlags {
  const found = new Map<string, string[]>();
  let rest = text;
  for (;;) {
    const match = /^--(\S*)\s*/.exec(rest);
    if (match === null || !rest.startsWith("--")) break;
    const body = match[1] ?? "";
    rest = rest.slice(match[0].length);
    if (body === "") break;
    const equals = body.indexOf("=");
    const name = equals < 0 ? body : body.slice(0, equals);
    const value = equals < 0 ? undefined : unquoted(body.slice(equals + 1));
    const isBoolean = rules.boolean?.includes(name) === true;
    const isList = rules.list?.includes(name) === true;
    if (!isBoolean && !isList && rules.text?.includes(name) !== true)
      throw new Error(`unknown flag: ${name}`);
    if (found.has(name) && !isList) throw new Error(`duplicate flag specified: ${name}`);
    if (value === undefined && !isBoolean) throw new Error(`missing a value on flag: ${name}`);
    const known = found.get(name) ?? [];
    if (isBoolean) known.push(booleanOf(name, value));
    else known.push(value ?? "");
    found.set(name, known);
  }
  return {
    text: (name) => found.get(name)?.[0] ?? "",
    list: (name) => found.get(name) ?? [],
    bool: (name) => found.get(name)?.[0] === "true",
    optionalBool: (name) => (found.has(name) ? found.get(name)?.[0] === "true" : undefined),
    rest,
  };
}

function booleanOf(name: string, value: string | undefined): string {
  const text = (value ?? "true").toLowerCase();
  if (text === "true" || text === "1") return "true";
  if (text === "false" || text === "0") return "false";
  throw new Error(`expecting boolean value for flag ${name}, not: ${value ?? ""}`);
}

function unquoted(value: string): string {
  const match = /^(["'])(.*)\1$/s.exec(value);
  return match?.[2] ?? value;
}
