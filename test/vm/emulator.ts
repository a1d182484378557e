import { existsSync } from "node:fs";
import { join } from "node:path";
import { cachedFolder, cacheFolder, unpackPackages } from "../peers/package-cache.ts";

/**
 * Debian's qemu, unpacked into the cache and never installed. It emulates in software: hardware virtualisation is not
 * there on every machine that tests run on, and where it is nested it need not work.
 */
const packages = ["qemu-system-x86"] as const;
const formatVersion = "1";

export interface Emulator {
  readonly program: string;
  readonly env: NodeJS.ProcessEnv;
  /** Directories of firmware (`-L`). */
  readonly firmware: readonly string[];
}

/** Why no emulator can run here, or undefined. */
export function noEmulator(): string | undefined {
  if (process.arch !== "x64")
    return `the machine's disk is made for amd64, and this is ${process.arch}: emulating it would take hours`;
  if (!existsSync("/usr/bin/apt-get"))
    return "this is no Debian: there is nowhere to take the emulator and its disk from";
  return undefined;
}

/** The emulator of this machine; fetched (some 20 MB from Debian's archive) when it is not in the cache. */
export function ensureEmulator(): Emulator {
  const base = cachedFolder(join(cacheFolder("emulator"), formatVersion), (folder) =>
    unpackPackages(folder, packages),
  );
  const root = join(base, "root");
  const libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map((path) => join(root, path));
  return {
    program: join(root, "usr/bin/qemu-system-x86_64"),
    env: { ...process.env, LD_LIBRARY_PATH: libraries.join(":") },
    firmware: ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"].map((path) => join(root, path)),
  };
}
