/** The functions of a template: Go's own and those Docker's command line adds. */
import { goFormat, goSprintf, goTypeName } from "./template-format.ts";
import { isStruct, isTrue, nilMap, nilSlice, toGoJson } from "./template-value.ts";

/** Throws Error with Go's text; the caller adds `error calling NAME: `. */
export type TemplateFunction = (...values: unknown[]) => unknown;

function want(name: string, values: readonly unknown[], min: number, max = min): void {
  if (values.length >= min && values.length <= max) return;
  const bound = max > min ? `at least ${min}` : String(min);
  throw new ArgumentCountError(`wrong number of args for ${name}: want ${bound} got ${values.length}`);
}

/** Reported by Go without `error calling`. */
export class ArgumentCountError extends Error {}

/** Parameter types of the functions that have fixed ones; the executor checks them, where it knows the argument's place. */
export const parameterTypes: Readonly<Record<string, readonly ParameterType[]>> = {
  join: ["[]string", "string"],
  lower: ["string"],
  pad: ["string", "int", "int"],
  printf: ["string"],
  split: ["string", "string"],
  title: ["string"],
  truncate: ["string", "int"],
  upper: ["string"],
};

export type ParameterType = "string" | "int" | "[]string";

export function fitsParameter(value: unknown, type: ParameterType): boolean {
  if (type === "string") return typeof value === "string";
  if (type === "int")
    return typeof value === "bigint" || (typeof value === "number" && Number.isInteger(value));
  return Array.isArray(value);
}

function print(values: readonly unknown[]): string {
  // fmt.Sprint puts a space between operands when neither is a string.
  let out = "";
  for (const [index, value] of values.entries()) {
    if (index > 0 && typeof value !== "string" && typeof values[index - 1] !== "string") out += " ";
    out += goFormat(value);
  }
  return out;
}

type Kind = "bool" | "string" | "number" | "nil" | "other";

function kindOf(value: unknown): Kind {
  if (value === undefined || value === null) return "nil";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "string") return "string";
  if (typeof value === "number" || typeof value === "bigint") return "number";
  return "other";
}

function equal(values: readonly unknown[]): boolean {
  if (values.length < 2) throw new Error("missing argument for comparison");
  const [first, ...rest] = values;
  const kind = kindOf(first);
  for (const value of rest) {
    const other = kindOf(value);
    if (kind === "other" || other === "other") {
      throw new Error(
        kind === "other" && other === "other"
          ? `non-comparable type ${goFormat(first)}: ${goTypeName(first)}`
          : "incompatible types for comparison",
      );
    }
    if (kind !== other) {
      if (kind === "nil" || other === "nil") continue;
      throw new Error("incompatible types for comparison");
    }
    // biome-ignore lint/suspicious/noDoubleEquals: a bigint equals the number of the same size.
    if (kind === "nil" || first == value) return true;
  }
  return false;
}

function less(values: readonly unknown[], name: string): boolean {
  want(name, values, 2);
  const [left, right] = values as [string | number, string | number];
  const kind = kindOf(left);
  if (kind !== kindOf(right)) throw new Error("incompatible types for comparison");
  if (kind === "string" || kind === "number") return left < right;
  throw new Error("invalid type for comparison");
}

function lengthOf(value: unknown): number {
  if (typeof value === "string") return Buffer.byteLength(value);
  if (Array.isArray(value)) return value.length;
  if (value instanceof Map) return value.size;
  if (value === undefined || value === null)
    throw new Error("reflect: call of reflect.Value.Type on zero Value");
  throw new Error(`len of type ${goTypeName(value)}`);
}

function indexInto(values: readonly unknown[]): unknown {
  want("index", values, 1, Number.POSITIVE_INFINITY);
  let [item, ...keys] = values;
  if (item === undefined || item === null) throw new Error("index of untyped nil");
  for (const key of keys) {
    if (item === undefined || item === null) throw new Error("index of nil pointer");
    if (item instanceof Map) item = mapEntry(item, key);
    else if (Array.isArray(item)) item = item[position(key, item.length)];
    else if (typeof item === "string") item = Buffer.from(item)[position(key, Buffer.byteLength(item))];
    else if (isStruct(item)) item = Object.hasOwn(item, String(key)) ? item[String(key)] : undefined;
    else throw new Error(`can't index item of type ${goTypeName(item)}`);
  }
  return item;
}

/** A missing entry is the zero value of the map's element type. */
function mapEntry(map: ReadonlyMap<string, unknown>, key: unknown): unknown {
  if (typeof key !== "string") throw new Error(`value has type ${goTypeName(key)}; should be string`);
  if (map.has(key)) return map.get(key);
  if (map === nilMap) return "";
  const sample = map.values().next().value;
  if (sample === undefined || typeof sample === "string") return "";
  if (typeof sample === "number") return 0;
  if (typeof sample === "boolean") return false;
  if (sample instanceof Map) return nilMap;
  return Array.isArray(sample) ? nilSlice : null;
}

