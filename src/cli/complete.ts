/** Shell completion by cobra's protocol: candidates, one a line with a summary after a tab, then `:DIRECTIVE`. */
import { join } from "node:path";
import type { CommandEntry } from "./command.ts";
import { groups, topCommands } from "./commands.ts";
import { CliContext } from "./context.ts";
import { FlagError, type FlagSpec, type Flags, HelpRequested, parseFlags } from "./flags.ts";
import { globalFlags } from "./global-options.ts";
import type { Invocation } from "./invocation.ts";
import { sanitizeCell } from "./sanitize.ts";

const directives = { default: 0, noFiles: 4 } as const;
const directiveNames: Readonly<Record<number, string>> = {
  0: "ShellCompDirectiveDefault",
  4: "ShellCompDirectiveNoFileComp",
};

interface Candidate {
  readonly text: string;
  readonly summary?: string;
}

interface Answer {
  readonly candidates: readonly Candidate[];
  readonly directive: number;
}

const nothing: Answer = { candidates: [], directive: directives.default };

/** Prints candidates for the last word of `__complete WORDS…`. Never fails: a shell is waiting. */
export async function complete(invocation: Invocation, withSummaries: boolean): Promise<number> {
  const answer = await answerFor(invocation).catch(() => nothing);
  for (const { text, summary } of answer.candidates) {
    const line = withSummaries && summary !== undefined ? `${text}\t${summary.split("\n")[0]}` : text;
    process.stdout.write(`${sanitizeKeepTab(line)}\n`);
  }
  process.stdout.write(`:${answer.directive}\n`);
  process.stderr.write(`Completion ended with directive: ${directiveNames[answer.directive]}\n`);
  return 0;
}

function sanitizeKeepTab(line: string): string {
  return line.split("\t").map(sanitizeCell).join("\t");
}

async function answerFor({ words, env, program }: Invocation): Promise<Answer> {
  const typed = words.slice(1);
  const last = typed.at(-1) ?? "";
  const directory = env["DOCKER_CONFIG"] || join(env["HOME"] || "/", ".docker");
  const specs = globalFlags(directory);
  const { flags, args } = parseFlags(specs, typed.slice(0, -1), false);
  const context = new CliContext(program, env, flags);
  const [first, second, ...rest] = args;
  if (first === undefined) {
    return last.startsWith("-")
      ? flagNames(specs, last)
      : matching([...topCommands, ...groups, { name: "help", summary: "Help about the command" }], last);
  }
  const group = groups.find((candidate) => candidate.name === first);
  if (group !== undefined && second === undefined) return matching(group.commands, last);
  const entry =
    group === undefined
      ? topCommands.find((candidate) => candidate.name === first)
      : group.commands.find((candidate) => candidate.name === second);
  if (entry === undefined) return nothing;
  const own = group === undefined ? args.slice(1) : rest;
  try {
    return await forCommand(context, entry, own, last);
  } finally {
    context.close();
  }
}

async function forCommand(
  context: CliContext,
  entry: CommandEntry,
  words: readonly string[],
  last: string,
): Promise<Answer> {
  const command = await entry.load();
  let parsed: { flags: Flags; args: readonly string[] };
  try {
    parsed = parseFlags(command.flags, words, command.interspersed !== false);
  } catch (error) {
    // A flag that waits for its value, which is what is being typed.
    if (error instanceof FlagError || error instanceof HelpRequested) return nothing;
    throw error;
  }
  const open = parsed.args.length === 0 || command.interspersed !== false;
  if (last.startsWith("-") && open) return flagNames(command.flags, last);
  return objects(context, command.usage, parsed.args.length, last);
}

/** Names of containers, images, volumes or networks, by what the usage asks for. */
async function objects(context: CliContext, usage: string, position: number, last: string): Promise<Answer> {
  const wanted = usage.replace(/^\[OPTIONS\] ?/, "").split(" ");
  const slot = wanted[Math.min(position, wanted.length - 1)] ?? "";
  const { client } = context;
  let names: string[] = [];
  if (/CONTAINER/.test(slot)) {
    const list = await client.json<{ Names: string[] | null }[]>("GET", "/containers/json", {
      query: { all: true },
    });
    names = list.flatMap((item) => (item.Names ?? []).map((name) => name.replace(/^\//, "")));
  } else if (/IMAGE/.test(slot)) {
    const list = await client.json<{ RepoTags: string[] | null }[]>("GET", "/images/json");
    names = list.flatMap((item) => item.RepoTags ?? []).filter((name) => name !== "<none>:<none>");
  } else if (/VOLUME/.test(slot)) {
    const list = await client.json<{ Volumes: { Name: string }[] | null }>("GET", "/volumes");
    names = (list.Volumes ?? []).map((item) => item.Name);
  } else if (/NETWORK/.test(slot)) {
    const list = await client.json<{ Name: string }[]>("GET", "/networks");
    names = list.map((item) => item.Name);
  } else return nothing;
  return {
    candidates: names.filter((name) => name.startsWith(last)).map((text) => ({ text })),
    directive: directives.noFiles,
  };
}

function matching(
  entries: readonly { name: string; summary: string; hidden?: boolean }[],
  prefix: string,
): Answer {
  const candidates = entries
    .filter((entry) => entry.hidden !== true && entry.name.startsWith(prefix))
    .map((entry) => ({ text: entry.name, summary: entry.summary }))
    .sort((one, other) => (one.text < other.text ? -1 : 1));
  return { candidates, directive: directives.noFiles };
}

function flagNames(specs: readonly FlagSpec[], prefix: string): Answer {
  const candidates: Candidate[] = [];
  for (const spec of specs.toSorted((one, other) => (one.name < other.name ? -1 : 1))) {
    if (spec.hidden === true || spec.aliasOf !== undefined) continue;
    if (`--${spec.name}`.startsWith(prefix)) candidates.push({ text: `--${spec.name}`, summary: spec.help });
    if (spec.short !== undefined && prefix === "-")
      candidates.push({ text: `-${spec.short}`, summary: spec.help });
  }
  return { candidates, directive: directives.noFiles };
}
