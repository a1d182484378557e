import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { ensurePeers } from "./peer-cache.ts";

/** Images for tests, made on the spot from Debian's packages: no public registry is needed. */

export interface LayoutConfig {
  readonly Cmd?: readonly string[];
  readonly Entrypoint?: readonly string[];
  readonly Env?: readonly string[];
  readonly ExposedPorts?: Readonly<Record<string, object>>;
  readonly Volumes?: Readonly<Record<string, object>>;
  readonly WorkingDir?: string;
  readonly User?: string;
  readonly Labels?: Readonly<Record<string, string>>;
  readonly StopSignal?: string;
}

interface Blob {
  readonly digest: string;
  readonly size: number;
}

function putBlob(layout: string, bytes: Uint8Array): Blob {
  const hex = createHash("sha256").update(bytes).digest("hex");
  writeFileSync(join(layout, "blobs/sha256", hex), bytes);
  return { digest: `sha256:${hex}`, size: bytes.length };
}

/** Writes an OCI image layout at `layout` from uncompressed layer tars, bottom first. Returns the image's id. */
export function writeLayout(layout: string, layerTars: readonly Uint8Array[], config: LayoutConfig): string {
  mkdirSync(join(layout, "blobs/sha256"), { recursive: true });
  const diffIds: string[] = [];
  const layers = layerTars.map((tar) => {
    diffIds.push(`sha256:${createHash("sha256").update(tar).digest("hex")}`);
    const blob = putBlob(layout, gzipSync(tar, { level: 6 }));
    return { mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", ...blob };
  });
  const created = "2026-01-02T03:04:05Z";
  const image = {
    created,
    architecture: process.arch === "arm64" ? "arm64" : "amd64",
    os: "linux",
    config: { Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], ...config },
    rootfs: { type: "layers", diff_ids: diffIds },
    history: diffIds.map((_, index) => ({ created, created_by: `layer ${index + 1}` })),
  };
  const configBlob = putBlob(layout, Buffer.from(JSON.stringify(image)));
  const manifest = {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: { mediaType: "application/vnd.oci.image.config.v1+json", ...configBlob },
    layers,
  };
  const manifestBlob = putBlob(layout, Buffer.from(JSON.stringify(manifest)));
  writeFileSync(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(
    join(layout, "index.json"),
    JSON.stringify({
      schemaVersion: 2,
      manifests: [
        {
          mediaType: manifest.mediaType,
          ...manifestBlob,
          annotations: { "org.opencontainers.image.ref.name": "latest" },
        },
      ],
    }),
  );
  return configBlob.digest;
}

/** Packs a folder with GNU tar: numeric owners, sorted, fixed times, so that the same folder gives the same layer. */
export function tarOf(folder: string): Buffer {
  const args = ["-C", folder, "--numeric-owner", "--sort=name", "--mtime=@1767323045", "-cf", "-", "."];
  return execFileSync("tar", args, { maxBuffer: 2 ** 31 });
}

/** Fills a folder with Debian's static busybox and what a small system has in /etc. */
export function busyboxRoot(folder: string): void {
  for (const name of [
    "bin",
    "dev",
    "etc",
    "home",
    "proc",
    "root",
    "sys",
    "tmp",
    "usr/bin",
    "usr/sbin",
    "var",
  ]) {
    mkdirSync(join(folder, name), { recursive: true });
  }
  copyFileSync("/bin/busybox", join(folder, "bin/busybox"));
  for (const applet of execFileSync("/bin/busybox", ["--list"], { encoding: "utf8" }).split("\n")) {
    if (applet !== "" && applet !== "busybox") symlinkSync("busybox", join(folder, "bin", applet));
  }
  execFileSync("chmod", ["1777", join(folder, "tmp")]);
  writeFileSync(
    join(folder, "etc/passwd"),
    "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
  );
  writeFileSync(
    join(folder, "etc/group"),
    "root:x:0:\ndaemon:x:1:\nwheel:x:10:root\nwww-data:x:33:\nnogroup:x:65534:\n",
  );
}

/** A layout in a temporary folder made by `fill`; the caller removes `folder`. */
export function makeLayout(
  fill: (rootFolder: string) => void,
  config: LayoutConfig,
): { folder: string; id: string } {
  const folder = mkdtempSync(join(tmpdir(), "skiff-layout-"));
  const rootFolder = join(folder, "rootfs");
  mkdirSync(rootFolder);
  fill(rootFolder);
  const id = writeLayout(join(folder, "layout"), [tarOf(rootFolder)], config);
  rmSync(rootFolder, { recursive: true });
  return { folder: join(folder, "layout"), id };
}

function imageCache(): string {
  return join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "skiff", "images");
}

