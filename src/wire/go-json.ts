import { EngineError, messageOf } from "#base/errors.ts";
import { goSyntaxMessage } from "./go-json-syntax.ts";

/**
 * JSON bodies as Go's encoding/json reads them, because Docker's clients depend on it: keys match without regard to
 * case, `null` is the zero value, unknown keys are ignored, a wrong type is an error that names the field.
 * One schema gives the check and the type (`Infer`).
 */
export interface Schema<T> {
  readonly decode: (value: unknown, path: string) => T;
  /** A fresh zero value: what Go has when the key is absent or null. */
  readonly zero: () => T;
}

export type Infer<S> = S extends Schema<infer T> ? T : never;

function typeName(value: unknown): string {
  if (Array.isArray(value)) return "array";
  if (typeof value === "boolean") return "bool";
  return typeof value;
}

function mismatch(value: unknown, path: string, goType: string): EngineError {
  const place = path === "" ? "value" : `struct field ${path}`;
  return new EngineError(
    "invalid",
    `invalid JSON: json: cannot unmarshal ${typeName(value)} into Go ${place} of type ${goType}`,
    { code: "bad-json" },
  );
}

export const string: Schema<string> = {
  zero: () => "",
  decode: (value, path) => {
    if (typeof value !== "string") throw mismatch(value, path, "string");
    return value;
  },
};

export const boolean: Schema<boolean> = {
  zero: () => false,
  decode: (value, path) => {
    if (typeof value !== "boolean") throw mismatch(value, path, "bool");
    return value;
  },
};

/** An int64 that JavaScript can hold exactly; a fraction or more than 2^53 is refused. */
export const integer: Schema<number> = {
  zero: () => 0,
  decode: (value, path) => {
    if (typeof value !== "number") throw mismatch(value, path, "int64");
    if (!Number.isSafeInteger(value)) throw mismatch(value, path, "int64");
    return value;
  },
};

/** A pointer in Go: null stays null. */
export function nullable<T>(inner: Schema<T>): Schema<T | null> {
  return { zero: () => null, decode: (value, path) => inner.decode(value, path) };
}

/** A slice; null decodes to []. `list` keeps no difference between null and empty; use `nullable(list(…))` where Docker does. */
export function list<T>(item: Schema<T>): Schema<T[]> {
  return {
    zero: () => [],
    decode: (value, path) => {
      if (!Array.isArray(value)) throw mismatch(value, path, "[]");
      return value.map((entry) => (entry === null ? item.zero() : item.decode(entry, path)));
    },
  };
}

/** A map with string keys. Held in a Map: keys such as `__proto__` or integers stay plain keys in order. */
export function map<T>(item: Schema<T>): Schema<Map<string, T>> {
  return {
    zero: () => new Map(),
    decode: (value, path) => {
      if (typeof value !== "object" || value === null || Array.isArray(value))
        throw mismatch(value, path, "map");
      const result = new Map<string, T>();
      for (const [key, entry] of Object.entries(value)) {
        result.set(key, entry === null ? item.zero() : item.decode(entry, `${path}.${key}`));
      }
      return result;
    },
  };
}

type Shape = Readonly<Record<string, Schema<unknown>>>;
type Decoded<S extends Shape> = { -readonly [K in keyof S]: Infer<S[K]> };

/** A struct. Keys match exactly first, then without regard to case. */
export function struct<S extends Shape>(name: string, shape: S): Schema<Decoded<S>> {
  const keys = Object.keys(shape);
  const byLower = new Map(keys.map((key) => [key.toLowerCase(), key]));
  const zero = (): Decoded<S> => {
    const result: Record<string, unknown> = {};
    for (const key of keys) result[key] = shape[key]!.zero();
    return result as Decoded<S>;
  };
  return {
    zero,
    decode: (value, path) => {
      if (typeof value !== "object" || value === null || Array.isArray(value))
        throw mismatch(value, path, name);
      const result = zero() as Record<string, unknown>;
      for (const [key, entry] of Object.entries(value)) {
        const field = Object.hasOwn(shape, key) ? key : byLower.get(key.toLowerCase());
        if (field === undefined || entry === null) continue;
        result[field] = shape[field]!.decode(entry, `${path === "" ? name : path}.${field}`);
      }
      return result as Decoded<S>;
    },
  };
}

/** Decodes a whole body. An empty text is the zero value when `emptyIsZero`. */
export function decodeJson<T>(schema: Schema<T>, text: string, emptyIsZero = false): T {
  if (emptyIsZero && text.trim() === "") return schema.zero();
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new EngineError("invalid", goSyntaxMessage(text, messageOf(cause)), { code: "bad-json", cause });
  }
  return value === null ? schema.zero() : schema.decode(value, "");
}
