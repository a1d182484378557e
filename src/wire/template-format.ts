/** Go's fmt verbs on template values (https://pkg.go.dev/fmt). */
import { goTypeOf, isStruct, nilMap, sortedKeys } from "./template-value.ts";

/** strconv.Quote. */
export function goQuote(text: string): string {
  let out = '"';
  for (const char of text) {
    const code = char.codePointAt(0)!;
    if (char === '"' || char === "\\") out += `\\${char}`;
    else if (code === 7) out += "\\a";
    else if (code === 8) out += "\\b";
    else if (code === 12) out += "\\f";
    else if (code === 10) out += "\\n";
    else if (code === 13) out += "\\r";
    else if (code === 9) out += "\\t";
    else if (code === 11) out += "\\v";
    else if (code < 0x20 || code === 0x7f) out += `\\x${code.toString(16).padStart(2, "0")}`;
    else if (/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u.test(char)) {
      out +=
        code > 0xffff
          ? `\\U${code.toString(16).padStart(8, "0")}`
          : `\\u${code.toString(16).padStart(4, "0")}`;
    } else out += char;
  }
  return `${out}"`;
}

/** fmt's %v: what a template prints for a value inside a larger one. */
export function goFormat(value: unknown, plus = false): string {
  if (value === undefined || value === null) return "<nil>";
  if (typeof value === "string") return value;
  if (typeof value === "number") return goFloat(value);
  if (Array.isArray(value)) return `[${value.map((item) => goFormat(item, plus)).join(" ")}]`;
  if (value instanceof Map) {
    return `map[${sortedKeys(value)
      .map((key) => `${key}:${goFormat(value.get(key), plus)}`)
      .join(" ")}]`;
  }
  if (typeof value === "object") {
    const fields = Object.entries(value).filter(([, field]) => typeof field !== "function");
    return `{${fields.map(([name, field]) => (plus ? `${name}:${goFormat(field, true)}` : goFormat(field))).join(" ")}}`;
  }
  return String(value);
}

/** %v of a number: integers as they are; floats shortest, with an exponent when very small or large. */
function goFloat(value: number): string {
  // A whole number that an int64 holds was an integer in Go.
  if (Number.isInteger(value) && Math.abs(value) < 2 ** 63) return String(value === 0 ? 0 : value);
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+Inf" : "-Inf";
  const magnitude = Math.abs(value);
  // strconv's %g: an exponent below 1e-4 and from 1e6 on.
  return magnitude < 1e-4 || magnitude >= 1e6 ? exponent(value.toExponential()) : String(value);
}

function exponent(text: string): string {
  return text.replace(/e([+-])(\d)$/, "e$10$2");
}

/** The type name that Go would print for a value. */
export function goTypeName(value: unknown): string {
  if (value === undefined || value === null) return "<nil>";
  if (typeof value === "string") return "string";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "bigint") return "int64";
  if (typeof value === "number") return Number.isInteger(value) ? "int" : "float64";
  if (Array.isArray(value)) {
    return value.every((item) => typeof item === "string") ? "[]string" : "[]interface {}";
  }
  if (value instanceof Map) {
    const texts = [...value.values()].every((item) => typeof item === "string");
    return texts || value === nilMap ? "map[string]string" : "map[string]interface {}";
  }
  if (typeof value === "object") return goTypeOf(value) ?? "map[string]interface {}";
  return "func";
}

interface Directive {
  readonly verb: string;
  readonly width: number;
  readonly precision: number | undefined;
  readonly flags: ReadonlySet<string>;
}

