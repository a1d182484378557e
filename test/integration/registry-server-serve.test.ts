import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { connect as connectTls } from "node:tls";
import { silentLog } from "#base/log.ts";
import { serveRegistry } from "#registry-server/serve.ts";
import { processDefaults, readSettings, SettingsError } from "#registry-server/settings.ts";
import { bundle } from "../../packaging/bundle.ts";
import { busyboxLayout } from "../peers/images.ts";
import { ensurePeers } from "../peers/peer-cache.ts";
import { freePort } from "../peers/registry.ts";
import {
  basic,
  Client,
  certificate,
  passwordFile,
  run,
  serve,
  skiff,
  temporaryFolder,
} from "./registry-server-lab.ts";

/** `skiff registry serve` as a process: flags, TLS, limits, metrics, access log, signals. */

const skopeo = (...args: string[]) =>
  run(ensurePeers().path("skopeo"), ["--insecure-policy", ...args], ensurePeers().env);

test("TLS: 1.2 and newer, for a client that checks it; a new certificate after SIGHUP", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = temporaryFolder(stack);
  const { cert, key } = certificate(folder, "one");
  const users = await passwordFile(join(folder, "users"), { ann: "secret" });
  const server = stack.use(await serve(folder, "--tls-cert", cert, "--tls-key", key, "--htpasswd", users));
  const [host = "", port = ""] = server.address.split(":");

  const subject = (options: object): Promise<string> =>
    new Promise((resolve, reject) => {
      const socket = connectTls({ host, port: Number(port), ca: readFileSync(cert), ...options }, () => {
        resolve(String(socket.getPeerCertificate().subject.CN));
        socket.destroy();
      });
      socket.once("error", reject);
    });
  assert.equal(await subject({ maxVersion: "TLSv1.2" }), "one");
  assert.equal(await subject({ minVersion: "TLSv1.3" }), "one");
  const old = { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" };
  await assert.rejects(subject(old), { code: /PROTOCOL_VERSION|ECONNRESET/ });

  const trusted = join(folder, "trusted");
  await run("mkdir", [trusted]);
  copyFileSync(cert, join(trusted, "ca.crt"));
  const source = `oci:${busyboxLayout()}:latest`;
  const image = `docker://${server.address}/tls/busybox:1`;
  const pushed = await skopeo(
    "copy",
    "--dest-cert-dir",
    trusted,
    "--dest-creds",
    "ann:secret",
    source,
    image,
  );
  assert.equal(pushed.code, 0, pushed.err);
  const wrong = await skopeo("inspect", "--cert-dir", trusted, "--creds", "ann:wrong", image);
  assert.match(wrong.err, /unauthorized/i);
  assert.match((await skopeo("inspect", "--creds", "ann:secret", image)).err, /certificate/);

  const next = certificate(folder, "two");
  renameSync(next.cert, cert);
  renameSync(next.key, key);
  server.child.kill("SIGHUP");
  await server.logged("read anew");
  assert.equal(await subject({ ca: readFileSync(cert) }), "two");
  writeFileSync(key, "nonsense");
  server.child.kill("SIGHUP");
  await server.logged("the certificate that was read before goes on to count");
  assert.equal(await subject({ ca: readFileSync(cert) }), "two");
  assert.doesNotMatch(server.log(), /nonsense/);
});

/** What the process does with these flags, in ours. */
async function started(flags: readonly string[]): Promise<void> {
  const given = flags.flatMap((word, index) =>
    word.startsWith("--")
      ? [[word.slice(2), flags[index + 1]?.startsWith("--") === false ? flags[index + 1] : true]]
      : [],
  );
  await using _ = await serveRegistry(readSettings(Object.fromEntries(given), processDefaults), silentLog);
}

