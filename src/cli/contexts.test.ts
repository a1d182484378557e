import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { TarWriter } from "#archive/tar-write.ts";
import { bytesOfText } from "#base/byte-string.ts";
import { issueCertificate, makeAuthority } from "#wire/x509-make.ts";
import { packContext, unpackContext } from "./context-archive.ts";
import {
  checkContextName,
  checkTls,
  contextExists,
  listContexts,
  readContext,
  readContextTls,
  removeContext,
  storedTarget,
  writeContext,
} from "./contexts.ts";
import { FlagError, parseFlags } from "./flags.ts";
import {
  currentContext,
  type Environment,
  globalFlags,
  normaliseHost,
  resolveTarget,
} from "./global-options.ts";

const config = mkdtempSync(join(tmpdir(), "skiff-contexts-"));
after(() => rmSync(config, { recursive: true }));

const files = new Map([["ca.pem", Buffer.from("ca")]]);
const stored = {
  meta: {
    Name: "box",
    Metadata: { Description: "d" },
    Endpoints: { docker: { Host: "tcp://h:1", SkipTLSVerify: false } },
  },
  tls: new Map([["docker", files]]),
};

describe("the store of contexts", () => {
  test("what is written is read, by both clients' paths and modes, and goes whole", () => {
    writeContext(config, stored);
    assert.deepEqual(readContext(config, "box"), stored.meta);
    assert.deepEqual(readContextTls(config, "box"), stored.tls);
    // The sha256 of the name, as Docker's store has it.
    const id = createHash("sha256").update("box").digest("hex");
    assert.deepEqual(readdirSync(join(config, "contexts/meta")), [id]);
    const key = join(config, "contexts/tls", id, "docker/ca.pem");
    assert.equal(statSync(key).mode & 0o777, 0o600);
    assert.deepEqual(storedTarget(config, "box"), { host: "tcp://h:1", tls: { ca: "ca", verify: true } });
    // Another endpoint's files do not stay behind.
    writeContext(config, { ...stored, tls: new Map() });
    assert.equal(readContextTls(config, "box").size, 0);
    assert.deepEqual(
      listContexts(config).map(({ Name }) => Name),
      ["box"],
    );
    removeContext(config, "box");
    assert.equal(contextExists(config, "box"), false);
    assert.throws(
      () => readContext(config, "box"),
      /context "box": context not found: open .*meta.json: no such file/,
    );
  });

  test("names", () => {
    for (const name of ["ab", "a.b+c_d-e", "0x"]) checkContextName(name);
    for (const name of ["", "a", "default", ".ab", "a b", "a/b", "../x", "ä2", "ab\n"])
      assert.throws(() => checkContextName(name), name);
  });
});

describe("archives of contexts", () => {
  const archive = (
    entries: readonly (readonly [string, string, ("file" | "symlink" | "directory")?])[],
  ): Buffer => {
    const parts: Buffer[] = [];
    const tar = new TarWriter((chunk) => parts.push(Buffer.from(chunk)));
    for (const [path, text, type = "file"] of entries) {
      tar.entry({
        path: bytesOfText(path),
        type,
        mode: 0o644,
        uid: 0,
        gid: 0,
        sizeBytes: type === "file" ? Buffer.byteLength(text) : 0,
        mtimeNs: 0n,
        linkPath: bytesOfText(type === "symlink" ? text : ""),
        deviceMajor: 0,
        deviceMinor: 0,
      });
      if (type === "file") tar.data(Buffer.from(text));
    }
    tar.finish();
    return Buffer.concat(parts);
  };
  const meta = ["meta.json", JSON.stringify(stored.meta)] as const;

  test("go there and back under another name", () => {
    const { meta: read, tls } = unpackContext(packContext(stored), "other");
    assert.deepEqual(read, { ...stored.meta, Name: "other" });
    assert.deepEqual(tls, stored.tls);
  });

  test("that are hostile are refused, and none writes elsewhere than beneath its context", () => {
    const refused: [string, Buffer, RegExp][] = [
      ["nothing", Buffer.alloc(0), /no metadata found/],
      ["noise", Buffer.alloc(2000, 7), /invalid tar header/],
      ["another file", archive([meta, ["extra", "x"]]), /extra: unexpected context file/],
      ["climbing", archive([meta, ["tls/../../../x", "x"]]), /unexpected path format/],
      ["climbing by name", archive([meta, ["tls/docker/..", "x"]]), /unexpected path format/],
      ["an empty name", archive([meta, ["tls//x", "x"]]), /unexpected path format/],
      ["too flat", archive([meta, ["tls/x", "x"]]), /archive format is invalid/],
      ["too deep", archive([meta, ["tls/docker/x/y", "x"]]), /archive format is invalid/],
      ["no JSON", archive([["meta.json", "junk"]]), /not JSON/],
      ["too much", archive([meta, ["tls/docker/x", "x".repeat(11_000_000)]]), /exceeds the defined limit/],
      ["zip", Buffer.from("PK\x03\x04rest"), /zip archives are not supported/],
      [
        "entries",
        archive(Array.from({ length: 4000 }, (_, n) => [`tls/docker/${n}`, "x"] as const)),
        /entries/,
      ],
    ];
    for (const [name, bytes, reason] of refused)
      assert.throws(() => unpackContext(bytes, "ok"), reason, name);
    const linked = archive([
      meta,
      ["tls/docker/ca.pem", "/etc/passwd", "symlink"],
      ["tls/docker", "", "directory"],
    ]);
    assert.equal(unpackContext(linked, "ok").tls.size, 0);
    const odd = unpackContext(archive([["meta.json", '{"Metadata":[],"Endpoints":7,"Name":{}}']]), "ok");
    assert.deepEqual(odd.meta, { Name: "ok", Metadata: {}, Endpoints: {} });
  });
});

