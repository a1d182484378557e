import { EngineError } from "#base/errors.ts";

/** A place in a Dockerfile, counted from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

/** Shown lines are cut here: a Dockerfile may hold a line of 64 KiB. */
const shownColumnsMax = 160;

/** An error of a Dockerfile's text: names file, line and column, and shows the line. `reason` is Docker's wording; `atStep` tells that the text was understood and a step could not be done. */
export class DockerfileError extends EngineError {
  readonly reason: string;
  readonly position: Position;

  constructor(
    reason: string,
    position: Position,
    source?: { readonly file: string; readonly lines: readonly string[] },
    atStep = false,
  ) {
    super("invalid", describe(atStep, reason, position, source), { code: "dockerfile" });
    this.reason = reason;
    this.position = position;
  }
}

function describe(
  atStep: boolean,
  reason: string,
  { line, column }: Position,
  source: { readonly file: string; readonly lines: readonly string[] } | undefined,
): string {
  const head = atStep ? reason : `dockerfile parse error on line ${line}: ${reason}`;
  if (source === undefined) return head;
  const text = (source.lines[line - 1] ?? "").replaceAll("\t", " ");
  const gutter = String(line).padStart(4);
  const shown = text.length > shownColumnsMax ? `${text.slice(0, shownColumnsMax)}…` : text;
  const caret =
    column <= shownColumnsMax ? `\n${" ".repeat(gutter.length)} | ${" ".repeat(column - 1)}^` : "";
  return `${head}\n${source.file}:${line}:${column}\n${gutter} | ${shown}${caret}`;
}
