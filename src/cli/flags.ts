/** Command-line flags by the rules of Docker's parser (pflag): `-itd`, `-ofile`, `--name=x`, `--name x`, `--`. */
import { boolean, type FlagType } from "./flag-types.ts";

export interface FlagSpec {
  readonly name: string;
  readonly short?: string;
  readonly type: FlagType;
  readonly help: string;
  /** Default as the help shows it; quoted for strings. */
  readonly shown?: string;
  /** Value when the flag is not given (for lists always []). */
  readonly initial?: unknown;
  readonly hidden?: boolean;
  /** The value is stored under this flag's name. */
  readonly aliasOf?: string;
}

interface FlagOptions {
  readonly shown?: string;
  readonly initial?: unknown;
  readonly hidden?: boolean;
  readonly aliasOf?: string;
}

/** Shorthand for tables: name as `all` or `a,all`. */
export function flag(names: string, type: FlagType, help: string, options: FlagOptions = {}): FlagSpec {
  const [first, second] = names.split(",") as [string, string?];
  return second === undefined
    ? { name: first, type, help, ...options }
    : { name: second, short: first, type, help, ...options };
}

export function toggle(names: string, help: string, options: FlagOptions = {}): FlagSpec {
  return flag(names, boolean, help, options);
}

/** A flag that cannot be used as given; the message is pflag's. */
export class FlagError extends Error {}

/** `--help` (or `-h` where that is no flag of the command). */
export class HelpRequested extends Error {
  readonly deprecatedShorthand: boolean;

  constructor(deprecatedShorthand: boolean) {
    super("help requested");
    this.deprecatedShorthand = deprecatedShorthand;
  }
}

/** The flags of one invocation. Asking for a name that the command does not have is a programmer's error. */
export class Flags {
  readonly #values = new Map<string, unknown>();
  readonly #changed = new Set<string>();

  constructor(specs: readonly FlagSpec[]) {
    for (const { name, type, initial, aliasOf } of specs) {
      if (aliasOf === undefined) this.#values.set(name, initial ?? (type.many ? [] : type.zero));
    }
  }

  set(spec: FlagSpec, text: string): void {
    const name = spec.aliasOf ?? spec.name;
    const value = spec.type.parse(text);
    if (spec.type.many) {
      const before = this.#changed.has(name) ? (this.#values.get(name) as unknown[]) : [];
      this.#values.set(name, [...before, ...(Array.isArray(value) ? value : [value])]);
    } else this.#values.set(name, value);
    this.#changed.add(name);
  }

  #get(name: string): unknown {
    if (!this.#values.has(name)) throw new TypeError(`no flag ${name}`);
    return this.#values.get(name);
  }

  changed(name: string): boolean {
    return this.#changed.has(name);
  }

  bool(name: string): boolean {
    return this.#get(name) === true;
  }

  text(name: string): string {
    return String(this.#get(name));
  }

  number(name: string): number {
    return Number(this.#get(name));
  }

  list(name: string): readonly string[] {
    return this.#get(name) as readonly string[];
  }

  /** Values of a flag whose type parses into something richer. */
  values<T>(name: string): readonly T[] {
    return this.#get(name) as readonly T[];
  }

  value<T>(name: string): T {
    return this.#get(name) as T;
  }
}

export interface ParsedLine {
  readonly flags: Flags;
  readonly args: readonly string[];
}

/** Parses what follows a command's name. Throws `FlagError` or `HelpRequested`. */
export function parseFlags(
  specs: readonly FlagSpec[],
  words: readonly string[],
  interspersed: boolean,
): ParsedLine {
  const parser = new FlagParser(specs, words);
  return parser.run(interspersed);
}

class FlagParser {
  readonly #byName: ReadonlyMap<string, FlagSpec>;
  readonly #byShort: ReadonlyMap<string, FlagSpec>;
  readonly #flags: Flags;
  readonly #words: readonly string[];
  #next = 0;

  constructor(specs: readonly FlagSpec[], words: readonly string[]) {
    this.#byName = new Map(specs.map((spec) => [spec.name, spec]));
    this.#byShort = new Map(
      specs.filter((spec) => spec.short !== undefined).map((spec) => [spec.short!, spec]),
    );
    this.#flags = new Flags(specs);
    this.#words = words;
  }

  run(interspersed: boolean): ParsedLine {
    const args: string[] = [];
    while (this.#next < this.#words.length) {
      const word = this.#words[this.#next]!;
      this.#next += 1;
      if (word === "--") break;
      if (word.length < 2 || !word.startsWith("-")) {
        args.push(word);
        if (!interspersed) break;
      } else if (word.startsWith("--")) this.#long(word);
      else this.#short(word);
    }
    args.push(...this.#words.slice(this.#next));
    return { flags: this.#flags, args };
  }

  #long(word: string): void {
    const equals = word.indexOf("=");
    const name = word.slice(2, equals < 0 ? undefined : equals);
    if (name === "" || name.startsWith("-") || equals === 2) throw new FlagError(`bad flag syntax: ${word}`);
    const spec = this.#byName.get(name);
    if (spec === undefined) {
      if (name === "help") {
        if (equals < 0 || boolean.parse(word.slice(equals + 1)) === true) throw new HelpRequested(false);
        return;
      }
      throw new FlagError(`unknown flag: --${name}`);
    }
    if (equals >= 0) this.#set(spec, word.slice(equals + 1));
    else if (spec.type.valueless !== undefined) this.#set(spec, spec.type.valueless);
    else this.#set(spec, this.#argument(`flag needs an argument: --${name}`));
  }

  #short(word: string): void {
    let letters = word.slice(1);
    while (letters !== "") {
      const letter = letters[0]!;
      const rest = letters.slice(1);
      const spec = this.#byShort.get(letter);
      if (spec === undefined) {
        if (letter === "h") throw new HelpRequested(true);
        throw new FlagError(`unknown shorthand flag: '${letter}' in -${letters}`);
      }
      if (rest.length > 1 && rest.startsWith("=")) {
        this.#set(spec, rest.slice(1));
        return;
      }
      if (spec.type.valueless !== undefined) {
        this.#set(spec, spec.type.valueless);
        letters = rest;
        continue;
      }
      this.#set(
        spec,
        rest === "" ? this.#argument(`flag needs an argument: '${letter}' in -${letters}`) : rest,
      );
      return;
    }
  }

  #argument(complaint: string): string {
    const word = this.#words[this.#next];
    if (word === undefined) throw new FlagError(complaint);
    this.#next += 1;
    return word;
  }

  #set(spec: FlagSpec, text: string): void {
    try {
      this.#flags.set(spec, text);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      const shown = spec.short === undefined ? `--${spec.name}` : `-${spec.short}, --${spec.name}`;
      throw new FlagError(`invalid argument ${JSON.stringify(text)} for "${shown}" flag: ${reason}`);
    }
  }
}
