/** Reading the arguments of `ps` that `docker top` passes on. Pure. */
import { EngineError } from "#base/errors.ts";
import { psColumns } from "./top-columns.ts";

const full = ["uname", "pid", "ppid", "c", "stime", "tty", "time", "cmd"];
const aux = ["user", "pid", "%cpu", "%mem", "vsz", "rss", "tty", "stat", "start", "bsdtime", "command"];
const plain = ["pid", "tty", "time", "ucmd"];
const plainBsd = ["pid", "tty", "stat", "bsdtime", "command"];

/** Whole spellings that people use; which processes are meant is always "those of the container". */
const known: ReadonlyMap<string, readonly string[]> = new Map([
  ["-ef", full],
  ["-fe", full],
  ["-f", full],
  ["-eF", full],
  ["ef", full],
  ["aux", aux],
  ["-aux", aux],
  ["u", aux],
  ["-e", plain],
  ["-A", plain],
  ["a", plainBsd],
  ["x", plainBsd],
  ["ax", plainBsd],
]);

/**
 * The columns that arguments ask for: a known spelling, or `-o`/`-eo`/`o`/`--format` with a list of columns. Others are
 * refused by name. A list must contain the pid, as Docker demands.
 */
export function parsePsArgs(text: string): string[] {
  const words = text.trim().split(/\s+/);
  const columns: string[] = [];
  let base: readonly string[] | undefined;
  for (let index = 0; index < words.length; index += 1) {
    const word = words[index]!;
    const format = /^(?:-[eAax]*o|[ax]*o|--format=?)(.*)$/.exec(word);
    if (format !== null) {
      if (format[1] === "") index += 1;
      const list = format[1] || words[index];
      if (list === undefined) throw refuse(word);
      columns.push(...list.split(",").map((name) => columnName(name, text)));
    } else if (known.has(word)) base = known.get(word)!;
    else throw refuse(text);
  }
  if (columns.length === 0) return [...(base ?? full)];
  if (!columns.includes("pid")) {
    throw new EngineError("system", "Couldn't find PID field in ps output", { code: "no-pid" });
  }
  return columns;
}

function columnName(name: string, text: string): string {
  if (psColumns.has(name)) return name;
  throw refuse(text);
}

function refuse(text: string): EngineError {
  return new EngineError("invalid", `ps arguments are not supported: ${text.slice(0, 200)}`, {
    code: "not-supported",
  });
}
