/** `run -it`, `exec -it` and `attach` in a real pseudo-terminal: size, keys, signals, detaching, the terminal restored. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type PeerDaemon, startDockerd } from "../peers/dockerd.ts";
import { busyboxRoot } from "../peers/images.ts";

const skiff = join(import.meta.dirname, "../../bin/skiff");
const driver = join(import.meta.dirname, "cli-terminal.py");

type Step = readonly [waitFor: string, action: "type" | "size" | "signal", argument: unknown];

describe("our command line in a terminal", () => {
  let daemon: PeerDaemon;
  const home = mkdtempSync(join(tmpdir(), "skiff-cli-"));

  const env = (): NodeJS.ProcessEnv => ({
    ...process.env,
    DOCKER_HOST: daemon.host,
    DOCKER_CONFIG: home,
    TERM: "xterm",
  });
  const drive = (
    words: readonly string[],
    steps: readonly Step[],
  ): { output: string; code: number | null; restored: boolean } => {
    const result = spawnSync("python3", [driver, JSON.stringify(steps), skiff, ...words], {
      env: env(),
      encoding: "utf8",
      timeout: 60_000,
    });
    assert.equal(result.status, 0, result.stderr);
    return JSON.parse(result.stdout);
  };
  const plain = (...words: string[]): string =>
    spawnSync(skiff, words, { env: env(), encoding: "utf8" }).stdout.trim();

  before(async () => {
    daemon = await startDockerd();
    const root = join(home, "root");
    mkdirSync(root);
    busyboxRoot(root);
    const archive = join(home, "busybox.tar");
    execFileSync("tar", ["-C", root, "-cf", archive, "."]);
    assert.match(plain("import", "-c", 'CMD ["sh"]', archive, "busybox:latest"), /sha256:/);
  });

  after(async () => {
    await daemon?.[Symbol.asyncDispose]();
    rmSync(home, { recursive: true, force: true });
  });

  test("run -it has our size, a terminal, and its exit code", () => {
    const { output, code, restored } = drive(
      ["run", "--rm", "-it", "busybox", "sh"],
      [["# ", "type", "stty size; tty; exit 7\n"]],
    );
    assert.match(output, /33 99\r\n\/dev\/pts\/0\r\n/);
    assert.equal(code, 7);
    assert.ok(restored, "the terminal's settings were not restored");
  });

  test("a new size reaches the container", () => {
    // The size takes its way through signal, request and shim: asked for until it is there.
    const wait = "i=0; until stty size | grep -q '44 111' || [ $i -gt 80 ]; do i=$((i+1)); sleep 0.1; done";
    const steps: Step[] = [
      ["# ", "size", [44, 111]],
      ["", "type", `${wait}; stty size; exit\n`],
    ];
    const { output, code } = drive(["run", "--rm", "-it", "busybox", "sh"], steps);
    assert.match(output, /44 111/);
    assert.equal(code, 0);
  });

  test("Ctrl-C goes to the process, not to us", () => {
    const { output, code } = drive(
      [
        "run",
        "--rm",
        "-it",
        "busybox",
        "sh",
        "-c",
        "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done",
      ],
      [["ready", "type", "\x03"]],
    );
    assert.match(output, /caught/);
    assert.equal(code, 9);
  });

  test("the detach keys leave the container running, and attach comes back to it", () => {
    const first = drive(
      ["run", "-it", "--name", "cli-detach", "busybox", "sh"],
      [["# ", "type", "\x10\x11"]],
    );
    assert.equal(first.code, 0);
    assert.ok(first.restored);
    assert.equal(plain("inspect", "-f", "{{.State.Running}}", "cli-detach"), "true");
    const again = drive(
      ["attach", "--detach-keys", "ctrl-a,d", "cli-detach"],
      [
        ["", "type", "echo b$((1+1))k\n"],
        ["b2k", "type", "\x01d"],
      ],
    );
    assert.match(again.output, /read escape sequence/);
    assert.equal(again.code, 1);
    const last = drive(["attach", "cli-detach"], [["", "type", "exit 4\n"]]);
    assert.equal(last.code, 4);
    plain("rm", "cli-detach");
  });

  test("exec -it, and a signal to a run without a terminal is passed on", () => {
    plain("run", "-d", "--name", "cli-exec", "busybox", "sleep", "1000");
    const exec = drive(["exec", "-it", "cli-exec", "sh"], [["# ", "type", "stty size; exit 3\n"]]);
    assert.match(exec.output, /33 99/);
    assert.equal(exec.code, 3);
    plain("rm", "-f", "cli-exec");
    const run = drive(
      [
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "trap 'echo term; exit 5' TERM; echo ready; while :; do sleep 0.1; done",
      ],
      [["ready", "signal", 15]],
    );
    assert.match(run.output, /term/);
    assert.equal(run.code, 5);
  });

  test("pull, save and load do not write archives to a terminal", () => {
    const { output, code } = drive(["save", "busybox"], []);
    assert.match(output, /cowardly refusing to save to a terminal\. Use the -o flag or redirect/);
    assert.equal(code, 1);
  });
});
