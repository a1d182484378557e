import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

/** Where this machine keeps what tests fetch or make once: peers, images, the emulator and its disk. */
export function cacheFolder(name: string): string {
  return join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "skiff", name);
}

/**
 * A folder of the cache that is made whole or not at all: `make` fills a temporary one, which then gets the name. Whoever
 * comes second with the same throws away its own.
 */
export function cachedFolder(path: string, make: (folder: string) => void): string {
  if (existsSync(path)) return path;
  const temporary = `${path}.${process.pid}`;
  rmSync(temporary, { recursive: true, force: true });
  mkdirSync(temporary, { recursive: true });
  try {
    make(temporary);
    if (!existsSync(path)) renameSync(temporary, path);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
  return path;
}

/** What apt would install beside the packages: the libraries that this machine lacks. Nothing is installed. */
function missingDependencies(packages: readonly string[]): string[] {
  const plan = execFileSync("apt-get", ["-s", "install", "--no-install-recommends", ...packages], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
  return [...plan.matchAll(/^Inst (\S+) /gm)].map((match) => match[1]!);
}

/** Unpacks packages of Debian, and those they need and this machine lacks, below `folder`/root. Nothing is installed. */
export function unpackPackages(folder: string, packages: readonly string[]): void {
  const debs = join(folder, "debs");
  mkdirSync(debs, { recursive: true });
  const download = (): void => {
    const wanted = new Set([...packages, ...missingDependencies(packages)]);
    execFileSync("apt-get", ["download", "-qq", ...wanted], {
      cwd: debs,
      stdio: ["ignore", "ignore", "pipe"],
    });
  };
  try {
    download();
  } catch {
    execFileSync("apt-get", ["update", "-qq"], { stdio: ["ignore", "ignore", "pipe"] });
    download();
  }
  for (const deb of readdirSync(debs)) execFileSync("dpkg", ["-x", join(debs, deb), join(folder, "root")]);
  rmSync(debs, { recursive: true });
}
