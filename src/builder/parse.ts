import { jsonWords, splitQuoted } from "#wire/word-expand.ts";
import { DockerfileError } from "./dockerfile-error.ts";
import { type DockerfileText, readStatements, type Statement } from "./dockerfile-lines.ts";
import { readFlags } from "./instruction-flags.ts";
import { commandLine, nameValues, parseHealthcheck } from "./instruction-words.ts";
import type { ArgInstruction, CopyFields, Dockerfile, Instruction, Stage } from "./instructions.ts";
import { parseRunMount } from "./run-mounts.ts";

type Fields = Instruction extends infer One
  ? One extends Instruction
    ? Omit<One, "original" | "position">
    : never
  : never;
interface Context {
  readonly statement: Statement;
  readonly escapeWith: string;
}

type Parser = (context: Context) => Fields;

const needsArgument: ReadonlySet<string> = new Set([
  "ADD",
  "ARG",
  "COPY",
  "ENV",
  "EXPOSE",
  "FROM",
  "HEALTHCHECK",
  "LABEL",
  "MAINTAINER",
  "ONBUILD",
  "RUN",
  "SHELL",
  "STOPSIGNAL",
  "USER",
  "VOLUME",
  "WORKDIR",
]);

/** Parses a Dockerfile. Throws `DockerfileError` with file, line and column. */
export function parseDockerfile(text: string, file: string): Dockerfile {
  const source = readStatements(text, file);
  const globalArgs: ArgInstruction[] = [];
  const stages: (Stage & { instructions: Instruction[] })[] = [];
  for (const statement of source.statements) {
    if (statement.keyword === "FROM") {
      stages.push(located(source, statement, () => parseFrom(statement)));
      continue;
    }
    const instruction = located(source, statement, () => parseStatement(statement, source.directives.escape));
    const stage = stages.at(-1);
    if (stage !== undefined) stage.instructions.push(instruction);
    else if (instruction.kind === "arg") globalArgs.push(instruction);
    else
      throw located(
        source,
        statement,
        () => new DockerfileError("no build stage in current context", statement.position, source),
      );
  }
  if (stages.length === 0)
    throw new DockerfileError("no build stage in current context", { line: 1, column: 1 }, source);
  const { directives, lines, warnings } = source;
  return { file, lines, directives, globalArgs, stages, warnings };
}

/** One trigger of an ONBUILD image. Throws `DockerfileError`. */
export function parseTrigger(text: string): Instruction {
  const source = readStatements(text, "ONBUILD trigger");
  const statement = source.statements[0] as Statement;
  if (["ONBUILD", "FROM", "MAINTAINER"].includes(statement.keyword)) {
    throw new DockerfileError(
      `${statement.keyword} isn't allowed as an ONBUILD trigger`,
      statement.position,
      source,
    );
  }
  return located(source, statement, () => parseStatement(statement, source.directives.escape));
}

function located<Result>(source: DockerfileText, statement: Statement, parse: () => Result): Result {
  try {
    return parse();
  } catch (error) {
    if (error instanceof DockerfileError || !(error instanceof Error)) throw error;
    throw new DockerfileError(error.message, statement.position, source);
  }
}

function parseStatement(statement: Statement, escapeWith: string): Instruction {
  const { keyword, original, position } = statement;
  const parser = Object.hasOwn(parsers, keyword) ? parsers[keyword] : undefined;
  if (parser === undefined) throw new Error(`unknown instruction: ${keyword}${suggestion(keyword)}`);
  if (statement.rest === "" && needsArgument.has(keyword)) throw new Error(argumentText(keyword));
  return { ...parser({ statement, escapeWith }), original, position } as Instruction;
}

function argumentText(keyword: string): string {
  if (["USER", "WORKDIR", "STOPSIGNAL", "MAINTAINER"].includes(keyword))
    return `${keyword} requires exactly one argument`;
  if (keyword === "COPY" || keyword === "ADD")
    return `${keyword} requires at least two arguments, but only one was provided. Destination could not be determined`;
  if (keyword === "FROM") return "FROM requires either one or three arguments";
  return `${keyword} requires at least one argument`;
}

/** The known keyword that is one slip away, as Docker suggests it. */
function suggestion(keyword: string): string {
  const close =
    Object.keys(parsers).find((known) => distance(known, keyword) <= 1) ??
    (distance("FROM", keyword) <= 1 ? "FROM" : undefined);
  return close === undefined ? "" : ` (did you mean ${close}?)`;
}

function distance(left: string, right: string): number {
  if (Math.abs(left.length - right.length) > 1) return 2;
  let row = Array.from({ length: right.length + 1 }, (_, index) => index);
  for (let at = 1; at <= left.length; at += 1) {
    const next = [at];
    for (let other = 1; other <= right.length; other += 1) {
      const same = left[at - 1] === right[other - 1] ? 0 : 1;
      next.push(Math.min((row[other] ?? 0) + 1, (next[other - 1] ?? 0) + 1, (row[other - 1] ?? 0) + same));
    }
    row = next;
  }
  return row[right.length] ?? 2;
}

function parseFrom(statement: Statement): Stage & { instructions: Instruction[] } {
  const { original, position } = statement;
  if (statement.rest === "") throw new Error(argumentText("FROM"));
  const flags = readFlags(statement.rest, { text: ["platform"] });
  const words = flags.rest.split(/\s+/).filter((word) => word !== "");
  if (words.length !== 1 && !(words.length === 3 && words[1]?.toLowerCase() === "as")) {
    throw new Error("FROM requires either one or three arguments");
  }
  const name = (words[2] ?? "").toLowerCase();
  if (name !== "" && !/^[a-z][a-z0-9-_.]*$/.test(name)) {
    throw new Error(
      `invalid name for build stage: ${JSON.stringify(name)}, name can't start with a number or contain symbols`,
    );
  }
  return {
    base: words[0] as string,
    name,
    platform: flags.text("platform"),
    instructions: [],
    original,
    position,
  };
}

