import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { busyboxLayout, debianLayout, pushLayout } from "../peers/images.ts";
import { type PeerRegistry, startRegistry } from "../peers/registry.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";

/** What a command line printed and how it ended. */
export interface Outcome {
  /** Exit code; 128 + signal number never appears here: a signal is -1. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** One of the command lines that tests drive, against one daemon. */
export interface Client {
  readonly name: string;
  readonly program: string;
  readonly env: NodeJS.ProcessEnv;
  run(args: readonly string[], options?: { stdin?: string; timeoutMs?: number }): Promise<Outcome>;
  /** As `run`, but throws unless the exit code is 0; returns standard output without its last newline. */
  out(...args: string[]): Promise<string>;
}

export const clientPrograms = [
  { name: "docker", program: "docker" },
  { name: "skiff", program: join(import.meta.dirname, "../../bin/skiff") },
] as const;

export function createClient(
  { name, program }: (typeof clientPrograms)[number],
  host: string,
  configDir: string,
): Client {
  const env = { ...process.env, DOCKER_HOST: host, DOCKER_CONFIG: configDir, TERM: "xterm" };
  const run: Client["run"] = (args, { stdin = "", timeoutMs = 60_000 } = {}) =>
    new Promise((resolve, reject) => {
      const child = spawn(program, args, { env, stdio: ["pipe", "pipe", "pipe"] });
      const chunks = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
      child.stdout.on("data", (chunk: Buffer) => chunks.stdout.push(chunk));
      child.stderr.on("data", (chunk: Buffer) => chunks.stderr.push(chunk));
      child.stdin.on("error", () => {});
      child.stdin.end(stdin);
      const timer = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
      child.on("error", reject);
      child.on("close", (code, signal) => {
        clearTimeout(timer);
        const stdout = Buffer.concat(chunks.stdout).toString("utf8");
        const stderr = Buffer.concat(chunks.stderr).toString("utf8");
        if (signal === "SIGKILL") {
          reject(new Error(`${name} ${args.join(" ")} did not end in time\n${stdout}\n${stderr}`));
        } else resolve({ code: code ?? -1, stdout, stderr });
      });
    });
  return {
    name,
    program,
    env,
    run,
    async out(...args) {
      const outcome = await run(args);
      if (outcome.code !== 0) {
        throw new Error(`${name} ${args.join(" ")}: exit code ${outcome.code}\n${outcome.stderr}`);
      }
      return outcome.stdout.replace(/\n$/, "");
    },
  };
}

/** A private daemon with the images `debian` and `busybox`, pulled from a registry on loopback. */
export interface RealLab extends AsyncDisposable {
  readonly daemon: TestDaemon;
  readonly registry: PeerRegistry;
  readonly clients: readonly Client[];
  /** For the test's own files; removed with the lab. */
  readonly folder: string;
}

/** `pulled: false` leaves the daemon without images; the registry has `debian:test` and `busybox:test` either way. */
export async function openRealLab(options: { pulled?: boolean; debian?: boolean } = {}): Promise<RealLab> {
  await using parts = new AsyncDisposableStack();
  const folder = mkdtempSync(join(tmpdir(), "skiff-real-"));
  parts.defer(() => rmSync(folder, { recursive: true, force: true }));
  const registry = parts.use(await startRegistry());
  pushLayout(busyboxLayout(), `${registry.address}/busybox:test`);
  if (options.debian !== false) pushLayout(debianLayout(), `${registry.address}/debian:test`);
  const daemon = parts.use(await startSkiffd());
  const clients = clientPrograms.map((program) => createClient(program, daemon.host, join(folder, "config")));
  if (options.pulled !== false) {
    for (const name of options.debian === false ? ["busybox"] : ["busybox", "debian"]) {
      await clients[0]!.out("pull", "-q", `${registry.address}/${name}:test`);
      await clients[0]!.out("tag", `${registry.address}/${name}:test`, name);
    }
  }
  const owned = parts.move();
  return { daemon, registry, clients, folder, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Polls until `check` gives something; throws with `what` after `timeoutMs`. */
export async function until<T>(
  what: string,
  check: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs = 30_000,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value !== undefined && value !== false) return value;
    if (performance.now() > deadline) throw new Error(`did not happen within ${timeoutMs} ms: ${what}`);
    await sleep(30);
  }
}
