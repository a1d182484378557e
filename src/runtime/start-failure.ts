import { describeErrno } from "#base/errors.ts";
import { RuntimeStartError } from "./runtime-start-error.ts";

/**
 * From a runtime's own words to Docker's: clients match on `executable file not found`, `no such file or directory` and
 * `permission denied` to choose between exit codes 127, 126 and 125.
 */
interface Reason {
  readonly text: string;
  readonly exitCode: 126 | 127 | 128;
}

const notFoundInPath = "executable file not found in $PATH";

function missing(program: string): Reason {
  const text = program.includes("/")
    ? `exec: ${JSON.stringify(program)}: stat ${program}: ${describeErrno("ENOENT")}`
    : `exec: ${JSON.stringify(program)}: ${notFoundInPath}`;
  return { text, exitCode: 127 };
}

function denied(program: string): Reason {
  return { text: `exec: ${JSON.stringify(program)}: ${describeErrno("EACCES")}`, exitCode: 126 };
}

/** crun 1.x's messages. */
function crunReason(detail: string, program: string): Reason | undefined {
  const notFound = /executable file [`']?(.*?)[`']? not found in \$PATH/.exec(detail);
  if (notFound !== null) return missing(notFound[1]!);
  // EPERM: what it found is a directory or another thing that is no regular file.
  if (/open executable: (?:Permission denied|Operation not permitted)/.test(detail)) return denied(program);
  if (/open executable: No such file or directory/.test(detail)) return missing(program);
  const exec = /exec container process .*?[`'](.*?)[`']: (.*)/.exec(detail);
  if (exec === null) return undefined;
  const [, path = program, why = ""] = exec;
  if (/No such file or directory/.test(why)) {
    return { text: `exec ${path}: ${describeErrno("ENOENT")}`, exitCode: 127 };
  }
  if (/Permission denied/.test(why)) return denied(path);
  return { text: `exec ${path}: ${why.trim().toLowerCase()}`, exitCode: 126 };
}

/** runc's messages hold Go's, which Docker passes on; in its log format or plain. */
function runcReason(detail: string): Reason | undefined {
  const plain = detail.replaceAll('\\"', '"');
  const exec =
    /exec:? (?:"[^"]*"|\S+): (?:.*?(?:not found in \$PATH|no such file or directory|permission denied|is a directory|exec format error))/.exec(
      plain,
    );
  if (exec === null) return undefined;
  const text = exec[0];
  const exitCode = /not found in \$PATH|no such file or directory/.test(text) ? 127 : 126;
  return { text, exitCode };
}

/** The last line that says something, without a log format's frame. */
function lastWords(detail: string): string {
  const lines = detail.split("\n").filter((line) => line.trim() !== "");
  const last = lines.at(-1) ?? "the runtime gave no reason";
  const framed = /msg="((?:[^"\\]|\\.)*)"/.exec(last);
  const text = framed === null ? last : framed[1]!.replaceAll('\\"', '"');
  return text.replace(/^(?:runc|crun) run failed: unable to start container process: /, "").slice(0, 4096);
}

/** `detail`: what the runtime printed. `args`: what it was to run. The frame names runc whichever ran, as scripts know it. */
export function startFailure(
  detail: string,
  kind: "crun" | "runc",
  args: readonly string[],
): RuntimeStartError {
  const program = args[0] ?? "";
  const reason = (kind === "crun" ? crunReason(detail, program) : undefined) ??
    runcReason(detail) ?? { text: lastWords(detail), exitCode: 128 };
  return new RuntimeStartError(
    `failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: ${reason.text}: unknown`,
    reason.exitCode,
    detail,
  );
}

/** An exec's failure. `detail` holds the errno's text as the C library or Go spells it. */
export function execFailure(detail: string, args: readonly string[]): RuntimeStartError {
  const program = args[0] ?? "";
  const lower = detail.toLowerCase();
  let reason: Reason;
  if (/not found|no such file/.test(lower)) reason = missing(program);
  else if (/permission denied|is a directory|not permitted/.test(lower)) reason = denied(program);
  else if (/exec format error/.test(lower))
    reason = { text: `exec ${program}: exec format error`, exitCode: 126 };
  else reason = { text: lastWords(detail), exitCode: 128 };
  return new RuntimeStartError(
    `OCI runtime exec failed: exec failed: unable to start container process: ${reason.text}: unknown`,
    reason.exitCode,
    detail,
  );
}
