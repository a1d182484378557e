import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { errnoOf } from "#base/errors.ts";
import { lockDirectory } from "#sys/flock.ts";

/** A reason not to start, in one line for the administrator. */
export class StartupError extends Error {}

/**
 * Makes a root (0711: its users may pass through to the socket, nobody may list it) and locks it for this process.
 * Two daemons on one root would destroy each other's state.
 */
export function claimRoot(path: string, what: string): Disposable {
  mkdirSync(path, { recursive: true, mode: 0o711 });
  chmodSync(path, 0o711);
  const lock = lockDirectory(path);
  if (lock === undefined) throw new StartupError(`another skiffd uses the ${what} ${path}`);
  return lock;
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
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  writeFileSync(path, `${process.pid}`, { mode: 0o644 });
  return {
    [Symbol.dispose]: () => {
      // A successor may have replaced it already.
      if (existsSync(path) && readFileSync(path, "latin1").trim() === String(process.pid)) rmSync(path);
    },
  };
}
