/** Environment variables and labels from flags and files. */
import { readFileSync } from "node:fs";
import { describeErrno, errnoOf, messageOf } from "#base/errors.ts";
import type { Environment } from "./global-options.ts";

/** bufio.Scanner's limit, which Docker's reader inherits. */
const lineBytesMax = 64 * 1024;

function readLines(path: string): string[] {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "EISDIR") throw new Error(`read ${path}: is a directory`);
    throw new Error(`open ${path}: ${errno === undefined ? messageOf(error) : describeErrno(errno)}`);
  }
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false });
  const lines = splitLines(bytes);
  return lines.map((line, index) => {
    if (line.length >= lineBytesMax) throw new Error("bufio.Scanner: token too long");
    try {
      return decoder.decode(line);
    } catch {
      throw new Error(`invalid utf8 bytes at line ${index + 1}: ${line.toString("latin1")}`);
    }
  });
}

function splitLines(bytes: Buffer): Buffer[] {
  const lines: Buffer[] = [];
  let start = 0;
  while (start < bytes.length) {
    const newline = bytes.indexOf(10, start);
    let end = newline < 0 ? bytes.length : newline;
    const next = end + 1;
    if (bytes[end - 1] === 13 && end > start) end -= 1;
    lines.push(bytes.subarray(start, end));
    start = next;
  }
  return lines;
}

/**
 * Reads `name=value` lines; `#` starts a comment line, spaces before a name are dropped. A name alone takes its value
 * from `lookup`, or is left out. Values are taken as they are: quotes belong to them.
 */
function readPairs(path: string, what: string, lookup: (name: string) => string | undefined): string[] {
  const pairs: string[] = [];
  for (const raw of readLines(path)) {
    const line = raw.replace(/^\s+/, "");
    if (line === "" || line.startsWith("#")) continue;
    const equals = line.indexOf("=");
    const name = equals < 0 ? line : line.slice(0, equals);
    if (/\s/.test(name)) throw new Error(`poorly formatted ${what}: variable '${name}' contains whitespaces`);
    if (name === "") throw new Error(`poorly formatted ${what}: no variable name on line '${line}'`);
    if (equals >= 0) pairs.push(line);
    else {
      const value = lookup(line);
      if (value !== undefined) pairs.push(`${line}=${value}`);
    }
  }
  return pairs;
}

/** Variables of `--env-file`s, then of `-e`: a name alone takes the caller's value, and is left out where there is none. */
export function collectEnvironment(
  files: readonly string[],
  given: readonly string[],
  env: Environment,
): string[] {
  const fromFiles = files.flatMap((path) => readPairs(path, "environment", (name) => env[name]));
  // `-e NAME` without a value in our environment is sent as it is: the daemon then removes the image's.
  const fromFlags = given.map((text) =>
    text.includes("=") || env[text] === undefined ? text : `${text}=${env[text]}`,
  );
  return [...fromFiles, ...fromFlags];
}

export function collectLabels(files: readonly string[], given: readonly string[]): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const text of [...files.flatMap((path) => readPairs(path, "label", () => "")), ...given]) {
    const equals = text.indexOf("=");
    labels[equals < 0 ? text : text.slice(0, equals)] = equals < 0 ? "" : text.slice(equals + 1);
  }
  return labels;
}
