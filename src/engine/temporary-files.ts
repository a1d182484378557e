import { existsSync, readdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { messageOf } from "#base/errors.ts";
import type { Log } from "#base/log.ts";

/** `load-`, `import-`, `pack-`, `build-` and 16 hex digits: names that their makers choose at random. */
const temporaryName = /^[a-z]{2,16}-[0-9a-f]{16}(?:\.tar)?$/;

/**
 * At a daemon's start: spools and directories of work that died with the daemon before it. They are deleted in the
 * background, since a context may be large; new work has other names.
 */
export function removeTemporaries(directory: string, log: Log): void {
  if (!existsSync(directory)) return;
  for (const name of readdirSync(directory)) {
    if (!temporaryName.test(name)) continue;
    rm(join(directory, name), { recursive: true, force: true }).catch((error: unknown) => {
      log.warn("removing what interrupted work left", { name, error: messageOf(error) });
    });
  }
}
