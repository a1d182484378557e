import type { ArgumentRule, Command, CommandEntry } from "../src/cli/command.ts";
import { groups, topCommands } from "../src/cli/commands.ts";
import type { FlagSpec } from "../src/cli/flags.ts";
import { globalFlags } from "../src/cli/global-options.ts";
import { options } from "../src/daemon/config-options.ts";

/** Manual pages (man(7)) from the same tables that the programs parse and that their --help prints. */
export interface ManualPage {
  readonly name: string;
  readonly section: 1 | 8;
  readonly text: string;
}

/** Text as roff takes it: no escapes, no requests at the start of a line, hyphens that can be copied. */
export function roff(text: string): string {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replace(/^([.'])/gm, "\\&$1");
}

const bold = (text: string): string => `.B ${roff(text)}`;

function header(name: string, section: number, summary: string): string[] {
  return [
    `.TH ${name.toUpperCase()} ${section} "" Skiff "Skiff's manual"`,
    ".SH NAME",
    `${roff(name)} \\- ${roff(summary)}`,
  ];
}

function paragraphs(text: string): string[] {
  return text.split(/\n{2,}/).flatMap((part, index) => [...(index === 0 ? [] : [".PP"]), roff(part)]);
}

function flagEntries(flags: readonly FlagSpec[]): string[] {
  return flags
    .filter((spec) => spec.hidden !== true && spec.aliasOf === undefined)
    .toSorted((one, other) => (one.name < other.name ? -1 : 1))
    .flatMap(({ name, short, type, help, shown }) => {
      const names = short === undefined ? `--${name}` : `-${short}, --${name}`;
      const value = type.label === "" ? "" : ` \\fI${roff(type.label)}\\fR`;
      const fallback = shown === undefined ? "" : ` (default ${shown})`;
      return [".TP", `\\fB${roff(names)}\\fR${value}`, roff(help + fallback)];
    });
}

function argumentText(rule: ArgumentRule): string | undefined {
  if (rule.kind === "none") return "It takes no arguments.";
  if (rule.kind === "atLeast" && rule.count > 0) return `It takes ${rule.count} or more arguments.`;
  return undefined;
}

async function commandPage(path: string, entry: CommandEntry): Promise<ManualPage> {
  const command: Command = await entry.load();
  const name = `skiff-${path.replaceAll(" ", "-")}`;
  const aliases = (entry.paths ?? []).filter((other) => other !== path);
  const takes = argumentText(command.args);
  const flags = flagEntries(command.flags);
  const lines = [
    ...header(name, 1, entry.summary),
    ".SH SYNOPSIS",
    bold(`skiff ${path}${command.usage === "" ? "" : ` ${command.usage}`}`),
    ".SH DESCRIPTION",
    ...paragraphs(command.description ?? `${entry.summary}.`),
    ...(takes === undefined ? [] : [".PP", takes]),
    ...(flags.length === 0 ? [] : [".SH OPTIONS", ...flags]),
    ...(aliases.length === 0
      ? []
      : [".SH ALIASES", ...aliases.flatMap((alias) => [bold(`skiff ${alias}`), ".br"])]),
    ".SH SEE ALSO",
    ".BR skiff (1),",
    ".BR skiffd (8)",
  ];
  return { name, section: 1, text: `${lines.join("\n")}\n` };
}

function overview(): ManualPage {
  const rows = (entries: readonly { name: string; summary: string; hidden?: boolean }[], prefix: string) =>
    entries
      .filter((entry) => entry.hidden !== true)
      .toSorted((one, other) => (one.name < other.name ? -1 : 1))
      .flatMap(({ name, summary }) => [
        ".TP",
        `.BR ${roff(`skiff-${prefix}${name}`)} (1)`,
        `${roff(summary)}.`,
      ]);
  const lines = [
    ...header("skiff", 1, "containers and images on one machine"),
    ".SH SYNOPSIS",
    ".B skiff",
    "[\\fIoptions\\fR] \\fIcommand\\fR [\\fIargument\\fR ...]",
    ".SH DESCRIPTION",
    "The command line of the Skiff container engine. It speaks to",
    ".BR skiffd (8)",
    "and to every other daemon with Docker's Engine API, with the grammar of Docker's own command line.",
    ".SH OPTIONS",
    ...flagEntries(globalFlags("~/.docker")),
    ".SH COMMANDS",
    ...rows(topCommands, ""),
    ...groups.flatMap((group) => [
      `.SS ${roff(`${group.summary} (skiff ${group.name})`)}`,
      ...rows(group.commands, `${group.name}-`),
    ]),
    ".SH ENVIRONMENT",
    ".TP",
    ".B DOCKER_HOST",
    "The daemon's address.",
    ".TP",
    ".B DOCKER_CONTEXT",
    "The context to use, where no address is given.",
    ".TP",
    ".B DOCKER_CONFIG",
    "The directory of the client's configuration, in place of ~/.docker.",
    ".TP",
    ".B DOCKER_TLS_VERIFY, DOCKER_CERT_PATH",
    "Verify a daemon on TCP, with ca.pem, cert.pem and key.pem of that directory.",
    ".TP",
    ".B DOCKER_API_VERSION",
    "The version of the API to speak, in place of the newest that both sides know.",
    ".SH SEE ALSO",
    ".BR skiffd (8)",
  ];
  return { name: "skiff", section: 1, text: `${lines.join("\n")}\n` };
}

const flagValue: Readonly<Record<string, string>> = { bool: "", integer: "number" };

interface DaemonOption {
  readonly flag: string;
  readonly short?: string;
  readonly key?: string;
  readonly kind: string;
  readonly help: string;
}

function daemonOption({ flag, short, key, kind, help }: DaemonOption): string[] {
  const names = short === undefined ? `--${flag}` : `-${short}, --${flag}`;
  const value = flagValue[kind] ?? "value";
  const inFile = key === undefined ? "" : ` In the configuration file: "${key}".`;
  return [
    ".TP",
    `\\fB${roff(names)}\\fR${value === "" ? "" : ` \\fI${value}\\fR`}`,
    roff(`${help}.${inFile}`),
  ];
}

function daemonPage(): ManualPage {
  const lines = [
    ...header("skiffd", 8, "the daemon of the Skiff container engine"),
    ".SH SYNOPSIS",
    ".B skiffd",
    "[\\fIoptions\\fR]",
    ".SH DESCRIPTION",
    "Serves Docker's Engine API. Containers outlive it: it may be stopped, killed, restarted and upgraded while they run.",
    "Whoever may write to its socket is root on this host; that is root and the group",
    ".IR skiff .",
    ".SH OPTIONS",
    ...options
      .toSorted((one, other) => (one.flag < other.flag ? -1 : 1))
      .flatMap((option: DaemonOption) => daemonOption(option)),
    ".SH FILES",
    ".TP",
    ".I /etc/skiff/daemon.json",
    "Configuration: one JSON object. A key that is also given as a flag is an error.",
    ".TP",
    ".I /run/skiff/skiff.sock",
    "The API's socket.",
    ".TP",
    ".I /var/lib/skiff",
    "Images, containers and volumes.",
    ".SH SIGNALS",
    ".TP",
    ".B SIGTERM, SIGINT",
    "Stop. Containers go on.",
    ".TP",
    ".B SIGHUP",
    "Read the configuration file again.",
    ".SH EXIT STATUS",
    "0 after a stop; 1 where it cannot start, with one line that says why; 70 when something within it is broken.",
    ".SH SEE ALSO",
    ".BR skiff (1)",
  ];
  return { name: "skiffd", section: 8, text: `${lines.join("\n")}\n` };
}

/** A page for every command that the help shows, an overview, and the daemon's. */
export async function manualPages(): Promise<ManualPage[]> {
  const commands = [
    ...topCommands.map((entry) => ({ path: entry.name, entry })),
    ...groups.flatMap((group) =>
      group.commands.map((entry) => ({ path: `${group.name} ${entry.name}`, entry })),
    ),
  ].filter(({ entry }) => entry.hidden !== true);
  return [
    overview(),
    daemonPage(),
    ...(await Promise.all(commands.map(({ path, entry }) => commandPage(path, entry)))),
  ];
}
