/** Types of flag values: how a text becomes a value, with the messages of Go's strconv and Docker's option types. */
import { parseDuration, parseSize } from "./units.ts";

export interface FlagType {
  /** Placeholder in the help; empty for switches. */
  readonly label: string;
  /** Value when the flag stands alone. */
  readonly valueless?: string;
  /** May be given many times; `parse` may give several values. */
  readonly many: boolean;
  /** Value when not given and not `many`. */
  readonly zero: unknown;
  /** Throws Error with the reason. */
  parse(text: string): unknown;
}

const trueTexts: ReadonlySet<string> = new Set(["1", "t", "T", "TRUE", "true", "True"]);
const falseTexts: ReadonlySet<string> = new Set(["0", "f", "F", "FALSE", "false", "False"]);

/** strconv.ParseBool, or undefined. */
export function parseBool(text: string): boolean | undefined {
  if (trueTexts.has(text)) return true;
  return falseTexts.has(text) ? false : undefined;
}

export const boolean: FlagType = {
  label: "",
  valueless: "true",
  many: false,
  zero: false,
  parse: (text) => {
    const value = parseBool(text);
    if (value === undefined)
      throw new Error(`strconv.ParseBool: parsing ${JSON.stringify(text)}: invalid syntax`);
    return value;
  },
};

export const string: FlagType = { label: "string", many: false, zero: "", parse: (text) => text };

/** strconv.ParseInt with base 0 and 64 bits; values beyond 2^53 lose precision only in size limits, which they exceed. */
export function parseInteger(text: string): number {
  const plain = /^[+-]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]*|[1-9]\d*)$/.test(text);
  if (!plain) throw new Error(`strconv.ParseInt: parsing ${JSON.stringify(text)}: invalid syntax`);
  const negative = text.startsWith("-");
  const digits = text.replace(/^[+-]/, "");
  const value = BigInt(/^0[0-7]+$/.test(digits) ? `0o${digits.slice(1)}` : digits);
  if (value > 0x7fffffffffffffffn)
    throw new Error(`strconv.ParseInt: parsing ${JSON.stringify(text)}: value out of range`);
  return Number(negative ? -value : value);
}

export const integer: FlagType = { label: "int", many: false, zero: 0, parse: parseInteger };

export const uint16: FlagType = {
  label: "uint16",
  many: false,
  zero: 0,
  parse: (text) => {
    if (!/^\d+$/.test(text))
      throw new Error(`strconv.ParseUint: parsing ${JSON.stringify(text)}: invalid syntax`);
    if (Number(text) > 65535)
      throw new Error(`strconv.ParseUint: parsing ${JSON.stringify(text)}: value out of range`);
    return Number(text);
  },
};

/** A list, one value a flag, checked by `check` which may also rewrite it. */
export function listOf(check?: (text: string) => unknown, label = "list"): FlagType {
  return { label, many: true, zero: [], parse: (text) => (check === undefined ? text : check(text)) };
}

export const list: FlagType = listOf();

/** pflag's stringSlice: values separated by commas, with CSV quotes. */
export const strings: FlagType = {
  label: "strings",
  many: true,
  zero: [],
  parse: (text) => parseCsvLine(text),
};

/** `name=value` pairs; kept as texts, in order. */
export function mapOf(check?: (text: string) => string): FlagType {
  return { ...listOf(check), label: "map" };
}

export const map: FlagType = mapOf();

export const bytes: FlagType = { label: "bytes", many: false, zero: 0, parse: (text) => parseSize(text) };

/** Like `bytes`, but -1 stands for no limit. */
export const bytesOrUnlimited: FlagType = {
  ...bytes,
  parse: (text) => (text === "-1" ? -1 : parseSize(text)),
};

export const duration: FlagType = {
  label: "duration",
  many: false,
  zero: 0,
  parse: (text) => parseDuration(text),
};

/** `--filter name=value`; the name in lower case. */
export const filter: FlagType = {
  ...listOf((text) => {
    if (text === "") return [];
    const equals = text.indexOf("=");
    if (equals < 0) throw new Error("bad format of filter (expected name=value)");
    return `${text.slice(0, equals).trim().toLowerCase()}=${text.slice(equals + 1).trim()}`;
  }, "filter"),
};

/** `--cpus`: a rational number of CPUs, in units of 1e-9. */
export const decimal: FlagType = {
  label: "decimal",
  many: false,
  zero: 0,
  parse: (text) => {
    const match = /^([+-]?)(\d+(?:\.\d*)?|\.\d+)(?:\/(\d+))?$/.exec(text);
    const whole = match === null ? Number.NaN : Number(match[2]) / Number(match[3] ?? 1);
    if (!Number.isFinite(whole)) throw new Error(`failed to parse ${text} as a rational number`);
    const nano = whole * 1e9 * (match![1] === "-" ? -1 : 1);
    const rounded = Math.round(nano);
    if (Math.abs(nano - rounded) > 1e-6) throw new Error("value is too precise");
    return rounded;
  },
};

/** One line of CSV as encoding/csv reads it. */
export function parseCsvLine(text: string): string[] {
  if (text === "") return [];
  const fields: string[] = [];
  let at = 0;
  for (;;) {
    if (text[at] === '"') {
      const match = /^"((?:[^"]|"")*)"(,|$)/.exec(text.slice(at));
      if (match === null)
        throw new Error(`parse error on line 1, column ${at + 1}: extraneous or missing " in quoted-field`);
      fields.push(match[1]!.replaceAll('""', '"'));
      at += match[0].length;
      if (match[2] === "") return fields;
      continue;
    }
    const comma = text.indexOf(",", at);
    const field = text.slice(at, comma < 0 ? undefined : comma);
    const quote = field.indexOf('"');
    if (quote >= 0)
      throw new Error(`parse error on line 1, column ${at + quote + 1}: bare " in non-quoted-field`);
    fields.push(field);
    if (comma < 0) return fields;
    at = comma + 1;
  }
}
