import { ExitError } from "./command.ts";
import type { CliContext } from "./context.ts";
import { errorText } from "./error-text.ts";

/** How many requests of one command run at a time, as Docker's client does. */
const parallelMax = 50;

/**
 * Does something to each name. Success prints the name, as it comes in order; failures are told at the end and make
 * the exit code 1.
 */
export async function forEachName(
  context: CliContext,
  names: readonly string[],
  act: (name: string) => Promise<string | undefined>,
): Promise<number> {
  const failures: string[] = [];
  for (let at = 0; at < names.length; at += parallelMax) {
    const batch = names.slice(at, at + parallelMax);
    const running = batch.map((name) =>
      act(name).then(
        (text) => ({ text, failure: undefined }),
        (error: unknown) => ({ text: undefined, failure: errorText(error) }),
      ),
    );
    for (const one of running) {
      const { text, failure } = await one;
      if (failure !== undefined) failures.push(failure);
      else if (text !== undefined) context.print(text);
    }
  }
  if (failures.length > 0) throw new ExitError(1, failures.join("\n"));
  return 0;
}

/** One after another. */
export async function forEachInTurn(
  context: CliContext,
  names: readonly string[],
  act: (name: string) => Promise<string | undefined>,
): Promise<number> {
  const failures: string[] = [];
  for (const name of names) {
    try {
      const text = await act(name);
      if (text !== undefined) context.print(text);
    } catch (error) {
      failures.push(errorText(error));
    }
  }
  if (failures.length > 0) throw new ExitError(1, failures.join("\n"));
  return 0;
}
