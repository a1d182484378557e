import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { linkSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type Issued, issueCertificate, makeAuthority } from "#wire/x509-make.ts";
import { call } from "../peers/engine-call.ts";
import { openNotifySocket } from "../peers/notify-socket.ts";
import { startSkiffd } from "../peers/skiffd.ts";

const home = mkdtempSync(join(tmpdir(), "skiff-tcp-"));
test.after(() => rmSync(home, { recursive: true, force: true }));

const hour = 3_600_000;
const validity = { from: new Date(Date.now() - hour), until: new Date(Date.now() + hour) };

interface Party {
  readonly authority: Issued;
  readonly server: Issued;
  /** Directory for DOCKER_CERT_PATH. */
  readonly certPath: string;
}

function clientDirectory(name: string, authority: Issued, client: Issued): string {
  const path = join(home, name);
  mkdirSync(path);
  writeFileSync(join(path, "ca.pem"), authority.certificate);
  writeFileSync(join(path, "cert.pem"), client.certificate);
  writeFileSync(join(path, "key.pem"), client.key, { mode: 0o600 });
  return path;
}

function party(name: string): Party {
  const authority = makeAuthority({ commonName: name, ...validity });
  const issue = (use: "server" | "client"): Issued =>
    issueCertificate(authority, { commonName: use, use, hosts: ["127.0.0.1", "localhost"], ...validity });
  return {
    authority,
    server: issue("server"),
    certPath: clientDirectory(name, authority, issue("client")),
  };
}

const ours = party("ours");
const theirs = party("theirs");
const expired = clientDirectory(
  "expired",
  ours.authority,
  issueCertificate(ours.authority, {
    commonName: "late",
    use: "client",
    from: validity.from,
    until: new Date(Date.now() - 60_000),
  }),
);

const files = { authority: join(home, "ca.pem"), cert: join(home, "server.pem"), key: join(home, "key.pem") };

function install({ authority, server }: Party): void {
  writeFileSync(files.authority, authority.certificate);
  writeFileSync(files.cert, server.certificate);
  writeFileSync(files.key, server.key, { mode: 0o600 });
}

interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface DockerHost {
  readonly host: string;
  /** undefined: without TLS. */
  readonly certPath?: string;
}