describe("which daemon is meant", () => {
  const resolve = (words: readonly string[], env: Environment = {}): ReturnType<typeof resolveTarget> => {
    const { flags } = parseFlags(globalFlags(config), words, false);
    const contextName = currentContext(flags, env, undefined);
    return resolveTarget({ flags, env, program: "docker", configDirectory: config, contextName });
  };

  test("hosts are completed as Docker's client completes them", () => {
    const cases: [string, string, string?][] = [
      ["", "unix:///var/run/docker.sock", "tcp://localhost:2376"],
      [" ", "unix:///var/run/docker.sock", "tcp://localhost:2376"],
      ["unix://", "unix:///var/run/docker.sock"],
      ["unix:///x", "unix:///x"],
      ["box", "tcp://box:2375", "tcp://box:2376"],
      [":1", "tcp://localhost:1"],
      ["tcp://", "tcp://localhost:2375"],
      ["::1", "tcp://[::1]:2375"],
      ["tcp://[::1]", "tcp://[::1]:2375"],
      ["[fd00::1]:7", "tcp://[fd00::1]:7"],
      ["tcp://u@h:1/pre/fix?q#f", "tcp://h:1/pre/fix"],
      ["ssh://me@box", "ssh://me@box"],
    ];
    for (const [given, plain, secure] of cases) {
      assert.equal(normaliseHost(given, "docker", false), plain, given);
      if (secure !== undefined) assert.equal(normaliseHost(given, "docker", true), secure, given);
    }
    for (const bad of ["foo://x", "https://h:1", "tcp://[::1", "tcp://h:ab", "tcp://a:1:2", "tcp://tcp://x"])
      assert.throws(() => normaliseHost(bad, "docker", false), bad);
  });

  test("flags come before variables, variables before contexts", () => {
    writeContext(config, { ...stored, tls: new Map() });
    assert.equal(resolve(["--context", "box"], { DOCKER_HOST: "tcp://e:1" }).host, "tcp://h:1");
    assert.equal(
      resolve(["-H", "tcp://f:1"], { DOCKER_HOST: "tcp://e:1", DOCKER_CONTEXT: "box" }).host,
      "tcp://f:1",
    );
    assert.equal(resolve([], { DOCKER_HOST: "tcp://e:1", DOCKER_CONTEXT: "box" }).host, "tcp://e:1");
    assert.equal(resolve([], { DOCKER_HOST: "", DOCKER_CONTEXT: "box" }).host, "tcp://h:1");
    assert.throws(() => resolve(["-H", "a", "-H", "b"]), /Specify only one -H/);
    assert.throws(
      () => resolve([], { DOCKER_CONTEXT: "gone" }),
      /unable to resolve docker endpoint: context "gone"/,
    );
  });

  test("TLS: what switches it on, what verifies, which files it wants", () => {
    writeFileSync(join(config, "ca.pem"), "CA");
    writeFileSync(join(config, "cert.pem"), "C");
    const on = { ca: "CA", cert: "C", verify: true };
    assert.equal(resolve([]).tls, undefined);
    assert.equal(resolve(["--tlscacert", "/nope"]).tls, undefined);
    assert.deepEqual(resolve(["--tlsverify"]), { host: "tcp://localhost:2376", tls: on });
    assert.deepEqual(resolve(["--tls"]).tls, { ...on, verify: false });
    assert.deepEqual(resolve(["--tlsverify=false"]).tls, { ...on, verify: false });
    assert.deepEqual(resolve([], { DOCKER_TLS_VERIFY: "0" }).tls, on);
    assert.deepEqual(resolve(["--tlsverify=false"], { DOCKER_TLS_VERIFY: "1" }).tls, {
      ...on,
      verify: false,
    });
    assert.deepEqual(resolve(["--tls=false"], { DOCKER_TLS_VERIFY: "1" }).tls, on);
    assert.equal(resolve(["--tls=false"], { DOCKER_TLS: "1" }).tls, undefined);
    assert.throws(
      () => resolve(["--tls"], { DOCKER_CERT_PATH: "/nope" }),
      /open \/nope\/ca.pem: no such file/,
    );
    assert.throws(() => resolve(["--tlsverify", "--tlskey", "/nope"]), /open \/nope: no such file/);
    assert.throws(() => resolve(["--tls=maybe"]), FlagError);
  });

  test("certificates and keys are held against each other before a daemon is dialled", () => {
    const span = { from: new Date(Date.now() - 1000), until: new Date(Date.now() + 60_000) };
    const ca = makeAuthority({ commonName: "x", ...span });
    const one = issueCertificate(ca, { commonName: "a", use: "client", ...span });
    const two = issueCertificate(ca, { commonName: "b", use: "client", ...span });
    const good = { ca: ca.certificate, cert: one.certificate, key: one.key, verify: true };
    checkTls(undefined);
    checkTls(good);
    checkTls({ verify: false, cert: "half" });
    assert.throws(() => checkTls({ ...good, ca: "junk" }), /ca.pem seems invalid/);
    assert.throws(() => checkTls({ ...good, cert: "junk" }), /find any PEM data in certificate input/);
    assert.throws(() => checkTls({ ...good, key: "junk" }), /find any PEM data in key input/);
    assert.throws(() => checkTls({ ...good, key: two.key }), /private key does not match public key/);
  });
});
