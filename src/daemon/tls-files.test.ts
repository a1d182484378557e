import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { Log } from "#base/log.ts";
import { issueCertificate, makeAuthority } from "#wire/x509-make.ts";
import type { TlsSettings } from "./config-hosts.ts";
import { readTlsMaterial } from "./tls-files.ts";

const directory = mkdtempSync(join(tmpdir(), "skiff-tls-"));
test.after(() => rmSync(directory, { recursive: true }));

const now = Date.now();
const validity = { from: new Date(now - 60_000), until: new Date(now + 3_600_000) };
const past = { from: new Date(now - 3_600_000), until: new Date(now - 60_000) };
const authority = makeAuthority({ commonName: "test authority", ...validity });
const hosts = ["build.example", "*.Lab.example", "127.0.0.1"];
const server = issueCertificate(authority, { commonName: "server", use: "server", hosts, ...validity });

const warnings: string[] = [];
const log: Log = {
  debug: () => {},
  info: () => {},
  warn: (message) => warnings.push(message),
  error: () => {},
  child: () => log,
};

function file(name: string, text: string, mode = 0o600): string {
  const path = join(directory, name);
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

const good: TlsSettings = {
  mode: "mutual",
  authority: file("ca.pem", authority.certificate, 0o644),
  certificate: file("cert.pem", server.certificate, 0o644),
  key: file("key.pem", server.key),
};

test("files that fit give what a listener needs", async () => {
  const material = await readTlsMaterial(good, log);
  assert.equal(material?.mutual, true);
  assert.deepEqual(material.context.ca, [authority.certificate.trim()]);
  assert.equal(material.context.minVersion, "TLSv1.2");
  assert.deepEqual(material.names, ["build.example", "*.lab.example"]);
  const oneSided = await readTlsMaterial({ ...good, mode: "server", authority: "/nonexistent" }, log);
  assert.equal(oneSided?.mutual, false);
  assert.equal(await readTlsMaterial({ ...good, mode: "off", key: "/nonexistent" }, log), undefined);
  assert.deepEqual(warnings, []);
});

test("several authorities in one file are believed", async () => {
  const other = makeAuthority({ commonName: "another", ...validity });
  const both = file("both.pem", `# ours\n${authority.certificate}\n${other.certificate}`);
  const material = await readTlsMaterial({ ...good, authority: both }, log);
  assert.ok(material !== undefined);
  assert.equal((material.context.ca as string[]).length, 2);
});

const weak = generateKeyPairSync("rsa", { modulusLength: 1024 });

for (const [what, settings, message] of [
  ["a missing key", { key: "/nonexistent/key" }, "TLS: /nonexistent/key: no such file or directory"],
  [
    "a directory for a certificate",
    { certificate: directory },
    /^TLS: .*: (it is no regular file|is a directory)/,
  ],
  [
    "a key that others can read",
    { key: file("open.pem", server.key, 0o644) },
    /other users of this machine can read this private key/,
  ],
  [
    "a key of another certificate",
    { key: file("other.pem", makeAuthority({ commonName: "x", ...validity }).key) },
    /is not the private key of the certificate/,
  ],
  ["no certificate in PEM", { certificate: file("junk.pem", "junk") }, /is no certificate in PEM/],
  ["a key that is none", { key: file("nokey.pem", "junk") }, /is no private key in PEM/],
  [
    "a certificate where the key should be",
    { key: file("certkey.pem", server.certificate) },
    /is no private key in PEM/,
  ],
  ["an empty authority", { authority: file("empty.pem", "") }, /empty\.pem has no certificate in PEM/],
  [
    "an authority cut short",
    { authority: file("cut.pem", authority.certificate.replace(/\n.{10}/, "\n")) },
    /cut\.pem is no certificate in PEM/,
  ],
  [
    "a server's certificate as authority",
    { authority: good.certificate },
    /the certificate of CN=server is no authority's/,
  ],
] as const) {
  test(`refused in one line that names the file: ${what}`, async () => {
    await assert.rejects(readTlsMaterial({ ...good, ...settings }, log), (error: Error) => {
      assert.equal(error.constructor.name, "StartupError");
      assert.doesNotMatch(error.message, /\n|PRIVATE/);
      if (typeof message === "string") assert.equal(error.message, message);
      else assert.match(error.message, message);
      return true;
    });
  });
}

test("a key that a passphrase protects is refused, its content kept to itself", async () => {
  const text = weak.privateKey.export({
    type: "pkcs8",
    format: "pem",
    cipher: "aes-256-cbc",
    passphrase: "secret",
  });
  await assert.rejects(
    readTlsMaterial({ ...good, key: file("locked.pem", text as string) }, log),
    /locked\.pem is no private key in PEM/,
  );
});

test("a certificate or authority that is not valid now is a warning", async () => {
  warnings.length = 0;
  const expired = issueCertificate(authority, { commonName: "server", use: "server", hosts, ...past });
  const settings = {
    ...good,
    certificate: file("expired.pem", expired.certificate),
    key: file("expired-key.pem", expired.key),
    authority: file("expired-ca.pem", makeAuthority({ commonName: "old", ...past }).certificate),
  };
  assert.ok(await readTlsMaterial(settings, log));
  assert.equal(warnings.length, 2);
});
