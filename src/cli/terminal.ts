import { spawnSync } from "node:child_process";

/** Columns and rows of the terminal on stdout, or zeros. */
export function terminalSize(): { width: number; height: number } {
  if (process.stdout.isTTY !== true) return { width: 0, height: 0 };
  const [width, height] = process.stdout.getWindowSize();
  return { width, height };
}

/**
 * Puts the terminal on stdin into raw mode until disposed. Node's own raw mode leaves output processing on, which
 * doubles the carriage returns of a container's terminal and breaks full-screen programs: stty turns it off too.
 */
export function rawMode(): Disposable {
  const input = process.stdin;
  if (input.isTTY !== true) return { [Symbol.dispose]: () => {} };
  const stty = (...args: string[]): string | undefined => {
    const done = spawnSync("stty", args, { stdio: ["inherit", "pipe", "ignore"] });
    return done.status === 0 ? done.stdout.toString().trim() : undefined;
  };
  const saved = stty("-g");
  const plain = saved === undefined || stty("raw", "-echo") === undefined;
  if (plain) input.setRawMode(true);
  let restored = false;
  const restore = (): void => {
    if (restored) return;
    restored = true;
    process.removeListener("exit", restore);
    if (plain) input.setRawMode(false);
    else stty(saved!);
  };
  process.once("exit", restore);
  return { [Symbol.dispose]: restore };
}

/** Calls back on every change of the terminal's size, until disposed. */
export function onResize(callback: () => void): Disposable {
  process.on("SIGWINCH", callback);
  return { [Symbol.dispose]: () => process.removeListener("SIGWINCH", callback) };
}