test("what it does not start with: one line, exit 1", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = temporaryFolder(stack);
  const at = (name: string, text?: string): string => {
    if (text !== undefined) writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const one = certificate(folder, "one");
  const two = certificate(folder, "two");
  copyFileSync(one.key, at("open.key"));
  chmodSync(at("open.key"), 0o644);
  const server = stack.use(await serve(folder));
  const tls = (cert: string, key: string): string[] => ["--tls-cert", cert, "--tls-key", key];
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [tls(one.cert, two.key), /two\.key is not the private key of the certificate .*one\.crt$/],
    [tls(one.cert, at("open.key")), /open\.key: other users of this machine can read this private key/],
    [tls(at("none"), one.key), /none: no such file or directory$/],
    [tls(one.key, one.key), /one\.key is no certificate in PEM/],
    [tls(one.cert, at("junk", "junk")), /junk is no private key in PEM|can read this private key/],
    [tls(one.cert, folder), /no regular file|illegal operation/],
    [["--htpasswd", at("users", "ann:$apr1$x$y\n")], /users: line 1: MD5 \(apr1\) hashes are not accepted/],
    [["--listen", server.address], /listen 127\.0\.0\.1:\d+: address already in use$/],
    [["--listen", "192.0.2.1:0", "--insecure-plain-http"], /cannot assign requested address$/],
    [["--listen", "0.0.0.0:0"], /not loopback and there is no TLS/],
    [["--root", server.root], /^another registry server uses the root /],
    [["--root", at("users")], /root .*users: (file exists|not a directory)/],
    [["--access-log", at("none/log")], /access-log .*none\/log: no such file or directory$/],
    [["--metrics-listen", server.address], /address already in use$/],
  ];
  for (const [index, [flags, message]] of cases.entries()) {
    const base = ["--root", at(`other-${index}`), "--listen", "127.0.0.1:0", "--access-log", "off"];
    await assert.rejects(started([...base, ...flags]), (error: Error) => {
      assert.ok(error instanceof SettingsError, String(error));
      assert.match(error.message, message);
      return true;
    });
  }
  // As a process: three of them, with all that belongs to it.
  for (const [flags, message] of [cases[0]!, cases[7]!, cases[9]!]) {
    const base = ["registry", "serve", "--root", at("process"), "--listen", "127.0.0.1:0"];
    const { code, out, err } = await run(skiff, [...base, ...flags]);
    assert.deepEqual([code, out, err.split("\n").length], [1, "", 2], `${flags}: ${err}`);
    assert.ok(err.startsWith("skiff registry: "));
    assert.match(err.trimEnd(), message);
  }
  const unknown = await run(skiff, ["registry", "serve", "--port", "1"]);
  assert.deepEqual([unknown.code, /^unknown flag: --port/.test(unknown.err)], [125, true]);
});

test("read-only: pulls, and 405 UNSUPPORTED for the rest", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = temporaryFolder(stack);
  const first = await serve(folder);
  const digest = await new Client(first.address, "a/b").push("1", [randomBytes(1000)]);
  assert.equal(await first.stop(), 0);
  const server = stack.use(await serve(folder, "--read-only"));
  const client = new Client(server.address, "a/b");
  await client.pull("1");
  for (const [method, path] of [
    ["POST", "/blobs/uploads/"],
    ["PUT", "/manifests/2"],
    ["DELETE", `/manifests/${digest}`],
  ] as const) {
    const answer = await client.ask(method, path);
    assert.deepEqual([answer.status, /UNSUPPORTED/.test(await answer.text())], [405, true]);
  }
});

