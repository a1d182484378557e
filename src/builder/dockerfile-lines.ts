import { DockerfileError, type Position } from "./dockerfile-error.ts";

/** What a heredoc of RUN, COPY or ADD holds. */
export interface Heredoc {
  readonly name: string;
  /** Variables are replaced: its name was not quoted. */
  readonly expand: boolean;
  readonly content: string;
  /** The digits before `<<`, "" for none. */
  readonly descriptor: string;
}

/** One instruction as text: continuation lines joined, comments gone. */
export interface Statement {
  /** As written, upper-cased. */
  readonly keyword: string;
  /** All after the keyword, trimmed at both ends. */
  readonly rest: string;
  /** The joined text: what `Step n/m :` shows. */
  readonly original: string;
  readonly position: Position;
  readonly lastLine: number;
  readonly heredocs: readonly Heredoc[];
}

export interface Directives {
  readonly syntax: string;
  readonly escape: "\\" | "`";
  readonly check: string;
}

export interface DockerfileText {
  readonly file: string;
  readonly lines: readonly string[];
  readonly directives: Directives;
  readonly statements: readonly Statement[];
  readonly warnings: readonly string[];
}

/** Docker's scanner takes no longer line. */
const lineLengthMax = 65_535;
/** A real Dockerfile has some hundred instructions; each becomes an image. */
const statementsMax = 10_000;

