import { posix } from "node:path";
import { EngineError } from "#base/errors.ts";
import type { ImageRunConfig } from "#wire/oci-image.ts";
import { expandWord, expandWords, type WordOptions } from "#wire/word-expand.ts";
import type { CommandLine, Instruction } from "./instructions.ts";

export type RunConfig = { -readonly [Key in keyof ImageRunConfig]: ImageRunConfig[Key] };

/** A change of an image's config, and how its history tells of it (after `#(nop) `). */
export interface ConfigChange {
  readonly config: RunConfig;
  readonly note: string;
  /** For MAINTAINER. */
  readonly author?: string;
}

type WithEffect =
  | { readonly kind: "run" }
  | { readonly kind: "copy" }
  | { readonly kind: "add" }
  | { readonly kind: "arg" }
  | { readonly kind: "workdir" };
/** Changes the config and nothing else. */
export type MetaInstruction = Exclude<Instruction, WithEffect>;

export const defaultShell: readonly string[] = ["/bin/sh", "-c"];

function invalid(message: string): EngineError {
  return new EngineError("invalid", message, { code: "instruction" });
}

/** Go's `%q` of a list. */
function quoted(words: readonly string[]): string {
  return `[${words.map((word) => JSON.stringify(word)).join(" ")}]`;
}

/** The words that a command line becomes: the shell form is one argument of the shell. */
export function commandWords(command: CommandLine, shell: readonly string[] | null | undefined): string[] {
  if (command.form === "exec") return [...command.words];
  return [...(shell ?? defaultShell), command.text];
}

export function setEnv(env: readonly string[] | null | undefined, name: string, value: string): string[] {
  const lines = [...(env ?? [])];
  const at = lines.findIndex((line) => line.split("=", 1)[0] === name);
  if (at < 0) lines.push(`${name}=${value}`);
  else lines[at] = `${name}=${value}`;
  return lines;
}

export function envValue(env: readonly string[] | null | undefined, name: string): string | undefined {
  return env?.findLast((line) => line.startsWith(`${name}=`))?.slice(name.length + 1);
}

/** WORKDIR's new value: relative ones count from the one before. */
export function resolveWorkdir(current: string | undefined, path: string): string {
  return posix.resolve("/", current === undefined || current === "" ? "/" : current, path);
}

const signalNames: ReadonlySet<string> = new Set(
  "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX".split(
    " ",
  ),
);

function checkSignal(signal: string): void {
  const name = signal
    .toUpperCase()
    .replace(/^SIG/, "")
    .replace(/^RTM(IN|AX)[+-]\d{1,2}$/, "RTM$1");
  const isNumber = /^\d{1,2}$/.test(signal) && Number(signal) >= 1 && Number(signal) <= 64;
  if (!isNumber && !signalNames.has(name)) throw invalid(`Invalid signal: ${signal}`);
}

/** `80`, `80/udp`, `8000-8010/tcp`. */
function portsOf(text: string): string[] {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/([A-Za-z]+))?$/.exec(text);
  if (match === null) throw invalid(`invalid containerPort: ${text}`);
  const protocol = (match[3] ?? "tcp").toLowerCase();
  if (!["tcp", "udp", "sctp"].includes(protocol)) throw invalid(`invalid proto: ${protocol}`);
  const from = Number(match[1]);
  const to = Number(match[2] ?? match[1]);
  if (from > to || to > 65_535) throw invalid(`invalid containerPort: ${text}`);
  return Array.from({ length: to - from + 1 }, (_, index) => `${from + index}/${protocol}`);
}

function goDuration(ns: number | undefined): string {
  return JSON.stringify(
    ns === undefined
      ? "0s"
      : ns % 60e9 === 0
        ? `${ns / 60e9}m0s`
        : ns % 1e9 === 0
          ? `${ns / 1e9}s`
          : `${ns / 1e6}ms`,
  );
}