function position(key: unknown, length: number): number {
  if (kindOf(key) === "nil") throw new Error("cannot index slice/array with nil");
  if (typeof key !== "number") throw new Error(`cannot index slice/array with type ${goTypeName(key)}`);
  if (key < 0 || key >= length) throw new Error(`index out of range: ${key}`);
  return key;
}

function slice(values: readonly unknown[]): unknown {
  want("slice", values, 1, 4);
  const [item, ...bounds] = values;
  if (item === undefined || item === null) throw new Error("slice of untyped nil");
  if (typeof item !== "string" && !Array.isArray(item)) {
    throw new Error(`can't slice item of type ${goTypeName(item)}`);
  }
  const length = lengthOf(item);
  const [from, to] = [bounds[0] ?? 0, bounds[1] ?? length].map((bound) => {
    if (typeof bound !== "number") throw new Error(`cannot index slice/array with type ${goTypeName(bound)}`);
    if (bound < 0 || bound > length) throw new Error(`index out of range: ${bound}`);
    return bound;
  }) as [number, number];
  if (from > to) throw new Error(`invalid slice index: ${from} > ${to}`);
  return typeof item === "string" ? Buffer.from(item).toString("utf8", from, to) : item.slice(from, to);
}

const htmlEscapes: Readonly<Record<string, string>> = {
  "\0": "\ufffd",
  '"': "&#34;",
  "'": "&#39;",
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
};

/** strings.Title: the first letter of each word; words are split by what is no letter, digit or underscore. */
function title(value: string): string {
  return value.replace(
    /(^|[^\p{L}\p{Nd}_'])(\p{L})/gu,
    (_all, before: string, letter: string) => before + letter.toUpperCase(),
  );
}

/** Go's own functions (text/template, "Functions"). `and` and `or` are evaluated lazily by the executor. */
const goFunctions: Readonly<Record<string, TemplateFunction>> = {
  and: (...values) => values.find((value) => !isTrue(value)) ?? values.at(-1),
  or: (...values) => values.find(isTrue) ?? values.at(-1),
  not: (...values) => {
    want("not", values, 1);
    return !isTrue(values[0]);
  },
  len: (...values) => {
    want("len", values, 1);
    return lengthOf(values[0]);
  },
  index: (...values) => indexInto(values),
  slice: (...values) => slice(values),
  print: (...values) => print(values),
  println: (...values) => `${values.map((value) => goFormat(value)).join(" ")}\n`,
  printf: (...values) => {
    want("printf", values, 1, Number.POSITIVE_INFINITY);
    return goSprintf(values[0] as string, values.slice(1));
  },
  html: (...values) => print(values).replace(/[\0"'&<>]/g, (char) => htmlEscapes[char]!),
  js: (...values) =>
    print(values).replace(/[\\'"<>&=\x00-\x1f]/g, (char) =>
      "\\'\"".includes(char)
        ? `\\${char}`
        : `\\u${char.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}`,
    ),
  urlquery: (...values) =>
    encodeURIComponent(print(values))
      .replaceAll("%20", "+")
      .replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`),
  eq: (...values) => equal(values),
  ne: (...values) => {
    want("ne", values, 2);
    return !equal(values);
  },
  lt: (...values) => less(values, "lt"),
  le: (...values) => less(values, "le") || equal(values),
  gt: (...values) => !less(values, "gt") && !equal(values),
  ge: (...values) => !less(values, "ge"),
  call: () => {
    throw new Error("call of nil");
  },
};

/** Docker's additions. */
const dockerFunctions: Readonly<Record<string, TemplateFunction>> = {
  json: (...values) => {
    want("json", values, 1);
    return toGoJson(values[0]);
  },
  split: (...values) => {
    want("split", values, 2);
    return (values[0] as string).split(values[1] as string);
  },
  join: (...values) => {
    want("join", values, 2);
    const [list, separator] = values;
    return (list as unknown[]).map((item) => goFormat(item)).join(separator as string);
  },
  title: (...values) => {
    want("title", values, 1);
    return title(values[0] as string);
  },
  lower: (...values) => {
    want("lower", values, 1);
    return (values[0] as string).toLowerCase();
  },
  upper: (...values) => {
    want("upper", values, 1);
    return (values[0] as string).toUpperCase();
  },
  pad: (...values) => {
    want("pad", values, 3);
    const [source, before, after] = [values[0] as string, Number(values[1]), Number(values[2])];
    return source === "" ? source : " ".repeat(Math.max(0, before)) + source + " ".repeat(Math.max(0, after));
  },
  truncate: (...values) => {
    want("truncate", values, 2);
    const [source, length] = [values[0] as string, Number(values[1])];
    return Buffer.byteLength(source) < length ? source : Buffer.from(source).toString("utf8", 0, length);
  },
};

export const templateFunctions: ReadonlyMap<string, TemplateFunction> = new Map([
  ...Object.entries(goFunctions),
  ...Object.entries(dockerFunctions),
]);

/** In a table's header line these leave the column's title as it is. */
export const headerFunctions: ReadonlyMap<string, TemplateFunction> = new Map([
  ...templateFunctions,
  ...["json", "title", "lower", "upper", "truncate"].map((name): [string, TemplateFunction] => [
    name,
    (...values) => values[0],
  ]),
]);
