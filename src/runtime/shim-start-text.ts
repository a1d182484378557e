import { RuntimeStartError } from "./runtime-start-error.ts";

/**
 * From the words of crun and runc to the words of Docker, which clients match on, and to the exit code that a
 * container which could not be started has: 127 not found, 126 not executable, 128 else.
 */
const createPrefix =
  "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: ";
const execPrefix = "OCI runtime exec failed: exec failed: ";
const processPrefix = "unable to start container process: ";

/** What the container was asked to run: for messages that name it. */
export interface StartSubject {
  readonly program: string;
  readonly cwd: string;
}

/**
 * The error in the runtime's log: crun writes plain lines, runc logrus' `time="…" level=error msg="…"` (and JSON where its
 * arguments ask for it). The last error counts; text of another shape is taken as it is.
 */
export function runtimeMessage(text: string): string {
  let last: string | undefined;
  for (const line of text.split("\n")) last = logrusMessage(line) ?? jsonMessage(line) ?? last;
  return (last ?? text).trim();
}

function logrusMessage(line: string): string | undefined {
  const match = /^time="[^"]*" level=(?:error|fatal) msg=(?:"((?:[^"\\]|\\.)*)"|(\S+))/.exec(line);
  if (match === null) return undefined;
  return match[2] ?? (match[1] ?? "").replace(/\\(.)/g, (_, char: string) => escapes[char] ?? char);
}

const escapes: Readonly<Record<string, string>> = { n: "\n", t: "\t", r: "\r" };

function jsonMessage(line: string): string | undefined {
  if (!line.startsWith("{")) return undefined;
  try {
    const entry: unknown = JSON.parse(line);
    if (typeof entry !== "object" || entry === null || !("msg" in entry)) return undefined;
    const level = "level" in entry ? entry.level : "error";
    if (level !== "error" && level !== "fatal") return undefined;
    return typeof entry.msg === "string" ? entry.msg : undefined;
  } catch {
    // Not JSON, or cut at the end of the buffer.
    return undefined;
  }
}

const errnoWords: readonly (readonly [RegExp, string])[] = [
  [/no such file or directory$/i, "no such file or directory"],
  [/permission denied$/i, "permission denied"],
  [/not a directory$/i, "not a directory"],
  [/is a directory$/i, "is a directory"],
  [/too many levels of symbolic links$/i, "too many levels of symbolic links"],
  [/exec format error$/i, "exec format error"],
  [/operation not permitted$/i, "operation not permitted"],
];

function errnoWord(text: string): string | undefined {
  return errnoWords.find(([pattern]) => pattern.test(text))?.[1];
}

/** crun's ways to say that the program cannot be run. */
function crunProgramFailure(message: string): { program: string; word: string } | undefined {
  const notFound = /^executable file `(.*)` not found(?: in \$PATH)?(?::\s*(.*))?$/s.exec(message);
  if (notFound !== null) return { program: notFound[1] ?? "", word: "no such file or directory" };
  const open =
    /^(?:open executable|exec(?:ve)?|cannot (?:stat|open) executable)(?: `?([^`:]*)`?)?: (.*)$/s.exec(
      message,
    );
  const word = open === null ? undefined : errnoWord(open[2] ?? "");
  if (open === null || word === undefined) return undefined;
  // crun says EPERM for a directory, where an exec of one gives EACCES.
  return { program: open[1] ?? "", word: word === "operation not permitted" ? "permission denied" : word };
}

/** runc's text is already Docker's; what precedes it differs by version. */
function runcFailure(message: string): string | undefined {
  const at = message.indexOf(processPrefix);
  if (at < 0) return undefined;
  // runc 1.2 and later say where in its own start it happened.
  return message.slice(at + processPrefix.length).replace(/^error during container init: /, "");
}

/** Docker's wording for a program that cannot be run, as Go's exec.LookPath has it. */
export function programText(program: string, word: string): string {
  const quoted = JSON.stringify(program);
  if (word !== "no such file or directory") return `exec: ${quoted}: ${word}`;
  return program.includes("/")
    ? `exec: ${quoted}: stat ${program}: ${word}`
    : `exec: ${quoted}: executable file not found in $PATH`;
}

export function cwdText(cwd: string, word: string): string {
  return `chdir to cwd (${JSON.stringify(cwd)}) set in config.json failed: ${word}`;
}

/** Docker's own rule (daemon/start.go's table): what the message contains decides, wherever it stands. */
function failure(prefix: string, text: string, detail: string): RuntimeStartError {
  const message = `${prefix}${text}: unknown`;
  if (/executable file not found|no such file or directory/i.test(text)) {
    return new RuntimeStartError(message, 127, detail);
  }
  if (/permission denied|is a directory/i.test(text)) return new RuntimeStartError(message, 126, detail);
  if (/not a directory/i.test(text)) return new RuntimeStartError(`${message}: ${mountHint}`, 127, detail);
  return new RuntimeStartError(message, 128, detail);
}

const mountHint =
  "Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type";

function processFailure(prefix: string, text: string, detail: string): RuntimeStartError {
  return failure(prefix, `${processPrefix}${text}`, detail);
}

/** The error of a start that the runtime refused; `text` is what it logged. */
export function startError(text: string, subject: StartSubject): RuntimeStartError {
  const message = runtimeMessage(text);
  const fromRunc = runcFailure(message);
  if (fromRunc !== undefined) return processFailure(createPrefix, fromRunc, message);
  const program = crunProgramFailure(message);
  if (program !== undefined) {
    const name = program.program === "" || subject.program !== "" ? subject.program : program.program;
    return processFailure(createPrefix, programText(name, program.word), message);
  }
  const cwd = /^(?:chdir|cannot chdir to|mkdir `?cwd`?)\b.*?: (.*)$/s.exec(message);
  const word = cwd === null ? undefined : errnoWord(cwd[1] ?? "");
  if (word !== undefined) return processFailure(createPrefix, cwdText(subject.cwd, word), message);
  const plain = message === "" ? "the runtime failed without a word" : message;
  const known = plain.replace(/^runc (?:create|run) failed: /, "");
  return failure(createPrefix, known, message);
}

/** Stages of native/exec-child.h. */
const execStages = { join: 1, console: 2, cwd: 3, lookup: 4, identity: 5 } as const;

/** The error of an exec that the shim could not bring to run. `word` is the errno's text as Go prints it. */
export function execError(
  stage: number,
  word: string,
  text: string,
  subject: StartSubject,
): RuntimeStartError {
  if (stage === execStages.lookup)
    return processFailure(execPrefix, programText(subject.program, word), text);
  if (stage === execStages.cwd) return processFailure(execPrefix, cwdText(subject.cwd, word), text);
  const plain = text === "" ? word : `${text}: ${word}`;
  return processFailure(execPrefix, plain, plain);
}
