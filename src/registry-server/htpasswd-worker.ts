import { parentPort } from "node:worker_threads";
import { compareSync } from "bcryptjs";

/** The thread of `htpasswd-verify.ts`: one bcrypt after another, so that no request waits for a hash that is not its own. */
const port = parentPort!;

port.on("message", ({ id, password, hash }: { id: number; password: string; hash: string }) => {
  let matches = false;
  try {
    matches = compareSync(password, hash);
  } catch {
    // Hashes were checked when they were read; whatever bcrypt cannot work with matches nothing.
  }
  port.postMessage({ id, matches });
});