test("metrics and access log tell what happened, and no secret", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = temporaryFolder(stack);
  const users = await passwordFile(join(folder, "users"), { ann: "s3cret-word" });
  const log = join(folder, "access.log");
  const flags = ["--htpasswd", users, "--metrics-listen", "0", "--access-log", log];
  const server = stack.use(await serve(folder, ...flags));
  const client = new Client(server.address, "a/b", basic("ann", "s3cret-word"));
  await client.push("1", [randomBytes(100_000)]);
  await client.pull("1");
  assert.equal(
    (await new Client(server.address, "a/b").ask("GET", "/manifests/1?access_token=s3cret-word")).status,
    401,
  );
  const begun = await client.ask("POST", "/blobs/uploads/");
  assert.equal(begun.status, 202);

  const text = await (await fetch(`http://${server.metrics}/metrics`)).text();
  for (const line of [
    /^skiff_registry_requests_total\{route="manifest",method="PUT",code="201"\} 1$/m,
    /^skiff_registry_requests_total\{route="manifest",method="GET",code="401"\} 1$/m,
    /^skiff_registry_request_seconds_count\{route="blob"\} [4-9]$/m,
    /^skiff_registry_uploads 1$/m,
    /^skiff_registry_tags 1$/m,
    /^skiff_registry_storage_bytes 100[0-9]{3}$/m,
    /^skiff_registry_request_bytes_total 100[0-9]{3}$/m,
    /^skiff_registry_response_bytes_total 10[0-9]{4}$/m,
  ])
    assert.match(text, line);
  assert.equal((await fetch(`http://${server.metrics}/healthz`)).status, 200);
  assert.equal((await fetch(`http://${server.metrics}/v2/`)).status, 404);
  assert.equal((await fetch(`http://${server.address}/metrics`)).status, 401);

  renameSync(log, `${log}.1`);
  server.child.kill("SIGHUP");
  await server.logged("opened anew");
  await client.ask("GET", "/tags/list");
  assert.equal(await server.stop(), 0);
  const lines = readFileSync(`${log}.1`, "utf8").trimEnd().split("\n");
  const records = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  const put = records.find(({ method, route }) => method === "PUT" && route === "manifest");
  assert.deepEqual(
    [put?.["user"], put?.["repository"], put?.["status"], put?.["remote"]],
    ["ann", "a/b", 201, "127.0.0.1"],
  );
  assert.match(readFileSync(log, "utf8"), /"url":"\/v2\/a\/b\/tags\/list"/);
  assert.equal(statSync(log).mode & 0o007, 0);
  for (const written of [...lines, readFileSync(log, "utf8"), server.log()]) {
    assert.doesNotMatch(written, /s3cret-word|YW5uOn/);
  }
});

test("SIGTERM: what is under way ends, nothing new begins; exit 0; a stalled upload does not hold it for long", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = temporaryFolder(stack);
  const server = stack.use(await serve(folder, "--stop-timeout", "1500ms"));
  const client = new Client(server.address, "a/b");
  const upload = async (): Promise<{
    send: ReturnType<typeof request>;
    answered: Promise<number | string>;
  }> => {
    const begun = await client.ask("POST", "/blobs/uploads/");
    const location = new URL(begun.headers.get("location")!, `http://${server.address}`);
    const send = request(location, {
      method: "PATCH",
      headers: { "content-length": 6, connection: "close" },
    });
    const answered = new Promise<number | string>((resolve) => {
      send.once("response", (response) => resolve(response.resume().statusCode!));
      send.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    });
    send.write("abc");
    return { send, answered };
  };
  const quick = await upload();
  const stalled = await upload();
  // Both are seen by the server when it has answered a request that came after them.
  while ((await status(server.root)).uploads !== 2) await client.ask("GET", "/tags/list");
  const started = performance.now();
  server.child.kill("SIGTERM");
  await server.logged("SIGTERM: stopping");
  quick.send.end("def");
  assert.equal(await quick.answered, 202);
  await assert.rejects(fetch(`http://${server.address}/v2/`));
  assert.equal(await stalled.answered, "ECONNRESET");
  assert.equal(await server.exited, 0);
  const took = performance.now() - started;
  assert.ok(took > 1000 && took < 15_000, `${took} ms`);
  assert.equal(existsSync(join(server.root, "control.sock")), false);
});

async function status(root: string): Promise<{ uploads: number }> {
  const { out } = await run(skiff, ["registry", "status", "--root", root]);
  return JSON.parse(out) as { uploads: number };
}

