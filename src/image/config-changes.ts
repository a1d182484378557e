import { posix } from "node:path";
import { EngineError } from "#base/errors.ts";
import { sumGoDuration } from "#wire/go-duration.ts";
import type { HealthConfig, ImageRunConfig } from "#wire/oci-image.ts";
import { expandWord, jsonWords, splitQuoted } from "#wire/word-expand.ts";

/**
 * The instructions that `docker import -c` and `docker commit -c` take: those of a Dockerfile that only change the
 * image's config. Throws `invalid` with Docker's wording.
 */
export function applyChanges(config: ImageRunConfig, changes: readonly string[]): ImageRunConfig {
  let result: Draft = structuredClone(config) as Draft;
  for (const line of changes.flatMap((change) => change.split("\n"))) {
    const text = line.trim();
    if (text !== "" && !text.startsWith("#")) result = applyOne(result, text);
  }
  return result;
}

/** Changes have no parser directives. */
const escapeWith = "\\";

type Draft = { -readonly [Key in keyof ImageRunConfig]: ImageRunConfig[Key] };
type Instruction = (draft: Draft, rest: string) => Draft;

function invalid(message: string): EngineError {
  return new EngineError("invalid", message, { code: "bad-change" });
}

function applyOne(draft: Draft, text: string): Draft {
  const [, word = "", rest = ""] = /^(\S+)\s*(.*)$/s.exec(text) ?? [];
  const name = word.toLowerCase();
  const instruction = Object.hasOwn(instructions, name) ? instructions[name] : undefined;
  if (instruction === undefined) throw invalid(`${name} is not a valid change command`);
  if (rest === "") throw invalid(`${word.toUpperCase()} requires at least one argument`);
  return instruction(draft, rest.trim());
}

/** Expands with the environment that earlier instructions have made. */
function expand(draft: Draft, word: string): string {
  const lookup = (name: string): string | undefined =>
    draft.Env?.findLast((line) => line.startsWith(`${name}=`))?.slice(name.length + 1);
  return expandWord(word, { lookup, escape: escapeWith });
}

function command(draft: Draft, text: string): string[] {
  return jsonWords(text) ?? [...(draft.Shell ?? ["/bin/sh", "-c"]), text];
}

/** `a=b "c d"=e`, or the old `name rest of line`. */
function pairs(draft: Draft, text: string, what: string): [string, string][] {
  const words = splitQuoted(text, escapeWith);
  const first = words[0] ?? "";
  if (!first.includes("=")) {
    const [, name = "", value = ""] = /^(\S+)\s+(.*)$/s.exec(text) ?? [];
    if (name === "") throw invalid(`${what} must have two arguments`);
    return [[expand(draft, name), expand(draft, value)]];
  }
  return words.map((word) => {
    const equals = word.indexOf("=");
    if (equals === -1) {
      throw invalid(
        `Syntax error - can't find = in ${JSON.stringify(word)}. Must be of the form: name=value`,
      );
    }
    const name = expand(draft, word.slice(0, equals));
    if (name === "") throw invalid(`${what} names can not be blank`);
    return [name, expand(draft, word.slice(equals + 1))];
  });
}

function withEnv(draft: Draft, name: string, value: string): Draft {
  const lines = [...(draft.Env ?? [])];
  const at = lines.findIndex((line) => line.split("=", 1)[0] === name);
  if (at === -1) lines.push(`${name}=${value}`);
  else lines[at] = `${name}=${value}`;
  return { ...draft, Env: lines };
}

/** `80`, `80/udp`, `8000-8010/tcp` → `80/tcp` … */
function ports(text: string): string[] {
  const match = /^(?:\d*:)?(\d{1,5})(?:-(\d{1,5}))?(?:\/([A-Za-z]+))?$/.exec(text);
  const protocol = (match?.[3] ?? "tcp").toLowerCase();
  if (match === null) throw invalid(`invalid containerPort: ${text}`);
  if (!["tcp", "udp", "sctp"].includes(protocol)) throw invalid(`invalid proto: ${protocol}`);
  const from = Number(match[1]);
  const to = Number(match[2] ?? match[1]);
  if (from > to || to > 65_535) throw invalid(`invalid containerPort: ${text}`);
  return Array.from({ length: to - from + 1 }, (_, index) => `${from + index}/${protocol}`);
}

