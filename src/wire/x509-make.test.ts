import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { connect, createServer, type TLSSocket } from "node:tls";
import { integer, oid, readValues, time } from "./der.ts";
import { type Issued, issueCertificate, makeAuthority } from "./x509-make.ts";

const day = 86_400_000;
const now = Date.now();
const valid = { from: new Date(now - day), until: new Date(now + day) };
const authority = makeAuthority({ commonName: "Test authority", ...valid });
const server = issueCertificate(authority, {
  commonName: "server",
  use: "server",
  hosts: ["localhost", "*.example.com", "127.0.0.1", "fd00::1:2", "::ffff:10.0.0.1", "::1"],
  ...valid,
});
const client = issueCertificate(authority, { commonName: "Käthe", use: "client", ...valid });

/** A TLS connection between two holders; what the client's side of it learned, or its failure. */
async function meet(serverSide: Issued, clientSide: Issued | undefined, servername = "localhost") {
  const { promise, resolve } = Promise.withResolvers<string>();
  const listener = createServer(
    {
      cert: serverSide.certificate,
      key: serverSide.key,
      ca: authority.certificate,
      requestCert: true,
      rejectUnauthorized: true,
    },
    (socket: TLSSocket) => socket.end(String(socket.getPeerCertificate().subject.CN)),
  );
  listener.on("tlsClientError", () => {});
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const socket = connect({
    port: (listener.address() as AddressInfo).port,
    host: "127.0.0.1",
    servername,
    ca: authority.certificate,
    ...(clientSide === undefined ? {} : { cert: clientSide.certificate, key: clientSide.key }),
  });
  socket.on("data", (said: Buffer) => resolve(`hello ${said.toString()}`));
  socket.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  const result = await promise;
  socket.destroy();
  listener.close();
  return result;
}

test("Node's TLS takes the pair and refuses what is wrong", async () => {
  assert.equal(await meet(server, client), "hello Käthe");
  assert.equal(await meet(server, client, "a.example.com"), "hello Käthe");
  assert.equal(await meet(server, client, "other.test"), "ERR_TLS_CERT_ALTNAME_INVALID");
  const old = { from: new Date(now - 2 * day), until: new Date(now - day) };
  const expired = issueCertificate(authority, {
    commonName: "x",
    use: "server",
    hosts: ["localhost"],
    ...old,
  });
  assert.equal(await meet(expired, client), "CERT_HAS_EXPIRED");
  const other = makeAuthority({ commonName: "Test authority", ...valid });
  const foreign = issueCertificate(other, {
    commonName: "x",
    use: "server",
    hosts: ["localhost"],
    ...valid,
  });
  // Which of the two is told depends on how OpenSSL searches for the issuer: both mean the same.
  assert.match(
    await meet(foreign, client),
    /^(UNABLE_TO_VERIFY_LEAF_SIGNATURE|UNABLE_TO_GET_ISSUER_CERT_LOCALLY|CERT_SIGNATURE_FAILURE)$/,
  );
  // A client's certificate is no server's: the purpose is checked.
  assert.equal(await meet(client, client), "INVALID_PURPOSE");
  assert.match(await meet(server, undefined), /CERTIFICATE_REQUIRED|ECONNRESET/);
});

test("names and addresses are in the certificate as they were given", () => {
  const read = new X509Certificate(server.certificate);
  assert.equal(
    read.subjectAltName,
    "DNS:localhost, DNS:*.example.com, IP Address:127.0.0.1, IP Address:FD00:0:0:0:0:0:1:2, IP Address:0:0:0:0:0:FFFF:A00:1, IP Address:0:0:0:0:0:0:0:1",
  );
  assert.equal(read.checkIP("fd00::1:2"), "fd00::1:2");
  assert.equal(read.ca, false);
  assert.ok(read.checkIssued(new X509Certificate(authority.certificate)));
  for (const host of ["", "a b", "-a", "a..b", "*", "a.*.b", "fe80::1%eth0", `${"a".repeat(64)}.b`])
    assert.throws(() =>
      issueCertificate(authority, { commonName: "x", use: "server", hosts: [host], ...valid }),
    );
});

test("what cannot be issued is refused", () => {
  const options = { commonName: "x", use: "client", ...valid } as const;
  assert.throws(() => issueCertificate(client, options), /not an authority/);
  assert.throws(() => issueCertificate({ ...authority, key: client.key }, options), /does not belong/);
  assert.throws(() => makeAuthority({ commonName: "", ...valid }), /1 to 64/);
  assert.throws(() => makeAuthority({ commonName: "x", from: valid.until, until: valid.from }), /must end/);
});

test("the system's openssl agrees", (context) => {
  if (spawnSync("openssl", ["version"]).status !== 0) {
    context.skip("no openssl");
    return;
  }
  const folder = mkdtempSync(join(tmpdir(), "skiff-x509-"));
  try {
    const late = issueCertificate(authority, {
      commonName: "late",
      use: "server",
      hosts: ["late.test"],
      from: valid.from,
      until: new Date("2055-01-02T03:04:05Z"),
    });
    const file = (name: string, text: string): string => {
      writeFileSync(join(folder, name), text);
      return join(folder, name);
    };
    const ca = file("ca.pem", authority.certificate);
    const run = (...args: string[]): string => execFileSync("openssl", args, { encoding: "utf8" });
    run("verify", "-x509_strict", "-CAfile", ca, "-purpose", "sslserver", file("s.pem", server.certificate));
    run("verify", "-x509_strict", "-CAfile", ca, "-purpose", "sslclient", file("c.pem", client.certificate));
    run("verify", "-x509_strict", "-CAfile", ca, "-verify_hostname", "x.example.com", join(folder, "s.pem"));
    assert.match(
      run("x509", "-in", file("late.pem", late.certificate), "-noout", "-enddate"),
      /Jan {2}2 03:04:05 2055 GMT/,
    );
    const key = file("key.pem", server.key);
    assert.equal(
      run("pkey", "-in", key, "-pubout"),
      run("x509", "-in", join(folder, "s.pem"), "-noout", "-pubkey"),
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("DER: lengths, numbers, identifiers, times", () => {
  assert.equal(oid("1.2.840.10045.4.3.2").toString("hex"), "06082a8648ce3d040302");
  assert.equal(integer(Buffer.from("0080", "hex")).toString("hex"), "02020080");
  assert.equal(integer(Buffer.of(0)).toString("hex"), "020100");
  assert.equal(time(new Date("2049-12-31T23:59:59Z")).toString("latin1").slice(2), "491231235959Z");
  assert.equal(time(new Date("2050-01-01T00:00:00Z")).toString("latin1").slice(2), "20500101000000Z");
  for (const bad of ["30", "3005", "308000", "3085ffffffffff", "1f0100", "30820100ff"])
    assert.throws(() => readValues(Buffer.from(bad, "hex")), bad);
});
