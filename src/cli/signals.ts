/** Signals that a foreground `run` or `attach` passes on to the container's process. */

/** All that a process can catch, but those that speak of our own children, terminal and output. */
const forwarded = [
  "SIGABRT",
  "SIGALRM",
  "SIGCONT",
  "SIGHUP",
  "SIGINT",
  "SIGIO",
  "SIGPOLL",
  "SIGPWR",
  "SIGQUIT",
  "SIGTERM",
  "SIGTRAP",
  "SIGTSTP",
  "SIGTTIN",
  "SIGTTOU",
  "SIGUSR2",
  "SIGVTALRM",
  "SIGXCPU",
  "SIGXFSZ",
] as const;

/** Calls back with the signal's name without `SIG`, until disposed. SIGUSR1 stays Node's own. */
export function forwardSignals(callback: (signal: string) => void): Disposable {
  const undo: (() => void)[] = [];
  for (const signal of forwarded) {
    const handler = (): void => callback(signal.slice(3));
    try {
      process.on(signal as NodeJS.Signals, handler);
      undo.push(() => process.removeListener(signal, handler));
    } catch {
      // A signal that this system does not have.
    }
  }
  // SIGUSR1 starts Node's debugger unless someone listens.
  const usr1 = (): void => callback("USR1");
  process.on("SIGUSR1", usr1);
  undo.push(() => process.removeListener("SIGUSR1", usr1));
  return {
    [Symbol.dispose]: () => {
      for (const step of undo) step();
    },
  };
}
