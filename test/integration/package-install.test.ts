import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, describe, test } from "node:test";
import { buildDeb } from "../../packaging/deb.ts";
import { startSkiffd } from "../peers/skiffd.ts";

const root = join(import.meta.dirname, "../..");
const home = mkdtempSync(join(tmpdir(), "skiff-package-"));
after(() => rmSync(home, { recursive: true, force: true }));
const prove = process.env["SKIFF_PROVE"] !== undefined;

const deb = buildDeb({ root, outdir: home, compression: "zstd", epoch: 1_700_000_000 });
const output = (command: string, args: readonly string[]): string =>
  execFileSync(command, args, { encoding: "utf8", maxBuffer: 16 * 1024 ** 2 });

describe("the Debian package", () => {
  test("is the same bytes twice", async () => {
    const again = await buildDeb({
      root,
      outdir: join(home, "again"),
      compression: "zstd",
      epoch: 1_700_000_000,
    });
    assert.ok(readFileSync(await deb).equals(readFileSync(again)));
  });

  test("says what it is, and everything in it is root's", async () => {
    const fields = output("dpkg-deb", ["--field", await deb]);
    assert.match(fields, /^Package: skiff$/m);
    assert.match(fields, /^Depends: .*crun \| runc/m);
    assert.equal(output("dpkg-deb", ["--ctrl-tarfile", await deb]).includes("conffiles"), true);
    const lines = output("dpkg-deb", ["--contents", await deb])
      .trim()
      .split("\n");
    assert.deepEqual(
      lines.filter(
        (line) => !/^[-dl]rwxr-xr-x root\/root|^-rw-r--r-- root\/root|^lrwxrwxrwx root\/root/.test(line),
      ),
      [],
    );
    for (const path of [
      "./usr/bin/skiff",
      "./usr/sbin/skiffd",
      "./etc/skiff/daemon.json",
      "./lib/systemd/system/skiff.socket",
    ])
      assert.ok(
        lines.some((line) => line.includes(` ${path}`)),
        path,
      );
  });

  test("maintainer scripts are ones that a shell can read, and refuse what dpkg does not say", () => {
    for (const name of ["postinst", "prerm", "postrm"]) {
      const path = join(root, "packaging/debian", name);
      assert.equal(spawnSync("sh", ["-n", path]).status, 0, name);
      const { status, stderr } = spawnSync("sh", [path, "nonsense"], { encoding: "utf8" });
      assert.equal(status, 1);
      assert.match(stderr, /unknown argument 'nonsense'/);
    }
  });

  test("its programs run from where it puts them, with nothing of the checkout", async () => {
    const tree = join(home, "tree");
    execFileSync("dpkg-deb", ["--extract", await deb, tree]);
    assert.match(output(join(tree, "usr/lib/skiff/bin/skiff"), ["--version"]), /^Docker version|^Skiff/);
    await using daemon = await startSkiffd({ program: join(tree, "usr/lib/skiff/bin/skiffd") });
    const said = output(join(tree, "usr/lib/skiff/bin/skiff"), [
      "-H",
      daemon.host,
      "info",
      "--format",
      "{{.Driver}}",
    ]);
    assert.equal(said.trim(), "overlay2");
  });

  // Debian's archive decides how long this takes: half a minute and more.
  if (prove) {
    test("apt installs it on a fresh Debian root, and purge leaves nothing", async () => {
      const debian = join(home, "debian");
      execFileSync("mmdebstrap", ["--variant=minbase", "--quiet", "bookworm", debian], { stdio: "inherit" });
      copyFileSync(await deb, join(debian, basename(await deb)));
      for (const path of ["etc/apt/apt.conf.d", "etc/resolv.conf"]) {
        if (existsSync(`/${path}`))
          cpSync(`/${path}`, join(debian, path), { recursive: true, dereference: true });
      }
      mkdirSync(join(debian, "usr/sbin"), { recursive: true });
      writeFileSync(join(debian, "usr/sbin/policy-rc.d"), "#!/bin/sh\nexit 101\n", { mode: 0o755 });
      const inside = (script: string): string =>
        output("unshare", [
          "--mount",
          "--pid",
          "--fork",
          `--root=${debian}`,
          "--mount-proc",
          "sh",
          "-ec",
          `export DEBIAN_FRONTEND=noninteractive; ${script}`,
        ]);
      inside(
        `apt-get update -qq && apt-get install -y -qq --no-install-recommends /${basename(await deb)} >/dev/null 2>&1`,
      );
      assert.match(inside("getent group skiff"), /^skiff:/);
      assert.match(inside("skiffd --version"), /^skiffd version/);
      assert.equal(inside("skiffd --validate").trim(), "configuration OK");
      assert.match(inside("skiff completion bash"), /complete -F _skiff skiff/);
      inside("apt-get purge -y -qq skiff >/dev/null 2>&1");
      const left = inside(
        "find / -xdev -name '*skiff*' -not -path '/proc/*' -not -name '*.deb' -not -path '/root/*'",
      );
      assert.equal(left, "");
    });
  }
});

describe("the npm tarball", () => {
  test("holds bundles, no sources and no tests; installed globally, its programs run", {
    timeout: 240_000,
  }, async () => {
    const packed = output("npm", [
      "pack",
      "--silent",
      "--ignore-scripts=false",
      "--pack-destination",
      home,
    ]).trim();
    const tarball = join(home, packed.split("\n").at(-1)!);
    const names = output("tar", ["-tzf", tarball]).split("\n");
    assert.deepEqual(
      names.filter((name) => /^package\/(src|test)\/|\.test\.ts$/.test(name)),
      [],
    );
    for (const name of [
      "dist/skiffd.mjs",
      "native/build/skiff-native",
      "native/Makefile",
      "packaging/postinstall.sh",
    ])
      assert.ok(names.includes(`package/${name}`), name);
    const prefix = join(home, "prefix");
    execFileSync(
      "npm",
      ["install", "-g", "--prefix", prefix, "--prefer-offline", "--no-audit", "--no-fund", tarball],
      {
        stdio: ["ignore", "ignore", "pipe"],
      },
    );
    await using daemon = await startSkiffd({ program: join(prefix, "bin/skiffd") });
    const said = output(join(prefix, "bin/skiff"), ["-H", daemon.host, "info", "--format", "{{.Driver}}"]);
    assert.equal(said.trim(), "overlay2");
  });
});
