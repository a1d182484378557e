import type { Command, CommandEntry } from "./command.ts";

export type Loader = () => Promise<Command>;

interface EntryOptions {
  readonly aliases?: readonly string[];
  readonly paths?: readonly string[];
  readonly hidden?: boolean;
}

/** One name of the command tree; its module is loaded when it is used. */
export function entry(name: string, summary: string, load: Loader, options: EntryOptions = {}): CommandEntry {
  return { name, summary, load, ...options };
}

/** A command that is both `container start` and `start`. */
export function both(
  group: string,
  name: string,
  top: string,
  summary: string,
  load: Loader,
  aliases: string[] = [],
): CommandEntry[] {
  const paths = [`${group} ${name}`, ...aliases.map((alias) => `${group} ${alias}`), top];
  return [entry(name, summary, load, { paths, aliases }), entry(top, summary, load, { paths })];
}
