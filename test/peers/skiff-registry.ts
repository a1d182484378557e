import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Our own registry in a process of its own: tests wait for clients, and a server in their process would wait along. */
export interface SkiffRegistry extends AsyncDisposable {
  /** `127.0.0.1:<port>` */
  readonly address: string;
  readonly port: number;
  readonly root: string;
  readonly child: ChildProcess;
  log(): string;
  /** SIGKILL, as a crash would. */
  kill(): Promise<void>;
  /** Starts it again on the same root and port. */
  restart(): Promise<void>;
  /** Makes it reachable on the same port in the network namespace of that pid. */
  relay(netnsOf: number): Promise<void>;
}

/** Bytes from a port of a namespace to a unix socket: those are seen from every network namespace. */
const relayScript = `
const net = require("node:net");
net.createServer((from) => {
  const to = net.connect(process.argv[2]);
  from.pipe(to).pipe(from);
  from.on("error", () => to.destroy());
  to.on("error", () => from.destroy());
}).listen(Number(process.argv[1]), "127.0.0.1", () => console.log("listening"));
`;

export async function startSkiffRegistry(): Promise<SkiffRegistry> {
  const home = mkdtempSync(join(tmpdir(), "skiff-registry-"));
  const root = join(home, "root");
  const socket = join(home, "registry.sock");
  const logPath = join(home, "log");
  const children: ChildProcess[] = [];
  const start = async (argv: readonly string[]): Promise<{ child: ChildProcess; line: string }> => {
    const child = spawn(argv[0]!, argv.slice(1), { stdio: ["ignore", "pipe", openSync(logPath, "a")] });
    children.push(child);
    const line = await new Promise<string>((resolve, reject) => {
      child.stdout!.once("data", (bytes: Buffer) => resolve(bytes.toString().trim()));
      child.once("exit", (code) => {
        reject(new Error(`registry ended with ${code}: ${readFileSync(logPath, "utf8").slice(-2000)}`));
      });
    });
    return { child, line };
  };
  const program = join(import.meta.dirname, "skiff-registry-process.ts");
  const serve = (port: number) => {
    rmSync(socket, { force: true });
    return start([process.execPath, program, root, String(port), socket]);
  };
  const first = await serve(0);
  const port = Number(first.line);
  const state = { child: first.child };
  return {
    address: `127.0.0.1:${port}`,
    port,
    root,
    get child() {
      return state.child;
    },
    log: () => readFileSync(logPath, "utf8"),
    kill: () => ended(state.child),
    restart: async () => {
      state.child = (await serve(port)).child;
    },
    relay: async (netnsOf) => {
      const relay = [process.execPath, "-e", relayScript, String(port), socket];
      await start(["nsenter", "-t", String(netnsOf), "-n", "--", ...relay]);
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(children.map(ended));
      rmSync(home, { recursive: true, force: true });
    },
  };
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await exit;
}