const directivePattern = /^#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*$/;
const ownFrontend =
  /^(?:(?:index\.)?docker\.io\/)?docker\/dockerfile(?:-upstream)?(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?$/;
const heredocKeywords: ReadonlySet<string> = new Set(["RUN", "COPY", "ADD"]);

/** Splits a Dockerfile into its directives and statements. Throws `DockerfileError`. */
export function readStatements(text: string, file: string): DockerfileText {
  const lines = text
    .replace(/^\uFEFF/, "")
    .split("\n")
    .map((line) => (line.endsWith("\r") ? line.slice(0, -1) : line));
  const source = { file, lines };
  const fail = (reason: string, line: number, column = 1): DockerfileError =>
    new DockerfileError(reason, { line, column }, source);
  for (const [index, line] of lines.entries()) {
    if (line.length > lineLengthMax) {
      throw fail(`dockerfile line greater than maximum allowed size of ${lineLengthMax}`, index + 1);
    }
  }
  const { directives, first } = readDirectives(lines, fail);
  const reader = new StatementReader(lines, directives.escape, first, fail);
  const statements: Statement[] = [];
  for (let next = reader.next(); next !== undefined; next = reader.next()) {
    statements.push(next);
    if (statements.length > statementsMax) throw fail("too many instructions", next.position.line);
  }
  if (statements.length === 0) throw fail("file with no instructions", 1);
  const warnings = [...frontendWarnings(directives.syntax), ...reader.warnings];
  return { file, lines, directives, statements, warnings };
}

type Fail = (reason: string, line: number, column?: number) => DockerfileError;

/** `# key=value` lines at the very top, until anything else comes. */
function readDirectives(lines: readonly string[], fail: Fail): { directives: Directives; first: number } {
  const found = new Map<string, string>();
  let at = 0;
  for (; at < lines.length; at += 1) {
    const match = directivePattern.exec(lines[at] ?? "");
    const name = match?.[1]?.toLowerCase() ?? "";
    if (match === null || !["escape", "syntax", "check"].includes(name)) break;
    if (found.has(name)) throw fail(`only one ${name} parser directive can be used`, at + 1);
    const value = match[2] ?? "";
    if (name === "escape" && value !== "\\" && value !== "`") {
      throw fail(`invalid escape token '${value}' does not match ${"`"} or \\`, at + 1);
    }
    found.set(name, value);
  }
  return {
    directives: {
      syntax: found.get("syntax") ?? "",
      escape: found.get("escape") === "`" ? "`" : "\\",
      check: found.get("check") ?? "",
    },
    first: at,
  };
}

/**
 * `# syntax=` names an image that would read the Dockerfile. None is run; Docker's own, of any version and channel, reads the
 * language that is read here.
 */
function frontendWarnings(syntax: string): string[] {
  const [image = ""] = syntax.split(/\s+/);
  if (image === "" || ownFrontend.test(image)) return [];
  const named = JSON.stringify(image.slice(0, 200));
  return [`[WARNING]: The frontend ${named} is not run: read as a Dockerfile of docker/dockerfile:1`];
}

class StatementReader {
  readonly warnings: string[] = [];
  readonly #lines: readonly string[];
  readonly #continuation: RegExp;
  readonly #fail: Fail;
  #at: number;

  constructor(lines: readonly string[], escapeWith: string, first: number, fail: Fail) {
    this.#lines = lines;
    const token = escapeWith === "\\" ? "\\\\" : escapeWith;
    // An escaped escape at the end of a line is no continuation.
    this.#continuation = new RegExp(`(^|[^${token}])${token}[ \\t]*$`);
    this.#at = first;
    this.#fail = fail;
  }

  next(): Statement | undefined {
    while (this.#at < this.#lines.length && isSkipped(this.#lines[this.#at] as string)) this.#at += 1;
    if (this.#at >= this.#lines.length) return undefined;
    const startLine = this.#at + 1;
    const indent = /^\s*/.exec(this.#lines[this.#at] as string)?.[0].length ?? 0;
    const original = this.#joined();
    const [, word = "", tail = ""] = /^(\S+)\s*(.*)$/s.exec(original) ?? [];
    const keyword = word.toUpperCase();
    const rest = tail.trim();
    const heredocs = this.#heredocs(keyword, rest, startLine);
    return {
      keyword,
      rest,
      original,
      position: { line: startLine, column: indent + 1 },
      lastLine: this.#at,
      heredocs,
    };
  }

  /** The text of one statement; `#at` is then behind its last line. */
  #joined(): string {
    let text = "";
    let isFirst = true;
    let warned = false;
    while (this.#at < this.#lines.length) {
      const raw = this.#lines[this.#at] as string;
      const line = isFirst ? raw.trimStart() : raw;
      if (!isFirst && /^\s*#/.test(raw)) {
        this.#at += 1;
        continue;
      }
      if (!isFirst && raw.trim() === "") {
        this.#at += 1;
        if (!warned) this.warnings.push(`[WARNING]: Empty continuation line found in:\n    ${text}`);
        warned = true;
        continue;
      }
      this.#at += 1;
      isFirst = false;
      if (!this.#continuation.test(line)) return (text + line).trimEnd();
      text += line.replace(this.#continuation, "$1");
    }
    return text.trimEnd();
  }

  #heredocs(keyword: string, rest: string, line: number): Heredoc[] {
    const inner = keyword === "ONBUILD" ? (/^\S+/.exec(rest)?.[0].toUpperCase() ?? "") : keyword;
    if (!heredocKeywords.has(inner)) return [];
    return heredocMarks(rest).map(({ chomp, ...mark }) => ({
      ...mark,
      content: this.#heredocBody(mark.name, chomp, line),
    }));
  }

  #heredocBody(name: string, chomp: boolean, line: number): string {
    const body: string[] = [];
    for (; this.#at < this.#lines.length; this.#at += 1) {
      const raw = this.#lines[this.#at] as string;
      const own = chomp ? raw.replace(/^\t+/, "") : raw;
      if (own === name) {
        this.#at += 1;
        return body.map((entry) => `${entry}\n`).join("");
      }
      body.push(own);
    }
    throw this.#fail("unterminated heredoc", line);
  }
}

function isSkipped(line: string): boolean {
  return /^\s*(?:#.*)?$/.test(line);
}

interface HeredocMark {
  readonly name: string;
  readonly expand: boolean;
  readonly chomp: boolean;
  readonly descriptor: string;
}

/** `<<EOF`, `<<-EOF`, `3<<"EOF"` outside quotes; `<<<` is a shell's here-string. */
export function heredocMarks(text: string): HeredocMark[] {
  const marks: HeredocMark[] = [];
  // JSON forms have none.
  if (text.trimStart().startsWith("[")) return marks;
  let quote = "";
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at] as string;
    if (quote !== "") {
      if (character === quote) quote = "";
      else if (character === "\\" && quote === '"') at += 1;
      continue;
    }
    if (character === "\\") at += 1;
    else if (character === '"' || character === "'") quote = character;
    else if (at === 0 || /\s/.test(text[at - 1] as string)) {
      const match =
        /^(\d*)<<(-?)(?:"([A-Za-z0-9_.-]+)"|'([A-Za-z0-9_.-]+)'|([A-Za-z0-9_.-]+))(?=\s|$|[;&|)>])/.exec(
          text.slice(at),
        );
      if (match === null) continue;
      const [whole, descriptor = "", dash = "", double, single, bare] = match;
      const name = double ?? single ?? bare ?? "";
      marks.push({ name, expand: bare !== undefined, chomp: dash === "-", descriptor });
      at += whole.length - 1;
    }
  }
  return marks;
}
