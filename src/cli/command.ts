import type { CliContext } from "./context.ts";
import type { FlagSpec, Flags } from "./flags.ts";

/** How many arguments a command takes. */
export type ArgumentRule =
  | { readonly kind: "none" }
  | { readonly kind: "exactly"; readonly count: number }
  | { readonly kind: "atLeast"; readonly count: number }
  | { readonly kind: "atMost"; readonly count: number }
  | { readonly kind: "between"; readonly min: number; readonly max: number }
  | { readonly kind: "any" };

export const noArguments: ArgumentRule = { kind: "none" };
export const exactly = (count: number): ArgumentRule => ({ kind: "exactly", count });
export const atLeast = (count: number): ArgumentRule => ({ kind: "atLeast", count });
export const atMost = (count: number): ArgumentRule => ({ kind: "atMost", count });
export const between = (min: number, max: number): ArgumentRule => ({ kind: "between", min, max });

/** What one command does; its module is loaded only when it is used. */
export interface Command {
  /** After the command's name: `[OPTIONS] IMAGE [COMMAND] [ARG...]`. */
  readonly usage: string;
  /** Replaces the one-line summary in the command's own help. */
  readonly description?: string;
  readonly flags: readonly FlagSpec[];
  readonly args: ArgumentRule;
  /** False: flags end at the first argument (run, create, exec). */
  readonly interspersed?: boolean;
  /** The process's exit code; thrown errors are printed and give 1. */
  run(context: CliContext, flags: Flags, args: readonly string[]): Promise<number>;
}

/** A name in the command tree. */
export interface CommandEntry {
  readonly name: string;
  readonly summary: string;
  readonly aliases?: readonly string[];
  /** What the help shows as aliases, as paths without the program's name. */
  readonly paths?: readonly string[];
  readonly hidden?: boolean;
  readonly load: () => Promise<Command>;
}

export interface CommandGroup {
  readonly name: string;
  readonly summary: string;
  /** Shown when a wrong subcommand was given; Docker is not consistent here. */
  readonly usage?: string;
  readonly commands: readonly CommandEntry[];
}

/** Ends the command with a code; `message` goes to stderr when it is not empty. */
export class ExitError extends Error {
  readonly code: number;

  constructor(code: number, message = "") {
    super(message);
    this.name = "ExitError";
    this.code = code;
  }
}