/** fmt.Sprintf. */
export function goSprintf(format: string, values: readonly unknown[]): string {
  let used = 0;
  let reordered = false;
  const star = (): number => {
    const value = values[used];
    used += 1;
    return typeof value === "number" ? value : 0;
  };
  const pattern = /%([-+# 0]*)(\*|\d+)?(?:\.(\*|\d+)?)?(?:\[(\d+)\])?(.)?|[^%]+/gsu;
  const out = format.replace(
    pattern,
    (all: string, flags?: string, width?: string, precision?: string, index?: string, verb?: string) => {
      if (!all.startsWith("%")) return all;
      let wide = width === "*" ? star() : Number(width ?? 0);
      const flagSet = new Set(flags);
      if (wide < 0) {
        flagSet.add("-");
        wide = -wide;
      }
      const dotted = /^%[-+# 0]*(?:\*|\d+)?\./.test(all);
      const precise = precision === "*" ? star() : dotted ? Number(precision ?? 0) : undefined;
      if (verb === undefined) return "%!(NOVERB)";
      if (verb === "%") return "%";
      if (index !== undefined) {
        used = Number(index) - 1;
        reordered = true;
      }
      if (used >= values.length)
        return `%!${verb}(BADINDEX)`.replace("BADINDEX", index === undefined ? "MISSING" : "BADINDEX");
      const value = values[used];
      used += 1;
      return formatOne({ verb, width: wide, precision: precise, flags: flagSet }, value);
    },
  );
  if (reordered || used >= values.length) return out;
  const extra = values
    .slice(used)
    .map((value) =>
      value === null || value === undefined ? "<nil>" : `${goTypeName(value)}=${goFormat(value)}`,
    );
  return `${out}%!(EXTRA ${extra.join(", ")})`;
}

function pad(text: string, directive: Directive, numeric: boolean): string {
  const missing = directive.width - [...text].length;
  if (missing <= 0) return text;
  if (directive.flags.has("-")) return text + " ".repeat(missing);
  if (directive.flags.has("0") && numeric) {
    const sign = /^[+-]/.exec(text)?.[0] ?? "";
    return sign + "0".repeat(missing) + text.slice(sign.length);
  }
  return (directive.flags.has("0") ? "0" : " ").repeat(missing) + text;
}

function formatOne(directive: Directive, value: unknown): string {
  const { verb, flags, precision } = directive;
  if (verb === "T") return pad(goTypeName(value), directive, false);
  if (verb === "v") {
    if (flags.has("#")) return pad(goSyntax(value), directive, false);
    const number = typeof value === "number" || typeof value === "bigint";
    return pad(
      number && flags.has("+") ? signed(goFormat(value), flags) : goFormat(value, flags.has("+")),
      directive,
      number,
    );
  }
  if (Array.isArray(value)) {
    return `[${value.map((item) => formatOne(directive, item)).join(" ")}]`;
  }
  if (value instanceof Map) {
    return `map[${sortedKeys(value)
      .map((key) => `${formatOne(directive, key)}:${formatOne(directive, value.get(key))}`)
      .join(" ")}]`;
  }
  if (typeof value === "string") {
    const text = formatString(verb, value, precision, flags);
    if (text !== undefined) return pad(text, directive, false);
  } else if (typeof value === "boolean" && verb === "t") return pad(String(value), directive, false);
  else if (typeof value === "bigint" || (typeof value === "number" && Number.isInteger(value))) {
    const text = formatInteger(verb, BigInt(value), flags, precision);
    if (text !== undefined) return pad(text, directive, true);
  } else if (typeof value === "number") {
    const text = formatFloat(verb, value, precision);
    if (text !== undefined) return pad(signed(text, flags), directive, true);
  }
  if (value === null || value === undefined) return `%!${verb}(<nil>)`;
  if (isStruct(value)) return goFormat(value);
  return `%!${verb}(${goTypeName(value)}=${goFormat(value)})`;
}

function formatString(
  verb: string,
  value: string,
  precision: number | undefined,
  flags: ReadonlySet<string>,
): string | undefined {
  const cut = precision === undefined ? value : [...value].slice(0, precision).join("");
  if (verb === "s") return cut;
  if (verb === "q") return flags.has("#") && !value.includes("`") ? `\`${cut}\`` : goQuote(cut);
  if (verb === "x") return Buffer.from(cut).toString("hex");
  if (verb === "X") return Buffer.from(cut).toString("hex").toUpperCase();
  return undefined;
}

function signed(text: string, flags: ReadonlySet<string>): string {
  if (text.startsWith("-")) return text;
  if (flags.has("+")) return text.startsWith("+") ? text : `+${text}`;
  return flags.has(" ") ? ` ${text}` : text;
}

function formatInteger(
  verb: string,
  value: bigint,
  flags: ReadonlySet<string>,
  precision: number | undefined,
): string | undefined {
  const bases: Record<string, number> = { d: 10, b: 2, o: 8, O: 8, x: 16, X: 16 };
  const base = bases[verb];
  if (base !== undefined) {
    const magnitude = value < 0n ? -value : value;
    let digits = magnitude.toString(base).padStart(precision ?? 0, "0");
    if (verb === "X") digits = digits.toUpperCase();
    const prefixes: Record<string, string> = { x: "0x", X: "0X", o: "0", b: "0b" };
    const prefix = verb === "O" ? "0o" : flags.has("#") ? (prefixes[verb] ?? "") : "";
    return signed(`${value < 0n ? "-" : ""}${prefix}${digits}`, flags);
  }
  if (verb === "c") return String.fromCodePoint(Number(value));
  if (verb === "q") return `'${String.fromCodePoint(Number(value))}'`;
  if (verb === "U") return `U+${value.toString(16).toUpperCase().padStart(4, "0")}`;
  return undefined;
}

function formatFloat(verb: string, value: number, precision: number | undefined): string | undefined {
  if (verb === "f" || verb === "F") return value.toFixed(precision ?? 6);
  if (verb === "e") return exponent(value.toExponential(precision ?? 6));
  if (verb === "E") return exponent(value.toExponential(precision ?? 6)).toUpperCase();
  if (verb === "g" || verb === "G") {
    return precision === undefined
      ? goFloat(value)
      : exponent(String(Number(value.toPrecision(precision || 1))));
  }
  return undefined;
}

/** %#v of the simple values; the rest as %v. */
function goSyntax(value: unknown): string {
  if (typeof value === "string") return goQuote(value);
  if (Array.isArray(value)) return `${goTypeName(value)}{${value.map(goSyntax).join(", ")}}`;
  if (value instanceof Map) {
    return `${goTypeName(value)}{${sortedKeys(value)
      .map((key) => `${goQuote(key)}:${goSyntax(value.get(key))}`)
      .join(", ")}}`;
  }
  return goFormat(value);
}
