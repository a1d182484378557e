import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Listens on a path or port and connects each client with the other. A process of its own: a test may block. */
const relay = `
const { connect, createServer } = require("node:net");
const address = (text) => (text.startsWith("/") ? { path: text } : { port: Number(text), host: "127.0.0.1" });
const [here, there] = process.argv.slice(1).map(address);
createServer((from) => {
  const to = connect(there);
  from.on("error", () => to.destroy());
  to.on("error", () => from.destroy());
  from.pipe(to).pipe(from);
}).listen(here, () => console.log("ready"));
`;

/**
 * Makes a port of this machine's loopback reachable under the same number on the loopback of a process's network
 * namespace: through a unix socket, which such namespaces do not part.
 */
export async function forwardPort(pid: number, port: number): Promise<AsyncDisposable> {
  const folder = mkdtempSync(join(tmpdir(), "skiff-forward-"));
  const path = join(folder, "sock");
  const node = [process.execPath, "-e", relay];
  const children: ChildProcess[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(children.map(end));
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    for (const argv of [
      [...node, path, String(port)],
      ["nsenter", "-t", String(pid), "-n", ...node, String(port), path],
    ]) {
      const child = spawn(argv[0]!, argv.slice(1), { stdio: ["ignore", "pipe", "inherit"] });
      children.push(child);
      const failed = once(child, "exit").then(() => {
        throw new Error(`port ${port} could not be forwarded`);
      });
      await Promise.race([once(child.stdout!, "data"), failed]);
      failed.catch(() => {});
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return { [Symbol.asyncDispose]: stop };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
}