test("no more connections than allowed; a head without end is not read", async () => {
  await using stack = new AsyncDisposableStack();
  const server = stack.use(await serve(temporaryFolder(stack), "--max-connections", "2"));
  const [host = "", port = ""] = server.address.split(":");
  const open = async (): Promise<ReturnType<typeof connect>> => {
    const socket = connect(Number(port), host);
    stack.defer(() => void socket.destroy());
    await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
    return socket;
  };
  const [first] = [await open(), await open()];
  const third = await open();
  await new Promise((resolve) =>
    third
      .once("close", resolve)
      .once("error", () => {})
      .resume(),
  );
  const answer = new Promise<string>((resolve) =>
    first.once("data", (bytes: Buffer) => resolve(bytes.toString())),
  );
  first.write(`GET /v2/ HTTP/1.1\r\nHost: x\r\nX: ${"y".repeat(40_000)}\r\n\r\n`);
  assert.match(await answer, /^HTTP\/1\.1 431 /);
});

test("one connection has a few requests under way, not all that it sends ahead", async () => {
  await using stack = new AsyncDisposableStack();
  const server = stack.use(await serve(temporaryFolder(stack)));
  const [host, port] = server.address.split(":") as [string, string];
  const answered = async (requests: number): Promise<number> => {
    const socket = connect(Number(port), host);
    let text = "";
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    socket.on("error", () => {});
    socket.end("GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n".repeat(requests));
    await once(socket, "close");
    return text.split("HTTP/1.1 200").length - 1;
  };
  assert.equal(await answered(8), 8);
  assert.ok((await answered(500)) < 500, "the connection is closed");
});

test("a root with a path longer than a socket's name can be; another program's signals and exit code", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = join(temporaryFolder(stack), "x".repeat(120));
  await run("mkdir", [folder]);
  const server = stack.use(await serve(folder));
  assert.equal((await status(server.root)).uploads, 0);
  // The command has become the server: one process, whose end is the command's.
  const command = readFileSync(`/proc/${server.child.pid}/cmdline`, "utf8");
  assert.match(command, /registry-main\.ts/);
  const interrupted = spawn(skiff, ["registry", "serve", "--root", join(folder, "two"), "--listen", "0"]);
  const ended = new Promise((resolve) => interrupted.once("exit", (code) => resolve(code)));
  interrupted.stderr.once("data", () => interrupted.kill("SIGINT"));
  assert.equal(await ended, 0);
  // Called by another name, it is still found.
  symlinkSync(skiff, join(folder, "docker"));
  const help = await run(join(folder, "docker"), ["registry", "serve", "--help"]);
  assert.match(help.out, /^Usage: {2}docker registry serve \[OPTIONS\]/);
});

test("without a host, loopback", async () => {
  await using stack = new AsyncDisposableStack();
  const port = await freePort();
  const server = stack.use(await serve(temporaryFolder(stack), "--listen", `:${port}`));
  assert.equal(server.address, `127.0.0.1:${port}`);
});

test("the installed form: bundles beside each other, no sources", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = temporaryFolder(stack);
  const checkout = join(import.meta.dirname, "../..");
  await bundle(checkout, join(folder, "dist"));
  symlinkSync(join(checkout, "node_modules"), join(folder, "node_modules"));
  const installed = [join(folder, "dist/skiff.mjs"), "registry"];
  const users = join(folder, "users");
  const made = await run(process.execPath, [...installed, "passwd", users, "ann"], process.env, "secret");
  assert.equal(made.code, 0, made.err);
  const flags = ["--root", join(folder, "root"), "--listen", "0", "--htpasswd", users];
  const server = spawn(process.execPath, [...installed, "serve", ...flags]);
  const ended = new Promise((resolve) => server.once("exit", (code) => resolve(code)));
  stack.defer(() => void server.kill("SIGKILL"));
  const line = await new Promise<string>((resolve) =>
    server.stderr.once("data", (text) => resolve(String(text))),
  );
  const { listen } = JSON.parse(line) as { listen: string };
  // The password is checked in a worker, which is a file of its own there.
  const headers = { authorization: basic("ann", "secret") };
  assert.equal((await fetch(`http://${listen}/v2/`, { headers })).status, 200);
  const report = await run(process.execPath, [...installed, "gc", "--root", join(folder, "root")]);
  assert.equal(report.code, 0, report.err);
  server.kill("SIGTERM");
  assert.equal(await ended, 0);
});
