import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const skiff = join(import.meta.dirname, "../../bin/skiff");

/** `skiff registry serve` as a user starts it, on a free port and a root of its own. `address`: `127.0.0.1:<port>`. */
export async function startRegistryServe(): Promise<{ readonly address: string } & AsyncDisposable> {
  const root = mkdtempSync(join(tmpdir(), "skiff-registry-"));
  const argv = ["registry", "serve", "--listen", "127.0.0.1:0", "--root", root, "--access-log", "off"];
  const child = spawn(skiff, argv, { stdio: ["ignore", "ignore", "pipe"] });
  const ended = once(child, "exit");
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) child.kill("SIGTERM");
    await ended;
    rmSync(root, { recursive: true, force: true });
  };
  const said: string[] = [];
  const lines = createInterface({ input: child.stderr });
  const ready = new Promise<string>((resolve) => {
    // Read to the end: a log that nobody takes would stop the server.
    lines.on("line", (line) => {
      said.push(line);
      const listen = /"listen":"([^"]+)"/.exec(line)?.[1];
      if (listen !== undefined) resolve(listen);
    });
  });
  const failed = ended.then(() =>
    Promise.reject(new Error(`the registry did not start: ${said.join("\n")}`)),
  );
  failed.catch(() => {});
  try {
    return { address: await Promise.race([ready, failed]), [Symbol.asyncDispose]: stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