/** Applies an instruction that only changes the config. Throws `invalid` with Docker's words. */
export function changeConfig(
  before: RunConfig,
  instruction: MetaInstruction,
  words: WordOptions,
): ConfigChange {
  const config: RunConfig = { ...before };
  const note = change(config, instruction, (text) => expandWord(text, words), words);
  return { config, note, ...(instruction.kind === "maintainer" ? { author: instruction.value } : {}) };
}

function change(
  config: RunConfig,
  instruction: MetaInstruction,
  expand: (text: string) => string,
  words: WordOptions,
): string {
  switch (instruction.kind) {
    case "cmd":
      config.Cmd = commandWords(instruction.command, config.Shell);
      return `CMD ${quoted(config.Cmd)}`;
    case "entrypoint":
      config.Entrypoint = commandWords(instruction.command, config.Shell);
      return `ENTRYPOINT ${quoted(config.Entrypoint)}`;
    case "env": {
      const pairs = instruction.pairs.map(([name, value]) => [expand(name), expand(value)] as const);
      if (pairs.some(([name]) => name === "")) throw invalid("ENV names can not be blank");
      for (const [name, value] of pairs) config.Env = setEnv(config.Env, name, value);
      return `ENV ${pairs.map(([name, value]) => `${name}=${value}`).join(" ")}`;
    }
    case "label": {
      const plain = (text: string): string => (instruction.literal ? text : expand(text));
      const pairs = instruction.pairs.map(([name, value]) => [plain(name), plain(value)] as const);
      if (pairs.some(([name]) => name === "")) throw invalid("LABEL names can not be blank");
      config.Labels = Object.fromEntries([...Object.entries(config.Labels ?? {}), ...pairs].sort(byName));
      return `LABEL ${pairs.map(([name, value]) => `${name}=${value}`).join(" ")}`;
    }
    case "maintainer":
      return `MAINTAINER ${instruction.value}`;
    case "user":
      config.User = expand(instruction.value);
      return `USER ${config.User}`;
    case "stopsignal":
      config.StopSignal = expand(instruction.value);
      checkSignal(config.StopSignal);
      return `STOPSIGNAL ${config.StopSignal}`;
    case "expose": {
      const texts = instruction.ports.flatMap((text) => expandWords(text, words));
      const ports = texts.flatMap(portsOf);
      config.ExposedPorts = sortedKeys([...Object.keys(config.ExposedPorts ?? {}), ...ports]);
      return `EXPOSE ${[...texts].sort().join(" ")}`;
    }
    case "volume": {
      const paths = instruction.paths.map((path) => expand(path));
      if (paths.some((path) => path.trim() === ""))
        throw invalid("VOLUME specified can not be an empty string");
      config.Volumes = sortedKeys([...Object.keys(config.Volumes ?? {}), ...paths]);
      return `VOLUME [${paths.join(" ")}]`;
    }
    case "shell":
      config.Shell = instruction.words;
      return `SHELL [${instruction.words.join(" ")}]`;
    case "healthcheck": {
      const { health } = instruction;
      config.Healthcheck = health;
      const retries =
        health.Retries === undefined ? "'\\x00'" : `'\\x${health.Retries.toString(16).padStart(2, "0")}'`;
      return `HEALTHCHECK &{${quoted(health.Test ?? [])} ${goDuration(health.Interval)} ${goDuration(health.Timeout)} ${goDuration(health.StartPeriod)} ${retries}}`;
    }
    case "onbuild":
      config.OnBuild = [...(config.OnBuild ?? []), instruction.trigger];
      return `ONBUILD ${instruction.trigger}`;
  }
}

function byName([left]: readonly [string, unknown], [right]: readonly [string, unknown]): number {
  return left < right ? -1 : left > right ? 1 : 0;
}

function sortedKeys(keys: readonly string[]): Record<string, object> {
  return Object.fromEntries([...new Set(keys)].sort().map((key) => [key, {}]));
}
