import { chmodSync, existsSync, mkdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { describeErrno, errnoOf } from "#base/errors.ts";
import { lockDirectory } from "#sys/flock.ts";

/** A reason not to start, in one line for the administrator. */
export class StartupError extends Error {}

/** A locked root; disposing unlocks it. */
export interface Root extends Disposable {
  /** The start has come so far that the directory stays, also when it is empty. */
  keep(): void;
}

/**
 * Makes a root (0711: its users may pass through to the socket, nobody may list it) and locks it for this process.
 * Two daemons on one root would destroy each other's state. A root that was made here goes again when the start fails;
 * `withContent`, also when something is in it by then.
 */
export function claimRoot(path: string, what: string, { withContent = false } = {}): Root {
  const made = whatFails(what, path, () => mkdirSync(path, { recursive: true, mode: 0o711 }));
  const lock = whatFails(what, path, () => {
    chmodSync(path, 0o711);
    return lockDirectory(path);
  });
  if (lock === undefined) throw new StartupError(`another skiffd uses the ${what} ${path}`);
  let kept = made === undefined;
  return {
    keep: () => {
      kept = true;
    },
    [Symbol.dispose]: () => {
      if (!kept && withContent) rmSync(path, { recursive: true, force: true });
      lock[Symbol.dispose]();
      if (!kept) removeEmpty(path, made!);
    },
  };
}

function whatFails<T>(what: string, path: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === undefined) throw error;
    throw new StartupError(`${what} ${path}: ${describeErrno(errno)}`);
  }
}

/** Removes `path` and its parents up to `top`, as far as they are empty. */
function removeEmpty(path: string, top: string): void {
  for (let at = path; at.length >= top.length; at = dirname(at)) {
    try {
      rmdirSync(at);
    } catch (error) {
      // Something is in there by now: it stays.
      if (errnoOf(error) !== "ENOENT") return;
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errnoOf(error) === "EPERM";
  }
}

/** Writes our pid; a file that names a living process other than us is respected, as dockerd does. */
export function claimPidfile(path: string): Disposable {
  if (existsSync(path)) {
    const pid = Number(readFileSync(path, "latin1").trim());
    if (Number.isInteger(pid) && pid > 0 && pid !== process.pid && isAlive(pid)) {
      throw new StartupError(
        `failed to start daemon, ensure skiffd is not running or delete ${path}: process with PID ${pid} is still running`,
      );
    }
  }
  whatFails("pidfile", path, () => {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    writeFileSync(path, `${process.pid}`, { mode: 0o644 });
  });
  return {
    [Symbol.dispose]: () => {
      // A successor may have replaced it already.
      if (existsSync(path) && readFileSync(path, "latin1").trim() === String(process.pid)) rmSync(path);
    },
  };
}