function cached(name: string, make: (layout: string) => void): string {
  const path = join(imageCache(), name);
  if (existsSync(path)) return path;
  mkdirSync(imageCache(), { recursive: true });
  const temporary = mkdtempSync(`${path}.`);
  try {
    make(join(temporary, "layout"));
    if (!existsSync(path)) renameSync(join(temporary, "layout"), path);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
  return path;
}

/** OCI layout of a busybox image, cached on this machine. */
export function busyboxLayout(): string {
  return cached("busybox-3", (layout) => {
    const folder = mkdtempSync(join(tmpdir(), "skiff-busybox-"));
    try {
      busyboxRoot(folder);
      writeLayout(layout, [tarOf(folder)], { Cmd: ["sh"] });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

/**
 * OCI layout of a system that looks like an old CentOS as far as tutorials use it: `yum install -y httpd` brings a server
 * from the image's own store, `service` starts and stops what is in /etc/init.d, `bash` is busybox's shell.
 */
export function centosLayout(): string {
  return cached("centos-1", (layout) => {
    const folder = mkdtempSync(join(tmpdir(), "skiff-centos-"));
    const script = (path: string, text: string): void => {
      mkdirSync(join(folder, path, ".."), { recursive: true });
      writeFileSync(join(folder, path), `#!/bin/sh\n${text}`, { mode: 0o755 });
    };
    try {
      busyboxRoot(folder);
      writeFileSync(join(folder, "etc/centos-release"), "CentOS release 6.10 (Final)\n");
      script("bin/bash", 'exec sh "$@"\n');
      script("usr/bin/yum", yum);
      script("sbin/service", service);
      writeLayout(layout, [tarOf(folder)], { Cmd: ["/bin/bash"] });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

const yum = `[ "$1 $2 $3" = "install -y httpd" ] || { echo "No package $3 available."; exit 1; }
echo "Resolving Dependencies"
mkdir -p /etc/init.d /usr/sbin /var/www/html
echo "It works!" > /var/www/html/index.html
cat > /usr/sbin/httpd <<'END'
#!/bin/sh
exec busybox httpd -p 80 -h /var/www/html "$@"
END
cat > /etc/init.d/httpd <<'END'
#!/bin/sh
case "$1" in
  start) printf 'Starting httpd: '; /usr/sbin/httpd && echo '[  OK  ]' ;;
  status) pidof busybox >/dev/null && echo 'httpd is running...' ;;
esac
END
chmod 755 /usr/sbin/httpd /etc/init.d/httpd
echo "Installed:"
echo "  httpd.x86_64 0:2.2.15-69.el6.centos"
echo
echo "Complete!"
`;

const service = `[ -x "/etc/init.d/$1" ] || { echo "$1: unrecognized service"; exit 1; }
name=$1
shift
exec "/etc/init.d/$name" "$@"
`;

/**
 * OCI layout of a Debian image with apt, nginx and Python, made by mmdebstrap with this machine's own apt
 * configuration; about a minute the first time, then cached.
 */
export function debianLayout(): string {
  return cached("debian-2", (layout) => {
    const folder = mkdtempSync(join(tmpdir(), "skiff-debian-"));
    const tar = join(folder, "debian.tar");
    try {
      const sources = aptSources();
      execFileSync(
        "mmdebstrap",
        [
          "--variant=apt",
          "--include=nginx-light,python3-minimal",
          "--aptopt=Apt::Install-Recommends false",
          "bookworm",
          tar,
          ...sources,
        ],
        { stdio: ["ignore", "ignore", "pipe"] },
      );
      writeLayout(layout, [readFileSync(tar)], { Cmd: ["bash"] });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

function aptSources(): string[] {
  const candidates = ["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"];
  const found = candidates.filter(
    (path) => existsSync(path) && /^(deb|Types:)/m.test(readFileSync(path, "utf8")),
  );
  if (found.length === 0) throw new Error("no apt sources on this machine");
  return found;
}

/** Copies an OCI layout to a registry on loopback with skopeo. `creds`: `user:password`. */
export function pushLayout(
  layout: string,
  reference: string,
  options: { creds?: string; netnsOf?: number } = {},
): void {
  const peers = ensurePeers();
  const argv = [
    ...(options.netnsOf === undefined ? [] : ["nsenter", "-t", String(options.netnsOf), "-n"]),
    peers.path("skopeo"),
    "--insecure-policy",
    "copy",
    "--quiet",
    "--dest-tls-verify=false",
    ...(options.creds === undefined ? [] : ["--dest-creds", options.creds]),
    `oci:${layout}:latest`,
    `docker://${reference}`,
  ];
  execFileSync(argv[0]!, argv.slice(1), { env: peers.env, stdio: ["ignore", "ignore", "pipe"] });
}
