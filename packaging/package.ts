import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { buildDeb } from "./deb.ts";

/** `npm run package`: the Debian package and the npm tarball, into `packages/`. */
const root = join(import.meta.dirname, "..");
const outdir = join(root, "packages");
mkdirSync(outdir, { recursive: true });

const present = (process.env["PATH"] ?? "").split(":").some((folder) => existsSync(join(folder, "dpkg-deb")));
if (present) console.log(await buildDeb({ root, outdir }));
else console.log("skiff: no dpkg-deb on this machine, so no Debian package");

const packed = execFileSync("npm", ["pack", "--silent", "--pack-destination", outdir], {
  cwd: root,
  encoding: "utf8",
});
console.log(join(outdir, packed.trim().split("\n").at(-1)!));
