import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cachedFolder, cacheFolder, unpackPackages } from "./package-cache.ts";

/** OpenSSH of Debian, both sides: unpacked into the cache, never installed. Raise the number when packages change. */
function ensureSsh(): string {
  mkdirSync(cacheFolder("peers"), { recursive: true });
  const folder = cachedFolder(join(cacheFolder("peers"), "ssh-1"), (target) =>
    unpackPackages(target, ["openssh-server", "openssh-client"]),
  );
  return join(folder, "root");
}

export interface SshServer extends AsyncDisposable {
  /** For a client's environment: where ssh is, and what it was linked with. */
  readonly env: Readonly<Record<string, string>>;
  /** Commands that make the mount namespace they run in know the server's key and how to log in there. */
  readonly clientSetUp: readonly string[];
}

export interface SshServerOptions {
  /** An empty folder for keys and configuration. */
  readonly home: string;
  readonly address: string;
  /** Command line that enters the far host's namespaces, its own mounts among them. */
  readonly enter: readonly string[];
  /** PATH of what clients run there. */
  readonly path: string;
}

/**
 * A real sshd on `address`:22 in a host's namespaces. It logs root in by a key made for it; the accounts, host keys and
 * the privilege separation folder it needs are mounted over the machine's in the mount namespace it runs in.
 */
export async function startSshd({ home, address, enter, path }: SshServerOptions): Promise<SshServer> {
  const root = ensureSsh();
  const env = {
    PATH: `${process.env["PATH"] ?? ""}:${join(root, "usr/bin")}`,
    LD_LIBRARY_PATH: `${join(root, "usr/lib/x86_64-linux-gnu")}:${join(root, "lib/x86_64-linux-gnu")}`,
  };
  const ssh = { ...process.env, ...env };
  for (const name of ["host", "user"])
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", join(home, name)], {
      env: ssh,
    });
  const shell = existsSync("/bin/bash") ? "/bin/bash" : "/bin/sh";
  const accounts = readFileSync("/etc/passwd", "utf8").replace(
    /^root:.*$/m,
    `root:x:0:0:root:/root:${shell}`,
  );
  writeFileSync(join(home, "passwd"), `${accounts}sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n`);
  // An account without a password may log in by its key; one that is locked may not.
  writeFileSync(join(home, "shadow"), "root:*:19000:0:99999:7:::\nsshd:*:19000::::::\n", { mode: 0o600 });
  writeFileSync(
    join(home, "sshd_config"),
    [
      `ListenAddress ${address}`,
      `HostKey ${join(home, "host")}`,
      `AuthorizedKeysFile ${join(home, "user.pub")}`,
      "PermitRootLogin prohibit-password",
      "PasswordAuthentication no",
      "KbdInteractiveAuthentication no",
      "StrictModes no",
      "UsePAM no",
      "PidFile none",
      "MaxStartups 100",
      "LogLevel VERBOSE",
      `SetEnv PATH=${path}`,
      "",
    ].join("\n"),
  );
  const setUp = [
    `mount --bind ${join(home, "passwd")} /etc/passwd`,
    `mount --bind ${join(home, "shadow")} /etc/shadow`,
    "mount -t tmpfs -o mode=755 tmpfs /run",
    "mkdir -p /run/sshd",
    'exec "$@"',
  ].join(" && ");
  const program = join(root, "usr/sbin/sshd");
  const [first, ...rest] = [
    ...enter,
    "sh",
    "-c",
    setUp,
    "sshd",
    program,
    "-D",
    "-e",
    "-f",
    join(home, "sshd_config"),
  ];
  const child = spawn(first!, rest, { env: ssh, stdio: ["ignore", "ignore", "pipe"] });
  await listening(child);
  return { env, clientSetUp: clientSetUp(home, address), [Symbol.asyncDispose]: () => ended(child) };
}

function clientSetUp(home: string, address: string): string[] {
  const [type, key] = readFileSync(join(home, "host.pub"), "utf8").split(" ");
  writeFileSync(join(home, "known_hosts"), `${address} ${type} ${key}\n`);
  mkdirSync(join(home, "etc/ssh"), { recursive: true });
  writeFileSync(
    join(home, "etc/ssh/ssh_config"),
    // One connection for all, as who uses ssh every day has it.
    `ControlMaster auto\nControlPath ${join(home, "master-%h")}\nControlPersist 60\nIdentityFile ${join(home, "user")}\nIdentitiesOnly yes\nUserKnownHostsFile ${join(home, "known_hosts")}\nGlobalKnownHostsFile none\nStrictHostKeyChecking yes\nBatchMode yes\n`,
  );
  chmodSync(join(home, "user"), 0o600);
  // The machine may have no /etc/ssh, and is not to get one.
  return [`mount -t overlay -o lowerdir=${join(home, "etc")}:/etc overlay /etc`];
}

/** Resolves when sshd says that it listens. */
function listening(child: ChildProcess): Promise<void> {
  let said = "";
  return new Promise((resolve, reject) => {
    child.stderr!.on("data", (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-8000);
      if (said.includes("Server listening on")) resolve();
    });
    child.once("error", reject);
    child.once("exit", () => reject(new Error(`sshd ended:\n${said}`)));
  });
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.kill("SIGKILL");
  await gone;
}
