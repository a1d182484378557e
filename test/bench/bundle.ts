import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The installed form in a temporary folder: what users run, without the sources. */
export function installBundle(): { skiffd: string; skiff: string; remove(): void } {
  const root = join(import.meta.dirname, "../..");
  const home = mkdtempSync(join(tmpdir(), "skiff-bundle-"));
  execFileSync(process.execPath, [join(root, "packaging/bundle.ts")], {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
  });
  mkdirSync(join(home, "native/build"), { recursive: true });
  cpSync(join(root, "dist"), join(home, "dist"), { recursive: true });
  cpSync(join(root, "bin"), join(home, "bin"), { recursive: true });
  cpSync(join(root, "package.json"), join(home, "package.json"));
  cpSync(join(root, "native/build/skiff-native"), join(home, "native/build/skiff-native"));
  symlinkSync(join(root, "node_modules"), join(home, "node_modules"));
  return {
    skiffd: join(home, "bin/skiffd"),
    skiff: join(home, "bin/skiff"),
    remove: () => rmSync(home, { recursive: true }),
  };
}