async function docker(
  { host, certPath }: DockerHost,
  args: readonly string[],
  input?: string | Buffer,
): Promise<Outcome> {
  const child = spawn("timeout", ["-s", "KILL", "60", "docker", "-H", host, ...args], {
    env: {
      PATH: process.env["PATH"],
      HOME: home,
      DOCKER_CONFIG: home,
      ...(certPath === undefined ? {} : { DOCKER_TLS_VERIFY: "1", DOCKER_CERT_PATH: certPath }),
    },
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  const [status] = await once(child, "close");
  return { status: status as number | null, stdout, stderr };
}

/** A file system with one program in it, packed. */
function busybox(): Buffer {
  const tree = join(home, "tree");
  mkdirSync(join(tree, "bin"), { recursive: true });
  spawnSync("cp", ["/bin/busybox", join(tree, "bin/sh")]);
  spawnSync("ln", ["-s", "sh", join(tree, "bin/cat")]);
  return spawnSync("tar", ["-C", tree, "-cf", "-", "."], { maxBuffer: 64 * 1024 * 1024 }).stdout;
}

function descriptorOf(server: Server): number {
  return (server as unknown as { _handle: { fd: number } })._handle.fd;
}

async function listening(where: string | { host: string; port: number }): Promise<Server> {
  const server = createServer();
  if (typeof where === "string") server.listen(where);
  else server.listen(where);
  await once(server, "listening");
  return server;
}

test("sockets from systemd and TCP with mutual TLS serve one daemon, which systemd hears of and SIGHUP reloads", async () => {
  install(ours);
  const config = join(home, "daemon.json");
  writeFileSync(config, "{}");
  using manager = openNotifySocket();
  const unix = await listening(join(home, "activated.sock"));
  const tcp = await listening({ host: "127.0.0.1", port: 0 });
  const activatedPort = (tcp.address() as { port: number }).port;
  await using daemon = await startSkiffd({
    args: [
      ...["-H", "tcp://127.0.0.1:0", "-H", "fd://", "--config-file", config, "--tlsverify"],
      ...["--tlscacert", files.authority, "--tlscert", files.cert, "--tlskey", files.key],
    ],
    // The number of the process that systemd starts is the daemon's: every launcher between is replaced by the next.
    prefix: ["sh", "-c", 'LISTEN_PID=$$ exec "$0" "$@"'],
    inherit: [descriptorOf(unix), descriptorOf(tcp)],
    env: {
      LISTEN_FDS: "2",
      LISTEN_FDNAMES: "skiff.socket:tls",
      NOTIFY_SOCKET: manager.name,
      WATCHDOG_USEC: "2000000",
    },
  });
  // With our descriptors closed, whoever answers is the daemon. Closing removes the name, so there is another.
  linkSync(join(home, "activated.sock"), join(home, "activated"));
  unix.close();
  tcp.close();
  assert.match(await manager.next("READY=1"), new RegExp(`^MAINPID=${daemon.child.pid}$`, "m"));
  await manager.next("WATCHDOG=1");

  const port = Number(/API listen on tcp:\/\/127\.0\.0\.1:(\d+)/.exec(daemon.log())?.[1]);
  const host = `tcp://127.0.0.1:${port}`;
  const remote: DockerHost = { host, certPath: ours.certPath };
  const imported = await docker(remote, ["import", "-", "remote:latest"], busybox());
  assert.equal(imported.status, 0, imported.stderr);
  const ran = await docker(remote, ["run", "--rm", "-i", "remote", "/bin/cat"], "over the wire");
  assert.deepEqual(ran, { status: 0, stdout: "over the wire", stderr: "" });
  const failed = await docker(remote, [
    "run",
    "--rm",
    "remote",
    "/bin/sh",
    "-c",
    "echo out; echo err >&2; exit 3",
  ]);
  assert.deepEqual(failed, { status: 3, stdout: "out\n", stderr: "err\n" });
  const activated: DockerHost = { host: `tcp://127.0.0.1:${activatedPort}`, certPath: ours.certPath };
  assert.equal((await docker(activated, ["images", "-q"])).status, 0);
  assert.equal((await call(join(home, "activated"), "GET", "/_ping")).text, "OK");

  for (const [what, stranger] of [
    ["no TLS", { host }],
    ["another authority's certificate", { host, certPath: theirs.certPath }],
    ["an expired certificate", { host, certPath: expired }],
  ] as const) {
    const refused = await docker(stranger, ["images"]);
    assert.equal(refused.status, 1, what);
    assert.equal(refused.stdout, "", what);
  }

  const informed = async (): Promise<{ labels: string; debug: string }> => {
    const { body } = await call<{ Labels: string[]; Debug: boolean }>(daemon.socket, "GET", "/info");
    return { labels: String(body?.Labels), debug: String(body?.Debug) };
  };
  install(theirs);
  writeFileSync(config, '{"debug": true, "labels": ["site=lab"]}');
  daemon.child.kill("SIGHUP");
  assert.match(await manager.next("RELOADING=1"), /^MONOTONIC_USEC=\d+$/m);
  await manager.next("READY=1");
  assert.deepEqual(await informed(), { labels: "site=lab", debug: "true" });
  const until = Math.ceil(Date.now() / 1000);
  const filters = encodeURIComponent('{"type":["daemon"],"event":["reload"]}');
  const events = await call<{ Action: string; Actor: { Attributes: Record<string, string> } }>(
    daemon.socket,
    "GET",
    `/events?since=0&until=${until}&filters=${filters}`,
  );
  assert.equal(events.body?.Action, "reload", events.text);
  assert.equal(events.body?.Actor.Attributes["labels"], '["site=lab"]');
  assert.equal((await docker(remote, ["images"])).status, 1, "the old certificate is worth nothing any more");
  const renewed = await docker({ host, certPath: theirs.certPath }, ["images", "-q"]);
  assert.equal(renewed.status, 0, renewed.stderr);

  writeFileSync(config, '{"debug": false, "frob": 1, "blub": 2}');
  daemon.child.kill("SIGHUP");
  await manager.next("RELOADING=1");
  await manager.next("READY=1");
  assert.deepEqual(await informed(), { labels: "site=lab", debug: "true" });
  assert.match(
    daemon.log(),
    /"error","msg":"the configuration was not reloaded: [^\n]*frob does not match any configuration option; blub does not match/,
  );

  // The disposal of the daemon reaches it by its own socket, for which nothing has changed.
  assert.equal(await daemon.stop(), 0);
  await manager.next("STOPPING=1");
  writeFileSync(config, "{}");
});
