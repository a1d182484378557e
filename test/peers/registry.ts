import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ensurePeers } from "./peer-cache.ts";

export interface PeerRegistry extends AsyncDisposable {
  /** `127.0.0.1:<port>` */
  readonly address: string;
  readonly port: number;
  readonly child: ChildProcess;
}

/** A TCP port of 127.0.0.1 that is free now. */
export async function freePort(): Promise<number> {
  for (;;) {
    // Below what the kernel gives to whoever asks for any: nobody takes it between this look and the use.
    const port = randomInt(20_000, 32_000);
    const server = createServer();
    const isFree = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => resolve(true));
    });
    if (!isFree) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}

/**
 * Debian's docker-registry on loopback with storage of its own. `htpasswd`: lines of an Apache password file (bcrypt).
 * `netnsOf`: run in the network namespace of that pid (a peer engine's). `tls`: paths of a certificate and its key.
 */
export async function startRegistry(
  options: {
    htpasswd?: string;
    netnsOf?: number;
    port?: number;
    tls?: { certificate: string; key: string };
  } = {},
): Promise<PeerRegistry> {
  const peers = ensurePeers();
  const home = mkdtempSync(join(tmpdir(), "skiff-peer-registry-"));
  const port = options.port ?? (await freePort());
  const auth =
    options.htpasswd === undefined
      ? ""
      : `auth:\n  htpasswd:\n    realm: skiff-test\n    path: ${join(home, "htpasswd")}\n`;
  if (options.htpasswd !== undefined) writeFileSync(join(home, "htpasswd"), options.htpasswd);
  const tls =
    options.tls === undefined
      ? ""
      : `  tls:\n    certificate: ${options.tls.certificate}\n    key: ${options.tls.key}\n`;
  writeFileSync(
    join(home, "config.yml"),
    `version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: ${join(home, "data")}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:${port}\n${tls}${auth}`,
  );
  const log = openSync(join(home, "log"), "a");
  const command = [peers.path("docker-registry"), "serve", join(home, "config.yml")];
  const argv =
    options.netnsOf === undefined ? command : ["nsenter", "-t", String(options.netnsOf), "-n", ...command];
  const child = spawn(argv[0]!, argv.slice(1), {
    env: { ...peers.env, OTEL_TRACES_EXPORTER: "none" },
    stdio: ["ignore", log, log],
  });
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
      child.kill("SIGKILL");
      await ended;
    }
    rmSync(home, { recursive: true, force: true });
  };
  const deadline = performance.now() + 60_000;
  while (!listens(options.netnsOf ?? child.pid!, port)) {
    if (child.exitCode !== null || performance.now() > deadline) {
      const text = readFileSync(join(home, "log"), "utf8");
      await stop();
      throw new Error(`docker-registry did not start: ${text.slice(-2000)}`);
    }
    await sleep(20);
  }
  return { address: `127.0.0.1:${port}`, port, child, [Symbol.asyncDispose]: stop };
}

/** Whether somebody listens on the port in the network namespace of a process: proc(5), state 0A of /proc/net/tcp. */
function listens(pid: number, port: number): boolean {
  const end = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  try {
    const rows = readFileSync(`/proc/${pid}/net/tcp`, "utf8").split("\n");
    return rows.some((row) => {
      const [, local, , state] = row.trim().split(/\s+/);
      return local?.endsWith(end) === true && state === "0A";
    });
  } catch {
    return false;
  }
}
