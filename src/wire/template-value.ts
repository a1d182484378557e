/**
 * How Go values look to a template here.
 *
 * | Go | here |
 * | --- | --- |
 * | nil pointer | `null` |
 * | no value (a map entry that is not there) | `undefined` |
 * | bool, string | boolean, string |
 * | integers, floats | number, bigint |
 * | slice | array; a nil slice is `nilSlice` |
 * | map | `Map`; a nil map is `nilMap` |
 * | struct decoded from JSON | object: own properties in Go's field order |
 * | struct with methods | object with a `goType`: own properties are fields and methods; functions take arguments |
 */
export const goType: unique symbol = Symbol("goType");

export interface GoStruct {
  /** Type name in messages: `*formatter.ContainerContext`. */
  readonly [goType]: string;
}

/** On a struct that marshals itself as a map with Go's default escaping, as Docker's rows of lists do. */
export const marshalsAsMap: unique symbol = Symbol("marshalsAsMap");

/**
 * On a struct whose JSON names differ from Go's field names (`ID` is `Id` in JSON): JSON name by field name.
 * Templates see the field names, `json` writes the others.
 */
export const jsonNames: unique symbol = Symbol("jsonNames");

export const nilSlice: readonly unknown[] = Object.freeze([]);
export const nilMap: ReadonlyMap<string, unknown> = new Map();

export function goTypeOf(value: object): string | undefined {
  return goType in value ? (value as GoStruct)[goType] : undefined;
}

export function isStruct(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Map);
}

/** text/template's IsTrue: empty things are false, structs always true. */
export function isTrue(value: unknown): boolean {
  if (value === undefined || value === null) return false;
  if (Array.isArray(value)) return value.length > 0;
  if (value instanceof Map) return value.size > 0;
  if (typeof value === "object" || typeof value === "function") return true;
  return value !== 0 && value !== 0n && value !== "" && value !== false;
}

/** Go sorts the keys of a map by bytes; UTF-16 order differs only beyond the BMP. */
export function sortedKeys(map: ReadonlyMap<string, unknown>): string[] {
  return [...map.keys()].sort(compareBytes);
}

export function compareBytes(left: string, right: string): number {
  if (left === right) return 0;
  if (/[\ud800-\udfff]/.test(left) || /[\ud800-\udfff]/.test(right)) {
    return Buffer.compare(Buffer.from(left), Buffer.from(right));
  }
  return left < right ? -1 : 1;
}

/** JSON as Go's encoder writes it: maps sorted, structs in field order. */
export function toGoJson(value: unknown, options: { escapeHtml?: boolean; indent?: string } = {}): string {
  const write = (item: unknown, escapeHtml: boolean, margin: string): string => {
    const inner = options.indent === undefined ? "" : margin + options.indent;
    const wrap = (open: string, parts: string[], close: string): string => {
      if (parts.length === 0) return open + close;
      if (options.indent === undefined) return open + parts.join(",") + close;
      return `${open}\n${inner}${parts.join(`,\n${inner}`)}\n${margin}${close}`;
    };
    const colon = options.indent === undefined ? ":" : ": ";
    if (item === undefined || item === null || item === nilSlice || item === nilMap) return "null";
    if (typeof item === "string") return goJsonString(item, escapeHtml);
    if (typeof item !== "object") return String(item);
    if (Array.isArray(item)) {
      return wrap(
        "[",
        item.map((entry) => write(entry, escapeHtml, inner)),
        "]",
      );
    }
    let entries: (readonly [string, unknown])[];
    let escaped = escapeHtml;
    if (item instanceof Map) entries = sortedKeys(item).map((key) => [key, item.get(key)]);
    else {
      entries = Object.entries(item).filter(
        ([, entry]) => typeof entry !== "function" && entry !== undefined,
      );
      if (marshalsAsMap in item) {
        entries.sort(([left], [right]) => compareBytes(left, right));
        escaped = true;
      }
    }
    const renamed = (item as { [jsonNames]?: Readonly<Record<string, string>> })[jsonNames] ?? {};
    return wrap(
      "{",
      entries.map(
        ([key, entry]) =>
          `${goJsonString(renamed[key] ?? key, escaped)}${colon}${write(entry, escaped, inner)}`,
      ),
      "}",
    );
  };
  return write(value, options.escapeHtml ?? false, "");
}

/** A string in JSON as Go writes it (encoding/json). */
export function goJsonString(text: string, escapeHtml: boolean): string {
  let json = JSON.stringify(text).replaceAll("\u2028", "\\u2028").replaceAll("\u2029", "\\u2029");
  if (escapeHtml) {
    json = json.replaceAll("<", "\\u003c").replaceAll(">", "\\u003e").replaceAll("&", "\\u0026");
  }
  return json;
}
