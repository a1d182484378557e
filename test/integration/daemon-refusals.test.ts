import assert from "node:assert/strict";
import { type SpawnSyncReturns, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { issueCertificate, makeAuthority } from "#wire/x509-make.ts";
import { smallDisk } from "../peers/small-disk.ts";

/**
 * Starts that must end at once: one clear line on stderr, exit status 1, and nothing of a daemon left on the disk. What
 * damages a state database is in daemon-start.test.ts.
 */
const skiffd = join(import.meta.dirname, "../../bin/skiffd");

interface Scene extends Disposable {
  readonly path: string;
  readonly args: readonly string[];
}

/** Arguments of a daemon whose every file is below `path`; `dataRoot` may be elsewhere. */
function scene(dataRoot?: string): Scene {
  const path = mkdtempSync(join(tmpdir(), "skiff-refused-"));
  const args = [
    "-H",
    `unix://${path}/s.sock`,
    "--data-root",
    dataRoot ?? `${path}/data`,
    "--exec-root",
    `${path}/run`,
  ];
  return { path, args, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

function run(args: readonly string[], prefix: readonly string[] = []): SpawnSyncReturns<string> {
  const [program, ...rest] = [...prefix, skiffd, ...args];
  return spawnSync(program!, rest, { encoding: "utf8", timeout: 30_000, killSignal: "SIGKILL" });
}

/** The line on which a refused start ends; the log's lines before it may be warnings. */
function refusal({ status, stderr, stdout }: SpawnSyncReturns<string>): string {
  assert.equal(status, 1, stderr);
  assert.equal(stdout, "");
  const lines = stderr.trim().split("\n");
  assert.ok(
    lines.slice(0, -1).every((line) => /^\{"time":.*"level":"(info|warn)"/.test(line)),
    stderr,
  );
  return lines.at(-1)!;
}

const hour = 3_600_000;
const validity = { from: new Date(Date.now() - hour), until: new Date(Date.now() + hour) };

/** `--tls…` with good files, of which a test may spoil one. */
function certificates(directory: string): { args: string[]; ca: string; cert: string; key: string } {
  const authority = makeAuthority({ commonName: "test", ...validity });
  const server = issueCertificate(authority, {
    commonName: "s",
    use: "server",
    hosts: ["localhost"],
    ...validity,
  });
  const file = (name: string, text: string): string => {
    writeFileSync(join(directory, name), text, { mode: 0o600 });
    return join(directory, name);
  };
  const ca = file("ca.pem", authority.certificate);
  const cert = file("cert.pem", server.certificate);
  const key = file("key.pem", server.key);
  return { args: ["--tlsverify", "--tlscacert", ca, "--tlscert", cert, "--tlskey", key], ca, cert, key };
}

test("a port in use", async () => {
  using home = scene();
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const { args } = certificates(home.path);
  const told = refusal(run([...home.args, ...args, "-H", `tcp://127.0.0.1:${port}`]));
  server.close();
  assert.equal(told, `skiffd: can't listen on tcp://127.0.0.1:${port}: address already in use`);
  assert.deepEqual(readdirSync(home.path).sort(), ["ca.pem", "cert.pem", "key.pem"]);
});

test("an address that is not this host's", () => {
  using home = scene();
  const { args } = certificates(home.path);
  const told = refusal(run([...home.args, ...args, "-H", "tcp://192.0.2.1:2376"]));
  assert.equal(told, "skiffd: can't listen on tcp://192.0.2.1:2376: cannot assign requested address");
});

test("certificates: unreadable, for others to read, and what is none; --validate tells the same", () => {
  using home = scene();
  const { args, cert, key } = certificates(home.path);
  const good = [...home.args, ...args];
  assert.equal(run([...good, "--validate"]).stdout, "configuration OK\n");
  for (const [spoil, message] of [
    [["--tlskey", "/nonexistent/key.pem"], "skiffd: TLS: /nonexistent/key.pem: no such file or directory"],
    [["--tlscert", key], `skiffd: TLS: ${key} is no certificate in PEM: `],
    [["--tlscacert", cert], `skiffd: TLS: ${cert}: the certificate of CN=s is no authority's`],
  ] as const) {
    assert.ok(refusal(run([...good, ...spoil, "--validate"])).startsWith(message));
  }
  spawnSync("chmod", ["644", key]);
  assert.match(
    refusal(run(good)),
    /^skiffd: TLS: \S+key\.pem: other users of this machine can read this private key/,
  );
  assert.deepEqual(readdirSync(home.path).sort(), ["ca.pem", "cert.pem", "key.pem"]);
});

test("keys of daemon.json that are unknown, all of them at once, also to --validate", () => {
  using home = scene();
  const file = join(home.path, "daemon.json");
  writeFileSync(file, '{"frob": 1, "blub": true, "hosts": "unix:///x", "userns-remap": "me"}');
  const expected = `skiffd: unable to configure skiffd with file ${file}: frob does not match any configuration option; blub does not match any configuration option; hosts must be a list of strings; userns-remap is not supported by skiffd yet`;
  const args = ["--data-root", `${home.path}/data`, "--exec-root", `${home.path}/run`, "--config-file", file];
  assert.equal(refusal(run(args)), expected);
  assert.equal(refusal(run([...args, "--validate"])), expected);
  assert.deepEqual(readdirSync(home.path), ["daemon.json"]);
});

test("sockets that systemd did not pass on", () => {
  using home = scene();
  assert.equal(
    refusal(run([...home.args, "-H", "fd://"])),
    "skiffd: no sockets found via socket activation: make sure the service was started by systemd",
  );
  const passed = ["sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"'];
  assert.equal(
    refusal(run([...home.args, "-H", "fd://"], passed)),
    "skiffd: fd://3 is no listening stream socket: ListenStream= makes one",
  );
  assert.equal(
    refusal(run([...home.args, "-H", "fd://api"], passed)),
    "skiffd: fd://api: systemd passed on no such socket",
  );
  assert.deepEqual(readdirSync(home.path), []);
});

test("no OCI runtime", () => {
  using home = scene();
  const hide =
    'for f in /usr/bin/crun /usr/bin/runc /usr/sbin/runc; do [ ! -e $f ] || mount --bind /dev/null $f; done; exec "$0" "$@"';
  assert.equal(
    refusal(run(home.args, ["unshare", "-m", "sh", "-c", hide])),
    "skiffd: no OCI runtime found: install crun or runc, or name one with --add-runtime",
  );
  assert.equal(
    refusal(run([...home.args, "--add-runtime", "own=/nonexistent/own"])),
    "skiffd: runtime own: /nonexistent/own not found",
  );
  assert.deepEqual(readdirSync(home.path), []);
});

test("a data root on overlay", () => {
  using home = scene();
  for (const name of ["lower", "upper", "work", "merged"]) mkdirSync(join(home.path, name));
  const mount = `cd ${home.path} && mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged && exec "$0" "$@"`;
  const told = refusal(
    run([...home.args, "--data-root", `${home.path}/merged/data`], ["unshare", "-m", "sh", "-c", mount]),
  );
  assert.match(
    told,
    /^skiffd: data root \S+ is on a file system that cannot hold layers: overlay \(overlay on overlay/,
  );
  assert.deepEqual(readdirSync(join(home.path, "upper")), []);
});

test("a data root that is full or read-only", () => {
  using disk = smallDisk(16);
  const dataRoot = join(disk.path, "data");
  using home = scene(dataRoot);
  {
    using _full = disk.fill();
    assert.equal(refusal(run(home.args)), `skiffd: data root ${dataRoot}: no space left on device`);
    // One that is there already may be in use: its daemon could make space, if there is enough to begin.
    mkdirSync(dataRoot);
    assert.match(refusal(run(home.args)), /^skiffd: .*no space left on device/);
    rmSync(dataRoot, { recursive: true });
  }
  spawnSync("mount", ["-o", "remount,ro", disk.path]);
  assert.equal(refusal(run(home.args)), `skiffd: data root ${dataRoot}: read-only file system`);
  assert.equal(existsSync(dataRoot), false);
  assert.deepEqual(readdirSync(home.path), []);
});

test("SIGHUP before the daemon is ready does not end it", async () => {
  using home = scene();
  const child = spawn(skiffd, home.args, { stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  for await (const chunk of child.stderr) {
    const before = log;
    log += String(chunk);
    if (!before.includes("API listen on") && log.includes("API listen on")) child.kill("SIGHUP");
    if (!before.includes("configuration reloaded") && log.includes("configuration reloaded")) {
      child.kill("SIGTERM");
    }
  }
  assert.equal(child.exitCode ?? (await once(child, "exit"))[0], 0, log);
  assert.match(log, /skiffd is ready/);
});
