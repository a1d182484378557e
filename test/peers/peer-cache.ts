import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { cachedFolder, cacheFolder, unpackPackages } from "./package-cache.ts";

/**
 * Debian's engines and registries as peers: unpacked into a cache, never installed, so that a test changes neither the
 * machine's services nor its firewall. The cache is made once per machine.
 */
const packages = [
  "docker.io",
  "containerd",
  "runc",
  "tini",
  "podman",
  "conmon",
  "containernetworking-plugins",
  "golang-github-containers-common",
  "golang-github-containers-image",
  "libsubid4",
  "docker-registry",
  "skopeo",
  "buildah",
  "umoci",
  "iptables",
  "libxtables12",
  "libip4tc2",
  "libip6tc2",
  "libnetfilter-conntrack3",
  "libnfnetlink0",
  "libgpgme11",
  "libassuan0",
  "libdevmapper1.02.1",
] as const;

const formatVersion = "5";

export interface Peers {
  /** Root of the unpacked packages. */
  readonly root: string;
  /** Environment in which the peers' programs find each other and their libraries. */
  readonly env: NodeJS.ProcessEnv;
  /** Absolute path of a peer's program. */
  path(program: string): string;
}

function unpack(target: string): void {
  unpackPackages(target, packages);
  const links = join(target, "root/links");
  mkdirSync(links, { recursive: true });
  for (const name of [
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
  ]) {
    symlinkSync("../usr/sbin/xtables-nft-multi", join(links, name));
  }
}

/** The peers of this machine; makes the cache when it is not there (some 90 MB from Debian's archive). */
export function ensurePeers(): Peers {
  const base = cachedFolder(join(cacheFolder("peers"), formatVersion), unpack);
  const root = join(base, "root");
  const path = [
    join(root, "links"),
    join(root, "usr/bin"),
    join(root, "usr/sbin"),
    process.env["PATH"] ?? "",
  ].join(":");
  const libraries = join(root, "usr/lib/x86_64-linux-gnu");
  // Debian 12 still ships some libraries beneath /lib.
  const oldLibraries = join(root, "lib/x86_64-linux-gnu");
  return {
    root,
    env: {
      ...process.env,
      PATH: path,
      LD_LIBRARY_PATH: `${libraries}:${oldLibraries}`,
      XTABLES_LIBDIR: join(libraries, "xtables"),
    },
    path: (program) => {
      for (const folder of ["usr/bin", "usr/sbin"]) {
        const candidate = join(root, folder, program);
        if (existsSync(candidate)) return candidate;
      }
      throw new Error(`no peer program ${program}`);
    },
  };
}

/** The major version of the `docker` on PATH: 28 where a current one is installed, 20 where Debian's stands in. */
export function dockerClientMajor(): number {
  const said = execFileSync("docker", ["--version"], { encoding: "utf8" });
  return Number(/version (\d+)\./.exec(said)![1]);
}

/** Why a comparison with the words of the current client is skipped, or false. */
export function olderDockerClient(): string | false {
  const major = dockerClientMajor();
  return major < 28 && `the docker on PATH is version ${major}: our command line follows 28`;
}

/**
 * Sees to it that `docker` is on PATH for tests: the machine's own client, or Debian's from the cache where there is none.
 */
export function provideDockerCli(): void {
  const path = process.env["PATH"] ?? "";
  if (path.split(":").some((folder) => folder !== "" && existsSync(join(folder, "docker")))) return;
  const folder = join(ensurePeers().root, "docker-only");
  mkdirSync(folder, { recursive: true });
  if (!existsSync(join(folder, "docker"))) symlinkSync("../usr/bin/docker", join(folder, "docker"));
  process.env["PATH"] = `${path}:${folder}`;
}
