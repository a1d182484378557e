import type { Environment } from "./global-options.ts";

/** One invocation of the command line. */
export interface Invocation {
  readonly program: string;
  /** Without the interpreter and the script. */
  readonly words: readonly string[];
  readonly env: Environment;
}
