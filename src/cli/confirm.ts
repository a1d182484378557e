import type { CliContext } from "./context.ts";

/** Asks on stdout and reads one line from stdin: only `y` and `Y` are a yes. */
export async function confirm(context: CliContext, question: string): Promise<boolean> {
  context.write(`${question} [y/N] `);
  const answer = await readLine();
  return answer.trim().toLowerCase() === "y";
}

/** One line from stdin, without its end; empty at end of file. */
export function readLine(): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const finish = (): void => {
      process.stdin.removeListener("data", onData);
      process.stdin.removeListener("end", finish);
      process.stdin.pause();
      resolve(text.split("\n")[0]!.replace(/\r$/, ""));
    };
    const onData = (chunk: Buffer): void => {
      text += chunk.toString();
      if (text.includes("\n")) finish();
    };
    process.stdin.on("data", onData);
    process.stdin.once("end", finish);
  });
}
