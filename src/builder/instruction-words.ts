import { sumGoDuration } from "#wire/go-duration.ts";
import type { HealthConfig } from "#wire/oci-image.ts";
import { jsonWords, splitQuoted } from "#wire/word-expand.ts";
import type { Heredoc } from "./dockerfile-lines.ts";
import { readFlags } from "./instruction-flags.ts";
import type { CommandLine, NameValue } from "./instructions.ts";

export function commandLine(text: string, heredocs: readonly Heredoc[]): CommandLine {
  const words = jsonWords(text);
  return words === undefined ? { form: "shell", text, heredocs } : { form: "exec", words };
}

/** `a=b "c d"=e`, or the old `name rest of line`. */
export function nameValues(text: string, keyword: string, escapeWith: string): NameValue[] {
  const words = splitQuoted(text, escapeWith);
  const first = words[0] ?? "";
  if (!first.includes("=")) {
    const match = /^(\S+)\s+(.*)$/s.exec(text);
    if (match === null) throw new Error(`${keyword} must have two arguments`);
    return [[match[1] ?? "", match[2] ?? ""]];
  }
  return words.map((word) => {
    const equals = word.indexOf("=");
    if (equals < 0) {
      throw new Error(
        `Syntax error - can't find = in ${JSON.stringify(word)}. Must be of the form: name=value`,
      );
    }
    if (equals === 0) throw new Error(`${keyword} names can not be blank`);
    return [word.slice(0, equals), word.slice(equals + 1)] as const;
  });
}

/** Nanoseconds of a Go duration; Docker asks for at least a millisecond, or 0 for "inherit". */
function durationNs(text: string, flag: string): number {
  if (text === "" || text === "0") return 0;
  if (!/^[+-]?(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+$/.test(text)) {
    throw new Error(`time: invalid duration ${JSON.stringify(text)}`);
  }
  const total = text.startsWith("-") ? -sumGoDuration(text) : sumGoDuration(text);
  if (total < 0) throw new Error(`Interval ${JSON.stringify(flag)} cannot be negative`);
  if (total !== 0 && total < 1e6) throw new Error(`Interval ${JSON.stringify(flag)} cannot be less than 1ms`);
  return Math.round(total);
}

/** The arguments of HEALTHCHECK. */
export function parseHealthcheck(text: string): HealthConfig {
  const flags = readFlags(text, {
    text: ["interval", "timeout", "start-period", "start-interval", "retries"],
  });
  const [, type = "", tail = ""] = /^(\S*)\s*(.*)$/s.exec(flags.rest) ?? [];
  if (type.toUpperCase() === "NONE") {
    if (tail !== "") throw new Error("HEALTHCHECK NONE takes no arguments");
    return { Test: ["NONE"] };
  }
  if (type.toUpperCase() !== "CMD") {
    throw new Error(`Unknown type ${JSON.stringify(type.toUpperCase())} in HEALTHCHECK (try CMD)`);
  }
  if (tail === "") throw new Error("Missing command after HEALTHCHECK CMD");
  const words = jsonWords(tail);
  const retries = flags.text("retries");
  if (retries !== "" && !/^\d{1,9}$/.test(retries))
    throw new Error(`--retries cannot be negative or no number (${retries})`);
  const entries: [keyof HealthConfig, number][] = [
    ["Interval", durationNs(flags.text("interval"), "interval")],
    ["Timeout", durationNs(flags.text("timeout"), "timeout")],
    ["StartPeriod", durationNs(flags.text("start-period"), "start-period")],
    ["StartInterval", durationNs(flags.text("start-interval"), "start-interval")],
    ["Retries", Number(retries)],
  ];
  return {
    Test: words === undefined ? ["CMD-SHELL", tail] : ["CMD", ...words],
    ...Object.fromEntries(entries.filter(([, value]) => value !== 0)),
  };
}
