import { existsSync, readFileSync } from "node:fs";
import { messageOf } from "#base/errors.ts";
import {
  notSupportedFlags,
  notSupportedKeys,
  notSupportedShorts,
  type OptionName,
  type OptionRow,
  options,
} from "./config-options.ts";
import { BadValue, fromFile, fromFlag, type SettingValue } from "./config-values.ts";

/** Bad flags or a bad file: the message is one line for the administrator. */
export class ConfigError extends Error {}

export type Settings = Map<OptionName, SettingValue>;

const rows: ReadonlyMap<string, OptionRow & { flag: OptionName }> = new Map(
  options.map((option) => [option.flag, option]),
);
const shorts: ReadonlyMap<string, OptionName> = new Map(
  options.flatMap((option) => ("short" in option ? [[option.short, option.flag] as const] : [])),
);
const keys = new Map(
  options.flatMap((option) => ("key" in option ? [[option.key as string, option] as const] : [])),
);

/** The command line by pflag's grammar. */
export function parseFlags(argv: readonly string[]): Settings {
  const texts = new Map<OptionName, string[]>();
  const take = (row: OptionRow & { flag: OptionName }, text: string): void => {
    const list = texts.get(row.flag);
    if (list === undefined) texts.set(row.flag, [text]);
    else list.push(text);
  };
  const rest = [...argv];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (!word.startsWith("-") || word === "-") {
      throw new ConfigError(`"skiffd" accepts no arguments: ${JSON.stringify(word)}. See 'skiffd --help'`);
    }
    if (word === "--") continue;
    const { row, spelled, value } = word.startsWith("--") ? longFlag(word) : shortFlag(word);
    if (value !== undefined) take(row, value);
    else if (row.kind === "bool") take(row, "true");
    else {
      const next = rest.shift();
      if (next === undefined) throw new ConfigError(`flag needs an argument: ${spelled}`);
      take(row, next);
    }
  }
  const settings: Settings = new Map();
  for (const [flag, values] of texts) {
    settings.set(
      flag,
      orConfigError(() => fromFlag(rows.get(flag)!.kind, flag, values)),
    );
  }
  return settings;
}

interface Flag {
  readonly row: OptionRow & { flag: OptionName };
  readonly spelled: string;
  readonly value: string | undefined;
}

function longFlag(word: string): Flag {
  const equals = word.indexOf("=");
  const name = word.slice(2, equals === -1 ? undefined : equals);
  const row = rows.get(name);
  if (row === undefined) {
    throw new ConfigError(
      notSupportedFlags.has(name)
        ? `flag --${name} is not supported by skiffd yet`
        : `unknown flag: --${name}`,
    );
  }
  return { row, spelled: `--${name}`, value: equals === -1 ? undefined : word.slice(equals + 1) };
}

function shortFlag(word: string): Flag {
  const letter = word[1]!;
  const name = shorts.get(letter);
  const row = name === undefined ? undefined : rows.get(name);
  if (row === undefined) {
    const other = notSupportedShorts.get(letter);
    throw new ConfigError(
      other === undefined
        ? `unknown shorthand flag: '${letter}' in ${word}`
        : `flag --${other} is not supported by skiffd yet`,
    );
  }
  const rest = word.slice(2).replace(/^=/, "");
  if (row.kind === "bool" && rest !== "" && word[2] !== "=") {
    throw new ConfigError(`unknown shorthand flag: '${rest[0]}' in ${word}`);
  }
  return { row, spelled: `-${letter}`, value: rest === "" ? undefined : rest };
}

function orConfigError<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof BadValue) throw new ConfigError(error.message);
    throw error;
  }
}

/** The configuration file; `flags` only to name conflicts. A missing file is empty unless it must exist. */
export function readFile(path: string, mustExist: boolean, flags: Settings): Settings {
  const settings: Settings = new Map();
  if (!mustExist && !existsSync(path)) return settings;
  const problems: string[] = [];
  for (const [key, value] of Object.entries(parseFile(path))) {
    const row = keys.get(key);
    if (row === undefined) {
      problems.push(
        notSupportedKeys.has(key)
          ? `${key} is not supported by skiffd yet`
          : `${key} does not match any configuration option`,
      );
      continue;
    }
    try {
      settings.set(row.flag, fromFile(row.kind, key, value));
    } catch (error) {
      if (!(error instanceof BadValue)) throw error;
      problems.push(error.message);
      continue;
    }
    if (flags.has(row.flag)) {
      problems.push(
        `${key} is specified both as a flag and in the configuration file (from flag: ${show(flags.get(row.flag)!)}, from file: ${show(settings.get(row.flag)!)})`,
      );
    }
  }
  if (problems.length > 0) {
    throw new ConfigError(`unable to configure skiffd with file ${path}: ${problems.join("; ")}`);
  }
  return settings;
}

function parseFile(path: string): object {
  const fail = (why: string): ConfigError =>
    new ConfigError(`unable to configure skiffd with file ${path}: ${why}`);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw fail(messageOf(error));
  }
  if (text.trim() === "") return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw fail(`it is not JSON: ${messageOf(error)}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw fail("it must hold one JSON object");
  return value;
}

function show(value: SettingValue): string {
  return value instanceof Map ? JSON.stringify(Object.fromEntries(value)) : JSON.stringify(value);
}