/** Blank-separated or JSON. */
function words(text: string): string[] {
  return jsonWords(text) ?? text.split(/\s+/).filter((word) => word !== "");
}

function noFlags(text: string): string {
  return readFlags(text, {}).rest;
}

function copyFields({ statement }: Context, rest: string, flags: ReturnType<typeof readFlags>): CopyFields {
  const all = words(rest);
  if (all.length < 2) throw new Error(argumentText(statement.keyword));
  return {
    sources: all.slice(0, -1),
    target: all.at(-1) as string,
    heredocs: statement.heredocs,
    chown: flags.text("chown"),
    chmod: flags.text("chmod"),
    link: flags.bool("link"),
    parents: flags.bool("parents"),
    excludes: flags.list("exclude"),
  };
}

function single(kind: "maintainer" | "user" | "workdir" | "stopsignal"): Parser {
  return ({ statement }) => {
    const value = noFlags(statement.rest);
    if (value === "" || (kind === "stopsignal" && /\s/.test(value)))
      throw new Error(argumentText(statement.keyword));
    return { kind, value } as Fields;
  };
}

const parsers: Readonly<Record<string, Parser>> = {
  ADD: (context) => {
    const flags = readFlags(context.statement.rest, {
      text: ["chown", "chmod", "checksum"],
      list: ["exclude"],
      boolean: ["link", "keep-git-dir", "unpack"],
    });
    return {
      kind: "add",
      checksum: flags.text("checksum"),
      keepGitDir: flags.bool("keep-git-dir"),
      unpack: flags.optionalBool("unpack"),
      ...copyFields(context, flags.rest, flags),
    };
  },
  ARG: ({ statement, escapeWith }) => {
    const args = splitQuoted(noFlags(statement.rest), escapeWith).map((word) => {
      const equals = word.indexOf("=");
      if (equals === 0) throw new Error("ARG names can not be blank");
      return equals < 0
        ? { name: word, value: undefined }
        : { name: word.slice(0, equals), value: word.slice(equals + 1) };
    });
    return { kind: "arg", args };
  },
  CMD: ({ statement }) => ({ kind: "cmd", command: commandLine(noFlags(statement.rest), []) }),
  COPY: (context) => {
    const flags = readFlags(context.statement.rest, {
      text: ["chown", "chmod", "from"],
      list: ["exclude"],
      boolean: ["link", "parents"],
    });
    return { kind: "copy", from: flags.text("from"), ...copyFields(context, flags.rest, flags) };
  },
  ENTRYPOINT: ({ statement }) => ({ kind: "entrypoint", command: commandLine(noFlags(statement.rest), []) }),
  ENV: ({ statement, escapeWith }) => ({
    kind: "env",
    pairs: nameValues(noFlags(statement.rest), "ENV", escapeWith),
    literal: false,
  }),
  EXPOSE: ({ statement }) => ({ kind: "expose", ports: words(noFlags(statement.rest)) }),
  HEALTHCHECK: ({ statement }) => ({ kind: "healthcheck", health: parseHealthcheck(statement.rest) }),
  LABEL: ({ statement, escapeWith }) => ({
    kind: "label",
    pairs: nameValues(noFlags(statement.rest), "LABEL", escapeWith),
    literal: false,
  }),
  MAINTAINER: single("maintainer"),
  ONBUILD: ({ statement }) => {
    const trigger = /^\S+/.exec(statement.rest)?.[0].toUpperCase() ?? "";
    if (trigger === "ONBUILD") throw new Error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
    if (trigger === "FROM" || trigger === "MAINTAINER")
      throw new Error(`${trigger} isn't allowed as an ONBUILD trigger`);
    const bodies = statement.heredocs.map(({ content, name }) => `\n${content}${name}`).join("");
    parseTrigger(statement.rest + bodies);
    return { kind: "onbuild", trigger: statement.rest + bodies };
  },
  RUN: ({ statement }) => {
    const flags = readFlags(statement.rest, { list: ["mount"], text: ["network", "security"] });
    const network = flags.text("network") || "default";
    const security = flags.text("security") || "sandbox";
    if (!["default", "none", "host"].includes(network))
      throw new Error(`invalid network mode: ${JSON.stringify(network)}`);
    if (!["sandbox", "insecure"].includes(security))
      throw new Error(`security ${JSON.stringify(security)} is not valid`);
    if (flags.rest === "") throw new Error(argumentText("RUN"));
    return {
      kind: "run",
      command: commandLine(flags.rest, statement.heredocs),
      mounts: flags.list("mount").map(parseRunMount),
      network: network as "default" | "none" | "host",
      security: security as "sandbox" | "insecure",
    };
  },
  SHELL: ({ statement }) => {
    const shell = jsonWords(noFlags(statement.rest));
    if (shell === undefined) throw new Error("SHELL requires the arguments to be in JSON form");
    if (shell.length === 0) throw new Error("SHELL requires at least one argument");
    return { kind: "shell", words: shell };
  },
  STOPSIGNAL: single("stopsignal"),
  USER: single("user"),
  VOLUME: ({ statement }) => {
    const paths = words(noFlags(statement.rest)).map((path) => path.trim());
    if (paths.length === 0) throw new Error("VOLUME requires at least one argument");
    if (paths.includes("")) throw new Error("VOLUME specified can not be an empty string");
    return { kind: "volume", paths };
  },
  WORKDIR: single("workdir"),
};
