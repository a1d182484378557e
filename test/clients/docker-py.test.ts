import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { busyboxLayout, pushLayout } from "../peers/images.ts";
import { startRegistry } from "../peers/registry.ts";
import { startSkiffd } from "../peers/skiffd.ts";

/** docker-py from the Python registry, in a folder of the cache: no system package is touched. */
function dockerPy(): string {
  const target = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "skiff", "docker-py-7");
  if (!existsSync(join(target, "docker"))) {
    mkdirSync(target, { recursive: true });
    try {
      execFileSync("python3", ["-m", "pip", "install", "--quiet", "--target", target, "docker==7.1.0"], {
        stdio: ["ignore", "ignore", "pipe"],
      });
    } catch (error) {
      rmSync(target, { recursive: true });
      throw error;
    }
  }
  return target;
}

interface Check {
  readonly name: string;
  readonly ok: boolean;
  readonly error?: string;
}

test("docker-py", async (context) => {
  const path = dockerPy();
  await using registry = await startRegistry();
  await using daemon = await startSkiffd();
  const image = `${registry.address}/busybox:latest`;
  pushLayout(busyboxLayout(), image);
  const script = join(import.meta.dirname, "docker_py_checks.py");
  const output = await new Promise<string>((resolve) => {
    const env = { ...process.env, PYTHONPATH: path, PYTHONDONTWRITEBYTECODE: "1" };
    // A failed check makes the exit code 1: the lines say which.
    execFile(
      "python3",
      [script, daemon.host, image],
      { encoding: "utf8", env, timeout: 120_000 },
      (_error, stdout) => resolve(String(stdout)),
    );
  });
  const checks = output
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Check);
  assert.equal(checks.length, 13, output);
  for (const check of checks)
    await context.test(check.name, () => assert.ok(check.ok, check.error ?? "failed"));
});
