import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildDeb } from "../../packaging/deb.ts";

const root = join(import.meta.dirname, "../..");

/** What is installed, and what it is an upgrade of. */
export const versions = { previous: "0.0.9-1", current: "0.1.0-1" } as const;

const applets = "cat echo env head httpd id ls mkdir mount nc ps sh sleep tail test touch true wc".split(" ");

function busyboxRoot(folder: string): void {
  mkdirSync(join(folder, "bin"), { recursive: true });
  for (const name of ["etc", "tmp", "www"]) mkdirSync(join(folder, name));
  copyFileSync("/bin/busybox", join(folder, "bin/busybox"));
  for (const name of applets) symlinkSync("busybox", join(folder, "bin", name));
  writeFileSync(join(folder, "etc/passwd"), "root:x:0:0:root:/:/bin/sh\n");
  writeFileSync(join(folder, "etc/group"), "root:x:0:\n");
  writeFileSync(join(folder, "www/index.html"), "from the container\n");
}

/** An archive as a disk: two versions of the package and an image's root. Removed on disposal. */
export async function makePayload(): Promise<{ readonly path: string } & Disposable> {
  const folder = mkdtempSync(join(tmpdir(), "skiff-payload-"));
  try {
    for (const [name, version] of Object.entries(versions)) {
      const outdir = join(folder, "build");
      renameSync(await buildDeb({ root, outdir, version, compression: "zstd" }), join(folder, `${name}.deb`));
    }
    busyboxRoot(join(folder, "busybox"));
    execFileSync("tar", ["-C", join(folder, "busybox"), "-cf", join(folder, "busybox.tar"), "."]);
    const path = join(folder, "payload");
    // A whole number of tar's blocks, which is a whole number of the disk's.
    execFileSync("tar", [
      "-C",
      folder,
      "-b",
      "64",
      "-cf",
      path,
      "previous.deb",
      "current.deb",
      "busybox.tar",
    ]);
    return { path, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) };
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    throw error;
  }
}
