/**
 * Two hosts on one machine: network and mount namespaces of their own, two cables between them. On the far one runs a
 * daemon that listens with TLS, and an sshd; on the near one run the clients.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Issued, issueCertificate, makeAuthority } from "#wire/x509-make.ts";
import { busyboxRoot, tarOf } from "../peers/images.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";
import { type SshServer, startSshd } from "../peers/sshd.ts";

export const skiff = join(import.meta.dirname, "../../bin/skiff");

/** The far host on the cable that stays, and on the one that is cut. */
export const far = { address: "10.77.0.1", address6: "fd77::1", cutAddress: "10.78.0.1", name: "far.test" };
export const near = { address: "10.77.0.2" };
export const tlsPort = 2376;

export interface Outcome {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface TwoHosts extends AsyncDisposable {
  readonly daemon: TestDaemon;
  readonly folder: string;
  /** Path of the near host's network namespace. */
  readonly nearNetwork: string;
  /** pid of a process in the far host's network namespace. */
  readonly farPid: number;
  /** Directory with ca.pem, cert.pem and key.pem of a client: `good`, `expired`, `foreign`. */
  certificates(kind: string): string;
  /** Starts a program on the near host. */
  start(words: readonly string[], env?: NodeJS.ProcessEnv): ChildProcess;
  /** Runs a program there to its end; SIGKILL after a while, which shows as code null. */
  run(words: readonly string[], env?: NodeJS.ProcessEnv, stdin?: Uint8Array): Promise<Outcome>;
  /** Takes the second cable out. */
  cut(): void;
}

/** How long any one command of these tests may take. */
const commandMs = 60_000;

interface Host {
  readonly pid: number;
  readonly enter: readonly string[];
}

/** A process that holds namespaces; nothing that is mounted there reaches the machine. */
async function openHost(parts: AsyncDisposableStack): Promise<Host> {
  const script = "mount --make-rprivate / && ip link set lo up && echo ready && exec sleep 3600";
  const child = spawn("unshare", ["--net", "--mount", "--", "sh", "-c", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  parts.defer(() => void child.kill("SIGKILL"));
  await new Promise<void>((resolve, reject) => {
    child.stdout.once("data", () => resolve());
    child.once("exit", () => reject(new Error("no namespaces")));
  });
  const pid = child.pid!;
  return { pid, enter: ["nsenter", "-t", String(pid), "-n", "-m", "--"] };
}

function on(host: Host, ...words: string[]): string {
  const [first, ...rest] = [...host.enter, ...words];
  return execFileSync(first!, rest, { encoding: "utf8" });
}

function plug(nearHost: Host, farHost: Host): void {
  for (const [name, network] of [
    ["wire", "77"],
    ["cut", "78"],
  ]) {
    on(
      nearHost,
      "ip",
      "link",
      "add",
      name!,
      "type",
      "veth",
      "peer",
      "name",
      name!,
      "netns",
      String(farHost.pid),
    );
    for (const [host, number] of [
      [farHost, 1],
      [nearHost, 2],
    ] as const) {
      on(host, "ip", "addr", "add", `10.${network}.0.${number}/24`, "dev", name!);
      on(host, "ip", "addr", "add", `fd${network}::${number}/64`, "dev", name!, "nodad");
      on(host, "ip", "link", "set", name!, "up");
    }
  }
}

const dayMs = 86_400_000;

/** Certificates of all kinds, one folder each, made as `skiff tls` makes them. */
function makeCertificates(folder: string): void {
  const now = Date.now();
  const good = { from: new Date(now - dayMs), until: new Date(now + dayMs) };
  const past = { from: new Date(now - 2 * dayMs), until: new Date(now - dayMs) };
  const authority = makeAuthority({ commonName: "Two hosts", ...good });
  const foreign = makeAuthority({ commonName: "Foreign", ...good });
  const client = { commonName: "near", use: "client" } as const;
  const hosts = [far.address, far.address6, far.cutAddress, far.name];
  const server = { commonName: far.name, use: "server", hosts } as const;
  const write = (kind: string, issued: Issued, ca: Issued): void => {
    const target = join(folder, kind);
    mkdirSync(target, { recursive: true });
    writeFileSync(join(target, "ca.pem"), ca.certificate);
    writeFileSync(join(target, "cert.pem"), issued.certificate);
    writeFileSync(join(target, "key.pem"), issued.key, { mode: 0o600 });
  };
  write("server", issueCertificate(authority, { ...server, ...good }), authority);
  write("good", issueCertificate(authority, { ...client, ...good }), authority);
  write("expired", issueCertificate(authority, { ...client, ...past }), authority);
  write("foreign", issueCertificate(foreign, { ...client, ...good }), authority);
  // Trusts another authority than the daemon's.
  write("distrustful", issueCertificate(authority, { ...client, ...good }), foreign);
}

/** `skiff`, and `docker` as another name of it, as an installation has them. */
function installClients(folder: string): string {
  const bin = join(folder, "bin");
  mkdirSync(bin);
  for (const name of ["skiff", "docker"]) symlinkSync(skiff, join(bin, name));
  return `${bin}:${process.env["PATH"] ?? ""}`;
}

function collect(child: ChildProcess, what: string): Promise<Outcome> {
  const out: Buffer[] = [];
  const said: Buffer[] = [];
  child.stdout!.on("data", (chunk: Buffer) => out.push(chunk));
  child.stderr!.on("data", (chunk: Buffer) => said.push(chunk));
  const timer = setTimeout(() => child.kill("SIGKILL"), commandMs);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => {
      clearTimeout(timer);
      const stderr = Buffer.concat(said).toString();
      if (signal !== null) reject(new Error(`${what}: ${signal}\n${stderr}`));
      else resolve({ code, stdout: Buffer.concat(out), stderr });
    });
  });
}

