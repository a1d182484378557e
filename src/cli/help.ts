/** Usage texts in Docker's layout: sections, the options table, lines wrapped at the terminal's width. */
import type { ArgumentRule, Command, CommandEntry, CommandGroup } from "./command.ts";
import type { FlagSpec } from "./flags.ts";

const helpFlag = { name: "help", help: "Print usage" };

/** One row of an options table: `  -a, --all string` and what stands beside it. */
function optionRow(spec: FlagSpec): { left: string; right: string } {
  const name = spec.short === undefined ? `      --${spec.name}` : `  -${spec.short}, --${spec.name}`;
  const label = spec.type.label === "" ? "" : ` ${spec.type.label}`;
  const shown = spec.shown ?? (spec.type.label === "map" ? "map[]" : undefined);
  return { left: name + label, right: spec.help + (shown === undefined ? "" : ` (default ${shown})`) };
}

/** The options of a command, wrapped for `width` columns. `withHelp` adds a row for --help where a command shows it. */
export function optionsTable(flags: readonly FlagSpec[], width: number, withHelp = false): string {
  const rows = flags
    .filter((spec) => spec.hidden !== true && spec.aliasOf === undefined)
    .map((spec) => ({ name: spec.name, ...optionRow(spec) }));
  if (withHelp) rows.push({ name: helpFlag.name, left: `      --${helpFlag.name}`, right: helpFlag.help });
  rows.sort((one, other) => (one.name < other.name ? -1 : 1));
  const column = Math.max(...rows.map((row) => row.left.length)) + 3;
  return rows.map((row) => row.left.padEnd(column) + wrapText(row.right, column, width - 1)).join("\n");
}

/** Breaks a text at spaces so that it fits beside `indent` columns; the last few columns are slack. */
export function wrapText(text: string, indent: number, width: number): string {
  const slack = 5;
  const room = width - indent - slack;
  if (room + slack < 24) return text.replaceAll("\n", `\n${" ".repeat(indent)}`);
  const lines: string[] = [];
  let rest = text;
  while (rest !== "") {
    const cut = cutAt(rest, room, slack);
    lines.push(...rest.slice(0, cut.end).split("\n"));
    rest = rest.slice(cut.next);
  }
  return lines.join(`\n${" ".repeat(indent)}`);
}

function cutAt(text: string, room: number, slack: number): { end: number; next: number } {
  const all = { end: text.length, next: text.length };
  if (room + slack > text.length) return all;
  const head = text.slice(0, room);
  const space = Math.max(head.lastIndexOf(" "), head.lastIndexOf("\t"), head.lastIndexOf("\n"));
  if (space <= 0) return all;
  const newline = head.lastIndexOf("\n");
  const end = newline > 0 && newline < space ? newline : space;
  return { end, next: end + 1 };
}

export interface HelpTarget {
  readonly program: string;
  /** `container run`. */
  readonly path: string;
  readonly width: number;
}

export function usageLine({ program, path }: { program: string; path: string }, command: Command): string {
  return `${program} ${path}${command.usage === "" ? "" : ` ${command.usage}`}`;
}

/** What `--help` prints for a command. */
export function commandHelp(target: HelpTarget, entry: CommandEntry, command: Command): string {
  const lines = [`Usage:  ${usageLine(target, command)}`, "", command.description ?? entry.summary];
  if (entry.paths !== undefined && entry.paths.length > 1) {
    lines.push("", "Aliases:", `  ${entry.paths.map((path) => `${target.program} ${path}`).join(", ")}`);
  }
  if (command.flags.some((spec) => spec.hidden !== true)) {
    // A command that has -h of its own lists --help, as there is no shorthand for it.
    const ownsH = command.flags.some((spec) => spec.short === "h");
    lines.push("", "Options:", optionsTable(command.flags, target.width, ownsH));
  }
  return `${lines.join("\n")}\n`;
}

function commandRows(entries: readonly { name: string; summary: string }[], indent = 12): string[] {
  const column = Math.max(indent, ...entries.map((entry) => entry.name.length + 1));
  return entries.map((entry) => `  ${entry.name.padEnd(column)}${entry.summary}`);
}

/** What a group of commands prints for `--help` and without a subcommand. */
export function groupHelp(program: string, group: CommandGroup): string {
  const rows = commandRows(
    group.commands
      .filter((entry) => entry.hidden !== true)
      .toSorted((one, other) => (one.name < other.name ? -1 : 1)),
  );
  return `Usage:  ${program} ${group.name} COMMAND\n\n${group.summary}\n\nCommands:\n${rows.join("\n")}\n\nRun '${program} ${group.name} COMMAND --help' for more information on a command.\n`;
}

export interface RootHelp {
  readonly program: string;
  readonly width: number;
  readonly common: readonly CommandEntry[];
  readonly groups: readonly CommandGroup[];
  readonly others: readonly CommandEntry[];
  readonly flags: readonly FlagSpec[];
}

export function rootHelp(root: RootHelp): string {
  const byName = <T extends { name: string }>(items: readonly T[]): T[] =>
    items.toSorted((one, other) => (one.name < other.name ? -1 : 1));
  const { program } = root;
  return [
    `Usage:  ${program} [OPTIONS] COMMAND`,
    "",
    "Containers and images on one machine",
    "",
    "Common Commands:",
    ...commandRows(root.common),
    "",
    "Management Commands:",
    ...commandRows(byName(root.groups)),
    "",
    "Commands:",
    ...commandRows(byName(root.others)),
    "",
    "Global Options:",
    optionsTable(root.flags, root.width),
    "",
    `Run '${program} COMMAND --help' for more information on a command.`,
    "",
  ].join("\n");
}

/** The complaint about a wrong number of arguments, or undefined. The last line's odd starts are Docker's own. */
export function argumentComplaint(
  rule: ArgumentRule,
  given: number,
  names: { program: string; path: string; usage: string },
): string | undefined {
  const full = `${names.program} ${names.path}`;
  const say = (what: string, see: string): string =>
    `${names.program}: '${full}' ${what}\n\nUsage:  ${names.usage}\n\n${see} '${full} --help' for more information`;
  const words = (count: number): string => `${count} argument${count === 1 ? "" : "s"}`;
  switch (rule.kind) {
    case "none":
      return given === 0 ? undefined : say("accepts no arguments", "Run");
    case "exactly":
      return given === rule.count ? undefined : say(`requires ${words(rule.count)}`, "Run");
    case "atLeast":
      return given >= rule.count ? undefined : say(`requires at least ${words(rule.count)}`, "See");
    case "atMost":
      return given <= rule.count ? undefined : say(`requires at most ${words(rule.count)}`, "SRun");
    case "between": {
      const fits = given >= rule.min && given <= rule.max;
      return fits ? undefined : say(`requires at least ${rule.min} and at most ${words(rule.max)}`, "Run");
    }
    case "any":
      return undefined;
  }
}