const instructions: Readonly<Record<string, Instruction>> = {
  cmd: (draft, rest) => ({ ...draft, Cmd: command(draft, rest) }),
  entrypoint: (draft, rest) => ({ ...draft, Entrypoint: command(draft, rest) }),
  env: (draft, rest) =>
    pairs(draft, rest, "ENV").reduce((made, [name, value]) => withEnv(made, name, value), draft),
  expose: (draft, rest) => {
    const exposed: Record<string, object> = { ...draft.ExposedPorts };
    for (const word of splitQuoted(rest, escapeWith))
      for (const port of ports(expand(draft, word))) exposed[port] = {};
    return { ...draft, ExposedPorts: exposed };
  },
  label: (draft, rest) => ({
    ...draft,
    Labels: Object.fromEntries([...Object.entries(draft.Labels ?? {}), ...pairs(draft, rest, "LABEL")]),
  }),
  user: (draft, rest) => ({ ...draft, User: expand(draft, rest) }),
  volume: (draft, rest) => {
    const volumes: Record<string, object> = { ...draft.Volumes };
    for (const word of jsonWords(rest) ?? splitQuoted(rest, escapeWith)) {
      const path = expand(draft, word).trim();
      if (path === "") throw invalid("VOLUME specified can not be an empty string");
      volumes[path] = {};
    }
    return { ...draft, Volumes: volumes };
  },
  workdir: (draft, rest) => {
    const base = draft.WorkingDir === undefined || draft.WorkingDir === "" ? "/" : draft.WorkingDir;
    return { ...draft, WorkingDir: posix.resolve("/", base, expand(draft, rest)) };
  },
  stopsignal: (draft, rest) => {
    const signal = expand(draft, rest);
    if (!/^(?:SIG)?[A-Z0-9+-]{1,12}$/i.test(signal)) throw invalid(`Invalid signal: ${signal}`);
    return { ...draft, StopSignal: signal };
  },
  healthcheck: (draft, rest) => ({ ...draft, Healthcheck: healthcheck(rest) }),
  onbuild: (draft, rest) => {
    const trigger = rest.split(/\s/, 1)[0]!.toUpperCase();
    if (trigger === "ONBUILD") throw invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
    if (trigger === "MAINTAINER" || trigger === "FROM")
      throw invalid(`${trigger} isn't allowed as an ONBUILD trigger`);
    return { ...draft, OnBuild: [...(draft.OnBuild ?? []), rest] };
  },
};

function healthcheck(text: string): HealthConfig {
  let rest = text;
  const health: { -readonly [Key in keyof HealthConfig]: HealthConfig[Key] } = {};
  for (;;) {
    const option = /^--([a-z-]+)=(\S+)\s*/.exec(rest);
    if (option === null) break;
    rest = rest.slice(option[0].length);
    const [, name = "", value = ""] = option;
    if (name === "interval") health.Interval = duration(value, name);
    else if (name === "timeout") health.Timeout = duration(value, name);
    else if (name === "start-period") health.StartPeriod = duration(value, name);
    else if (name === "start-interval") health.StartInterval = duration(value, name);
    else if (name === "retries" && /^\d{1,9}$/.test(value)) health.Retries = Number(value);
    else throw invalid(`Unknown flag: ${name}`);
  }
  const [, kind = "", tail = ""] = /^(\S+)\s*(.*)$/s.exec(rest) ?? [];
  if (kind.toUpperCase() === "NONE") {
    if (tail !== "") throw invalid("HEALTHCHECK NONE takes no arguments");
    return { Test: ["NONE"] };
  }
  if (kind.toUpperCase() !== "CMD") {
    throw invalid(`Unknown type ${JSON.stringify(kind)} in HEALTHCHECK (try CMD)`);
  }
  if (tail === "") throw invalid("Missing command after HEALTHCHECK CMD");
  const words = jsonWords(tail);
  health.Test = words === undefined ? ["CMD-SHELL", tail] : ["CMD", ...words];
  return health;
}

/** Nanoseconds of a Go duration of at least one millisecond, or 0. */
function duration(text: string, flag: string): number {
  if (text === "0") return 0;
  if (!/^(?:\d+(?:\.\d+)?(?:ms|s|m|h))+$/.test(text))
    throw invalid(`time: invalid duration ${JSON.stringify(text)}`);
  const total = sumGoDuration(text);
  if (total !== 0 && total < 1e6) throw invalid(`Interval ${JSON.stringify(flag)} cannot be less than 1ms`);
  return Math.round(total);
}
