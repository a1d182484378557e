import { join } from "node:path";
import { type Command, type CommandEntry, type CommandGroup, ExitError } from "./command.ts";
import { commonCommands, groups, otherCommands, topCommands } from "./commands.ts";
import { CliContext } from "./context.ts";
import { daemonHint, errorText } from "./error-text.ts";
import { FlagError, type Flags, HelpRequested, parseFlags } from "./flags.ts";
import { globalFlags } from "./global-options.ts";
import { argumentComplaint, commandHelp, groupHelp, rootHelp, usageLine } from "./help.ts";
import type { Invocation } from "./invocation.ts";
import { sanitizeLine } from "./sanitize.ts";
import { gitCommit, version } from "./version.ts";

const logLevels: ReadonlySet<string> = new Set([
  "panic",
  "fatal",
  "error",
  "warn",
  "warning",
  "info",
  "debug",
  "trace",
]);

function helpWidth(): number {
  return process.stdout.isTTY === true ? process.stdout.columns || 80 : 80;
}

const printError = (text: string): void => {
  process.stderr.write(`${sanitizeLine(text)}\n`);
};

/** Runs the command line to its end and gives the exit code. Throws nothing. */
export async function runCommandLine(invocation: Invocation): Promise<number> {
  let context: CliContext | undefined;
  try {
    const { env, words, program } = invocation;
    if (words[0] === "__complete" || words[0] === "__completeNoDesc") {
      const { complete } = await import("./complete.ts");
      return await complete(invocation, words[0] === "__complete");
    }
    const directory = env["DOCKER_CONFIG"] || join(env["HOME"] || "/", ".docker");
    const specs = globalFlags(directory);
    const { flags, args } = parseGlobal(program, specs, words);
    if (flags === undefined) return 0;
    if (!logLevels.has(flags.text("log-level"))) {
      throw new ExitError(1, `Unable to parse logging level: ${flags.text("log-level")}`);
    }
    if (flags.bool("version")) {
      process.stdout.write(versionLine(program));
      return 0;
    }
    if (flags.changed("host") && flags.changed("context"))
      throw new ExitError(1, "conflicting options: cannot specify both --host and --context");
    context = new CliContext(program, env, flags);
    return await runArguments(context, args);
  } catch (error) {
    return report(error, invocation.program);
  } finally {
    context?.close();
  }
}

/** `docker -v` is parsed by scripts: the shape `NAME version X, build Y` is Docker's. */
export function versionLine(program: string): string {
  const name = program === "docker" ? "Docker" : "Skiff";
  return `${name} version ${version}, build ${gitCommit}\n`;
}

function parseGlobal(
  program: string,
  specs: ReturnType<typeof globalFlags>,
  words: readonly string[],
): { flags: Flags | undefined; args: readonly string[] } {
  try {
    return parseFlags(specs, words, false);
  } catch (error) {
    if (error instanceof HelpRequested) {
      warnShorthand(error);
      process.stdout.write(rootHelpText(program, specs));
      return { flags: undefined, args: [] };
    }
    if (!(error instanceof FlagError)) throw error;
    throw new ExitError(
      125,
      `${error.message}\n\nUsage:  ${program} [OPTIONS] COMMAND [ARG...]\n\nRun '${program} --help' for more information`,
    );
  }
}

function warnShorthand(help: HelpRequested): void {
  if (help.deprecatedShorthand) printError("Flag shorthand -h has been deprecated, use --help");
}

function rootHelpText(program: string, specs: ReturnType<typeof globalFlags>): string {
  return rootHelp({
    program,
    width: helpWidth(),
    common: commonCommands,
    groups,
    others: otherCommands,
    flags: specs,
  });
}

async function runArguments(context: CliContext, args: readonly string[]): Promise<number> {
  const { program } = context;
  const [first, ...rest] = args;
  if (first === undefined) {
    process.stdout.write(rootHelpText(program, globalFlags(context.configDirectory)));
    return 0;
  }
  if (first === "help") return runHelp(context, rest);
  const group = groups.find((candidate) => candidate.name === first);
  if (group !== undefined) return runGroup(context, group, rest);
  const entry = topCommands.find((candidate) => candidate.name === first);
  if (entry !== undefined) return runEntry(context, entry, entry.name, rest);
  const { findPlugin, runPlugin } = await import("./plugins.ts");
  const plugin = findPlugin(context, first);
  if (plugin !== undefined) return runPlugin(context, plugin, args);
  throw new ExitError(
    1,
    `${program}: unknown command: ${program} ${first}\n\nRun '${program} --help' for more information`,
  );
}

async function runHelp(context: CliContext, words: readonly string[]): Promise<number> {
  const [first, second] = words;
  const known =
    first === undefined ||
    groups.some(({ name }) => name === first) ||
    topCommands.some(({ name }) => name === first);
  if (!known) throw new ExitError(1, `unknown help topic: ${words.join(" ")}`);
  if (first === undefined) return runArguments(context, []);
  return runArguments(context, [first, ...(second === undefined ? [] : [second]), "--help"]);
}

async function runGroup(context: CliContext, group: CommandGroup, args: readonly string[]): Promise<number> {
  const { program } = context;
  const [first, ...rest] = args;
  const full = `${program} ${group.name}`;
  if (first === undefined) {
    printError(groupHelp(program, group).trimEnd());
    return 0;
  }
  const usage = `Usage:  ${program} ${group.usage ?? group.name}\n\nRun '${full} --help' for more information`;
  if (first.startsWith("-") && first !== "-") {
    try {
      parseFlags([], args, true);
    } catch (error) {
      if (error instanceof HelpRequested) {
        warnShorthand(error);
        process.stdout.write(groupHelp(program, group));
        return 0;
      }
      if (error instanceof FlagError) throw new ExitError(125, `${error.message}\n\n${usage}`);
      throw error;
    }
  }
  const entry = group.commands.find(
    (candidate) => candidate.name === first || candidate.aliases?.includes(first) === true,
  );
  if (entry === undefined)
    throw new ExitError(1, `${program}: unknown command: ${full} ${first}\n\n${usage}`);
  return runEntry(context, entry, `${group.name} ${entry.name}`, rest);
}

async function runEntry(
  context: CliContext,
  entry: CommandEntry,
  path: string,
  words: readonly string[],
): Promise<number> {
  const { program } = context;
  const command = await entry.load();
  const usage = usageLine({ program, path }, command);
  let parsed: ReturnType<typeof parseFlags>;
  try {
    parsed = parseFlags(command.flags, words, command.interspersed !== false);
  } catch (error) {
    if (error instanceof HelpRequested) return showHelp(error, program, path, entry, command);
    if (!(error instanceof FlagError)) throw error;
    throw new ExitError(
      125,
      `${error.message}\n\nUsage:  ${usage}\n\nRun '${program} ${path} --help' for more information`,
    );
  }
  const complaint = argumentComplaint(command.args, parsed.args.length, { program, path, usage });
  if (complaint !== undefined) throw new ExitError(1, complaint);
  return command.run(context, parsed.flags, parsed.args);
}

function showHelp(
  help: HelpRequested,
  program: string,
  path: string,
  entry: CommandEntry,
  command: Command,
): number {
  warnShorthand(help);
  process.stdout.write(commandHelp({ program, path, width: helpWidth() }, entry, command));
  return 0;
}

function report(error: unknown, program: string): number {
  if (error instanceof ExitError) {
    if (error.message !== "") printError(error.message);
    return error.code;
  }
  printError(errorText(error) + daemonHint(error, program));
  return 1;
}
