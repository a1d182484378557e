/** Reading of single values, from a flag's text and from the configuration file's JSON. Errors are plain texts. */
import { isIPv4 } from "node:net";
import type { OptionKind } from "./config-options.ts";

export interface RuntimeSetting {
  readonly path: string;
  readonly args: readonly string[];
}

export interface AddressPool {
  readonly base: string;
  readonly size: number;
}

export interface UlimitSetting {
  readonly name: string;
  readonly soft: number;
  readonly hard: number;
}

export type SettingValue =
  | string
  | boolean
  | number
  | readonly string[]
  | ReadonlyMap<string, string>
  | ReadonlyMap<string, boolean>
  | ReadonlyMap<string, unknown>
  | ReadonlyMap<string, RuntimeSetting>
  | readonly AddressPool[]
  | ReadonlyMap<string, UlimitSetting>;

export class BadValue extends Error {}

const ulimitNames = new Set(
  "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split(
    " ",
  ),
);

function pair(text: string, what: string): [string, string] {
  const equals = text.indexOf("=");
  if (equals < 1) throw new BadValue(`${what} ${JSON.stringify(text)} is not of the form name=value`);
  return [text.slice(0, equals), text.slice(equals + 1)];
}

function flagPool(text: string): AddressPool {
  const fields = new Map(text.split(",").map((part) => pair(part, "address pool")));
  return checkedPool(fields.get("base") ?? "", Number(fields.get("size") ?? Number.NaN));
}

export function isCidr(text: string): boolean {
  const [address = "", prefix = "", ...rest] = text.split("/");
  return rest.length === 0 && isIPv4(address) && /^\d{1,2}$/.test(prefix) && Number(prefix) <= 32;
}

function checkedPool(base: string, size: number): AddressPool {
  const prefix = Number(base.split("/")[1]);
  if (!isCidr(base) || !Number.isInteger(size) || size < prefix || size > 30) {
    throw new BadValue(
      `address pool base=${base},size=${size} is not an IPv4 network and a prefix length in it`,
    );
  }
  return { base, size };
}

function checkedUlimit(name: string, soft: number, hard: number): UlimitSetting {
  if (!ulimitNames.has(name)) throw new BadValue(`invalid ulimit type: ${name}`);
  if (!Number.isSafeInteger(soft) || !Number.isSafeInteger(hard))
    throw new BadValue(`invalid ulimit value of ${name}`);
  if (hard !== -1 && (soft === -1 || soft > hard)) {
    throw new BadValue(`ulimit soft limit must be less than or equal to hard limit: ${soft} > ${hard}`);
  }
  return { name, soft, hard };
}

function flagUlimit(text: string): UlimitSetting {
  const [name, value] = pair(text, "ulimit");
  const [soft = "", hard = soft] = value.split(":");
  return checkedUlimit(name, soft === "" ? Number.NaN : Number(soft), Number(hard));
}

function flagBool(flag: string, text: string): boolean {
  const word = /^(?:(1|t|T|TRUE|true|True)|0|f|F|FALSE|false|False)$/.exec(text);
  if (word !== null) return word[1] !== undefined;
  throw new BadValue(
    `invalid argument ${JSON.stringify(text)} for "--${flag}" flag: strconv.ParseBool: parsing ${JSON.stringify(text)}: invalid syntax`,
  );
}

/** The value of one flag given once or more; `texts` in order. For single values the last one counts, as with pflag. */
export function fromFlag(kind: OptionKind, flag: string, texts: readonly string[]): SettingValue {
  const last = texts.at(-1) ?? "";
  switch (kind) {
    case "string":
      return last;
    case "bool":
      return flagBool(flag, last);
    case "features":
      return new Map(
        texts.map((text) => {
          const [name, value] = text.includes("=") ? pair(text, `--${flag}`) : ([text, "true"] as const);
          return [name, flagBool(flag, value)];
        }),
      );
    case "integer":
      if (!/^-?\d{1,15}$/.test(last)) {
        throw new BadValue(
          `invalid argument ${JSON.stringify(last)} for "--${flag}" flag: strconv.ParseInt: parsing ${JSON.stringify(last)}: invalid syntax`,
        );
      }
      return Number(last);
    case "list":
      return texts;
    case "pairs":
      return new Map(texts.map((text) => pair(text, `--${flag}`)));
    case "runtimes":
      return new Map(
        texts.map((text) => {
          const [name, path] = pair(text, "runtime");
          return [name, { path, args: [] }];
        }),
      );
    case "pools":
      return texts.map(flagPool);
    case "registry":
      // `--registry read-only` alone is a switch.
      return new Map<string, unknown>(
        texts.map((text) => (text.includes("=") ? pair(text, `--${flag}`) : ([text, true] as const))),
      );
    case "ulimits":
      return new Map(texts.map(flagUlimit).map((limit) => [limit.name, limit]));
  }
}

function object(value: unknown, key: string): [string, unknown][] {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new BadValue(`${key} must be an object`);
  }
  return Object.entries(value);
}

function field(value: unknown, name: string): unknown {
  for (const [key, entry] of Object.entries(value as object)) {
    if (key.toLowerCase() === name) return entry;
  }
  return undefined;
}

function stringList(value: unknown, key: string): string[] {
  if (!Array.isArray(value) || value.some((entry) => typeof entry !== "string")) {
    throw new BadValue(`${key} must be a list of strings`);
  }
  return value;
}

/** The value of one key of the configuration file. */
export function fromFile(kind: OptionKind, key: string, value: unknown): SettingValue {
  switch (kind) {
    case "string":
      if (typeof value !== "string") throw new BadValue(`${key} must be a string`);
      return value;
    case "bool":
      if (typeof value !== "boolean") throw new BadValue(`${key} must be true or false`);
      return value;
    case "integer":
      if (!Number.isSafeInteger(value)) throw new BadValue(`${key} must be a whole number`);
      return value as number;
    case "list":
      return stringList(value, key);
    case "pairs":
      return new Map(
        object(value, key).map(([name, text]) => {
          if (typeof text !== "string") throw new BadValue(`${key}.${name} must be a string`);
          return [name, text];
        }),
      );
    case "features":
      return new Map(
        object(value, key).map(([name, on]) => {
          if (typeof on !== "boolean") throw new BadValue(`${key}.${name} must be true or false`);
          return [name, on];
        }),
      );
    case "runtimes":
      return new Map(object(value, key).map(([name, entry]) => [name, fileRuntime(entry, `${key}.${name}`)]));
    case "pools":
      if (!Array.isArray(value)) throw new BadValue(`${key} must be a list`);
      return value.map((entry) => {
        object(entry, `each of ${key}`);
        return checkedPool(String(field(entry, "base") ?? ""), Number(field(entry, "size")));
      });
    case "registry":
      return new Map(object(value, key));
    case "ulimits":
      return new Map(
        object(value, key).map(([name, entry]) => {
          object(entry, `${key}.${name}`);
          const limit = checkedUlimit(name, Number(field(entry, "soft")), Number(field(entry, "hard")));
          return [limit.name, limit];
        }),
      );
  }
}

function fileRuntime(entry: unknown, key: string): RuntimeSetting {
  object(entry, key);
  const path = field(entry, "path");
  const args = field(entry, "runtimeargs");
  if (typeof path !== "string") throw new BadValue(`${key}.path must be a string`);
  if (field(entry, "runtimetype") !== undefined || field(entry, "options") !== undefined) {
    throw new BadValue(`${key}: runtimeType and options are not supported by skiffd yet`);
  }
  return { path, args: args === undefined ? [] : stringList(args, `${key}.runtimeArgs`) };
}