export const ended = (child: ChildProcess): Promise<Outcome> => collect(child, child.spawnargs.join(" "));

export async function openTwoHosts(): Promise<TwoHosts> {
  await using parts = new AsyncDisposableStack();
  const folder = mkdtempSync(join(tmpdir(), "skiff-hosts-"));
  parts.defer(() => rmSync(folder, { recursive: true, force: true }));
  const [nearHost, farHost] = [await openHost(parts), await openHost(parts)];
  plug(nearHost, farHost);
  makeCertificates(folder);
  const server = join(folder, "server");
  const tls = ["--tlsverify", "--tlscacert", join(server, "ca.pem")];
  tls.push("--tlscert", join(server, "cert.pem"), "--tlskey", join(server, "key.pem"));
  const daemon = parts.use(
    await startSkiffd({
      prefix: ["nsenter", "-t", String(farHost.pid), "-n", "--"],
      args: ["-H", `tcp://[::]:${tlsPort}`, ...tls, "--insecure-registry", `${near.address}:5000`],
    }),
  );
  const sshHome = join(folder, "ssh");
  mkdirSync(sshHome);
  const path = installClients(folder);
  const sshd: SshServer = parts.use(
    await startSshd({ home: sshHome, address: far.address, enter: farHost.enter, path }),
  );
  on(nearHost, "sh", "-c", sshd.clientSetUp.join(" && "));
  // ssh's master would outlive the namespaces.
  parts.defer(
    () => void spawnSync(nearHost.enter[0]!, [...nearHost.enter.slice(1), "ssh", "-O", "exit", far.address]),
  );
  writeFileSync(join(folder, "hosts"), `127.0.0.1 localhost\n${far.address} ${far.name} wrong.test\n`);
  on(nearHost, "mount", "--bind", join(folder, "hosts"), "/etc/hosts");
  const config = join(folder, "config");
  const start: TwoHosts["start"] = (words, env = {}) => {
    const [first, ...rest] = [...nearHost.enter, ...words];
    return spawn(first!, rest, {
      env: {
        ...process.env,
        ...sshd.env,
        DOCKER_CONFIG: config,
        DOCKER_BUILDKIT: "0",
        TERM: "xterm",
        ...env,
      },
      stdio: ["pipe", "pipe", "pipe"],
    });
  };
  const root = join(folder, "root");
  busyboxRoot(root);
  execFileSync(skiff, ["-H", daemon.host, "import", "-c", 'CMD ["sh"]', "-", "busybox:latest"], {
    input: tarOf(root),
  });
  const owned = parts.move();
  return {
    daemon,
    folder,
    nearNetwork: `/proc/${nearHost.pid}/ns/net`,
    farPid: farHost.pid,
    certificates: (kind) => join(folder, kind),
    start,
    run: (words, env, stdin) => {
      const child = start(words, env);
      child.stdin!.on("error", () => {});
      child.stdin!.end(stdin);
      return collect(child, words.join(" "));
    },
    cut: () => void on(nearHost, "ip", "link", "set", "cut", "down"),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
