import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { completionScripts } from "./completion-scripts.ts";

const skiff = join(import.meta.dirname, "../../bin/skiff");
const has = (shell: string): boolean => spawnSync(shell, ["-c", "exit 0"]).status === 0;

/** What bash would offer for a line, with the cursor at its end. */
function inBash(line: string): string[] {
  const folder = mkdtempSync(join(tmpdir(), "skiff-completion-"));
  try {
    symlinkSync(skiff, join(folder, "skiff"));
    writeFileSync(join(folder, "completion"), completionScripts["bash"]!);
    const script = `
      . ${folder}/completion
      COMP_LINE=$1 COMP_POINT=\${#1} COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
      _skiff
      printf '%s\\n' "\${COMPREPLY[@]}"`;
    const env = { ...process.env, PATH: `${folder}:${process.env["PATH"]}`, HOME: folder };
    const out = execFileSync("bash", ["-c", script, "bash", line], { encoding: "utf8", env });
    return out.split("\n").filter((word) => word !== "");
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe("completion of shells", () => {
  test("bash: commands, subcommands, flags", () => {
    assert.deepEqual(inBash("skiff pul"), ["pull"]);
    assert.deepEqual(inBash("skiff system doc"), ["doctor"]);
    assert.deepEqual(inBash("skiff run --rest"), ["--restart"]);
    assert.ok(inBash("skiff volume ").includes("prune"));
  });

  test("each script is one that its shell can read", () => {
    for (const [shell, script] of Object.entries(completionScripts)) {
      // Debian's minimal system has bash alone; the others are read where they are.
      if (!has(shell)) continue;
      const { status, stderr } = spawnSync(shell, ["-n"], { input: script, encoding: "utf8" });
      assert.equal(status, 0, `${shell}: ${stderr}`);
    }
  });

  test("the command prints them, and names the shells where there is none", () => {
    assert.equal(execFileSync(skiff, ["completion", "zsh"], { encoding: "utf8" }), completionScripts["zsh"]);
    const { status, stderr } = spawnSync(skiff, ["completion", "tcsh"], { encoding: "utf8" });
    assert.equal(status, 1);
    assert.match(stderr, /bash, zsh and fish/);
  });
});
