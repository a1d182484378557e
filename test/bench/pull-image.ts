import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { debianLayout, writeLayout } from "../peers/images.ts";

/**
 * The image of row pull-5: five layers of real files, some 190 MB compressed, 420 MB and 27,000 files unpacked: a
 * Debian base, and four layers from this machine's own /usr (compilers, Python, headers, documentation).
 */
export function fiveLayerLayout(): { path: string; id: string } {
  const cache = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "skiff", "images");
  const path = join(cache, "five-layers-1");
  if (!existsSync(path)) {
    const base = firstLayer(debianLayout());
    const layers = [base, ...[0, 1, 2, 3].map(pack)];
    const temporary = `${path}.${process.pid}`;
    mkdirSync(temporary, { recursive: true });
    writeLayout(temporary, layers, { Cmd: ["true"] });
    renameSync(temporary, path);
  }
  const manifestDigest = (
    JSON.parse(readFileSync(join(path, "index.json"), "utf8")) as { manifests: { digest: string }[] }
  ).manifests[0]!.digest;
  const manifest = JSON.parse(readFileSync(join(path, "blobs/sha256", manifestDigest.slice(7)), "utf8")) as {
    config: { digest: string };
  };
  return { path, id: manifest.config.digest };
}

function firstLayer(layout: string): Buffer {
  const index = JSON.parse(readFileSync(join(layout, "index.json"), "utf8")) as {
    manifests: { digest: string }[];
  };
  const manifest = JSON.parse(
    readFileSync(join(layout, "blobs/sha256", index.manifests[0]!.digest.slice(7)), "utf8"),
  ) as { layers: { digest: string }[] };
  const blob = join(layout, "blobs/sha256", manifest.layers[0]!.digest.slice(7));
  return execFileSync("gzip", ["-dc", blob], { maxBuffer: 2 ** 31 });
}

/** Files under /usr, dealt round-robin into four piles until each is large enough. */
function pack(pile: number): Buffer {
  const bytesMax = 75 * 1024 * 1024;
  const filesMax = 5_500;
  const chosen: string[] = [];
  let bytes = 0;
  const walk = (folder: string): void => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (bytes > bytesMax || chosen.length > filesMax) return;
      const path = join(folder, entry.name);
      if (entry.isDirectory()) walk(path);
      else if (entry.isFile()) {
        const { size } = statSync(path);
        if (size > 20 * 1024 * 1024) continue;
        bytes += size;
        chosen.push(path);
      }
    }
  };
  for (const folder of [
    ["/usr/lib/gcc", "/usr/lib/x86_64-linux-gnu"],
    ["/usr/lib/python3", "/usr/share"],
    ["/usr/include", "/usr/bin"],
    ["/usr/lib", "/usr/sbin"],
  ][pile]!) {
    if (existsSync(folder)) walk(folder);
  }
  const list = chosen.map((path) => path.slice(1)).join("\0");
  return execFileSync(
    "tar",
    [
      "-C",
      "/",
      "--null",
      "-T",
      "-",
      `--transform=s,^,pile${pile}/,`,
      "--hard-dereference",
      "--numeric-owner",
      "-cf",
      "-",
    ],
    {
      input: list,
      maxBuffer: 2 ** 31,
    },
  );
}
