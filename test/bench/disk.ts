import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";

/** Sparse: what is not written costs nothing. */
const diskBytes = "12G";

/**
 * Runs `make` with the temporary folder on a new ext4 of its own (a loop device), so that no engine works in what others
 * left on the machine's disk: ext4 without a journal searches past inodes freed in the last minutes, which makes files
 * ten times dearer for whoever comes after a deletion. Where there is no loop device the machine's disk is used.
 */
export async function onOwnDisk<Made extends AsyncDisposable>(make: () => Promise<Made>): Promise<Made> {
  const before = process.env["TMPDIR"];
  // Short: socket paths are limited to 107 bytes.
  const home = mkdtempSync("/tmp/skb-");
  const mountPoint = join(home, "d");
  mkdirSync(mountPoint);
  const mounted = tryMount(join(home, "disk"), mountPoint);
  const release = (): void => {
    if (mounted) execFileSync("umount", ["--lazy", mountPoint]);
    rmSync(home, { recursive: true, force: true });
  };
  process.env["TMPDIR"] = mountPoint;
  try {
    const made = await make();
    const dispose = made[Symbol.asyncDispose].bind(made);
    return Object.assign(made, {
      [Symbol.asyncDispose]: async () => {
        await dispose();
        release();
      },
    });
  } catch (error) {
    release();
    throw error;
  } finally {
    if (before === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = before;
  }
}

function tryMount(file: string, mountPoint: string): boolean {
  try {
    execFileSync("truncate", ["-s", diskBytes, file]);
    execFileSync("mkfs.ext4", ["-q", "-F", "-E", "lazy_itable_init=0", file], { stdio: "pipe" });
    execFileSync("mount", ["-o", "loop", file, mountPoint], { stdio: "pipe" });
    return true;
  } catch (error) {
    console.log(
      `bench: no disk of its own for an engine, the machine's is used: ${String(error).split("\n")[0]}`,
    );
    rmSync(file, { force: true });
    return false;
  }
}
