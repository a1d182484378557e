import { open, stat } from "node:fs/promises";
import { describeErrno, errnoOf, messageOf } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import { SettingsError } from "./settings.ts";

/** How long a look at the file's times counts: within it a change is noticed by nobody. */
const freshMs = 250;
/** Users, keys and rules of any real registry. */
const fileBytesMax = 4 * 1024 * 1024;

/**
 * A file that is read at the start and again whenever it has changed. A change that cannot be read is logged once, and
 * what was read before goes on to count: a half-written file must not lock everybody out.
 */
export class SettingsFile<T> {
  readonly #path: string;
  readonly #parse: (text: string) => T;
  readonly #log: Log;
  #value: T;
  #version: string;
  #checkedAtMs = performance.now();
  #check: Promise<void> | undefined;

  private constructor(
    path: string,
    parse: (text: string) => T,
    log: Log,
    first: { value: T; version: string },
  ) {
    this.#path = path;
    this.#parse = parse;
    this.#log = log;
    this.#value = first.value;
    this.#version = first.version;
  }

  /** Throws `SettingsError`, also for what `parse` throws. */
  static async open<T>(path: string, parse: (text: string) => T, log: Log): Promise<SettingsFile<T>> {
    try {
      const version = await versionOf(path);
      return new SettingsFile(path, parse, log, { value: parse(await readBounded(path)), version });
    } catch (error) {
      throw unreadable(path, error);
    }
  }

  async current(): Promise<T> {
    if (performance.now() - this.#checkedAtMs > freshMs) {
      this.#check ??= this.#reload().finally(() => {
        this.#check = undefined;
        this.#checkedAtMs = performance.now();
      });
      await this.#check;
    }
    return this.#value;
  }

  async #reload(): Promise<void> {
    let version = "";
    try {
      version = await versionOf(this.#path);
      if (version === this.#version) return;
      this.#value = this.#parse(await readBounded(this.#path));
      this.#log.info(`${this.#path} has changed and was read again`);
    } catch (error) {
      if (version === this.#version) return;
      this.#log.error(`what was read before goes on to count: ${unreadable(this.#path, error).message}`);
    }
    this.#version = version;
  }
}

async function versionOf(path: string): Promise<string> {
  const { ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
  return `${ino} ${size} ${mtimeNs} ${ctimeNs}`;
}

/** A regular file's text. Throws for one that is longer than `fileBytesMax`. */
export async function readBounded(path: string): Promise<string> {
  await using file = await open(path, "r");
  const status = await file.stat();
  if (!status.isFile()) throw new SettingsError("it is no regular file");
  if (status.size > fileBytesMax) throw new SettingsError(`it is longer than ${fileBytesMax} bytes`);
  return await file.readFile("utf8");
}

/** One line that names the file. */
export function unreadable(path: string, error: unknown): SettingsError {
  const errno = errnoOf(error);
  return new SettingsError(`${path}: ${errno === undefined ? messageOf(error) : describeErrno(errno)}`);
}
