import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { checkTls } from "./contexts.ts";

const skiff = join(import.meta.dirname, "../../bin/skiff");
const folder = mkdtempSync(join(tmpdir(), "skiff-tls-"));
after(() => rmSync(folder, { recursive: true }));

function run(...words: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(skiff, ["tls", ...words], { cwd: folder, encoding: "utf8" });
}
const read = (name: string): string => readFileSync(join(folder, "skiff-tls", name), "utf8");

test("tls init makes an authority, a server and a client, and overwrites nothing", () => {
  const made = run("init", "--host", "box.test,192.0.2.7", "--days", "30");
  assert.equal(made.status, 0, made.stderr);
  assert.match(made.stdout, /tcp:\/\/box\.test:2376/);
  const names = ["ca-key.pem", "ca.pem", "cert.pem", "key.pem", "server-cert.pem", "server-key.pem"];
  assert.deepEqual(readdirSync(join(folder, "skiff-tls")).sort(), names);
  for (const name of names) {
    const mode = statSync(join(folder, "skiff-tls", name)).mode & 0o777;
    assert.equal(mode, name.endsWith("key.pem") ? 0o400 : 0o444, name);
  }
  const authority = new X509Certificate(read("ca.pem"));
  const server = new X509Certificate(read("server-cert.pem"));
  assert.ok(server.verify(authority.publicKey));
  for (const host of ["box.test", "localhost"]) assert.equal(server.checkHost(host), host);
  for (const address of ["192.0.2.7", "127.0.0.1"]) assert.equal(server.checkIP(address), address);
  const days = (Date.parse(server.validTo) - Date.now()) / 86_400_000;
  assert.ok(days > 29 && days <= 30, `${days} days`);
  checkTls({ ca: read("ca.pem"), cert: read("cert.pem"), key: read("key.pem"), verify: true });

  const again = run("init");
  assert.equal(again.status, 1);
  assert.match(again.stderr, /already there: .*Nothing was written/s);
  assert.equal(new X509Certificate(read("ca.pem")).fingerprint256, authority.fingerprint256);
});

test("further certificates come from the same authority", () => {
  assert.equal(run("client", "ann").status, 0);
  const ann = new X509Certificate(read("ann/cert.pem"));
  assert.match(ann.subject, /CN=ann/);
  assert.ok(ann.verify(new X509Certificate(read("ca.pem")).publicKey));
  const before = read("server-cert.pem");
  assert.equal(run("server").status, 1);
  assert.equal(run("server", "--force", "--host", "fd00::1").status, 0);
  assert.notEqual(read("server-cert.pem"), before);
  for (const bad of [
    ["client", "../x"],
    ["server", "--force", "--host", "a b"],
    ["init", "--dir", "d", "--days", "0"],
  ])
    assert.equal(run(...bad).status, 1, bad.join(" "));
  assert.equal(run("client", "--dir", "nowhere", "x").status, 1);
});
