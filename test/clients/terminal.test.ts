/** `run -it`, `attach`, `exec -it` and `start -ai` on our daemon, in a real pseudo-terminal, by Docker's client and ours. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { leftOver } from "../peers/left-over.ts";
import { type Client, clientPrograms, openRealLab, type RealLab, until } from "./real-lab.ts";

const driver = join(import.meta.dirname, "cli-terminal.py");
/** Docker's default detach keys: Ctrl-P, Ctrl-Q. */
const detachKeys = "\x10\x11";
const ctrlC = "\x03";
const ctrlD = "\x04";

type Step = readonly [waitFor: string, action: "type" | "size" | "signal", argument: unknown];

interface Session {
  readonly output: string;
  readonly code: number | null;
  /** The terminal's settings are those of before. */
  readonly restored: boolean;
}

/** Runs the client with its three streams on a new terminal of 33 rows and 99 columns. */
function drive(client: Client, words: readonly string[], steps: readonly Step[]): Promise<Session> {
  return new Promise((resolve, reject) => {
    const child = spawn("python3", [driver, JSON.stringify(steps), client.program, ...words], {
      env: client.env,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk: Buffer) => {
      stdout += chunk.toString("utf8");
    });
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString("utf8");
    });
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) resolve(JSON.parse(stdout) as Session);
      else reject(new Error(`driver: ${stderr}`));
    });
  });
}

/** A shell loop that ends when its terminal has this size. */
const untilSize = (size: string): string => `until [ "$(stty size)" = "${size}" ]; do sleep 0.1; done`;

let lab: RealLab;
before(async () => {
  lab = await openRealLab({ debian: false });
});
after(async () => {
  await lab?.[Symbol.asyncDispose]();
});

for (const [index, { name }] of clientPrograms.entries()) {
  describe(`a terminal through ${name}`, () => {
    let client: Client;
    before(() => {
      client = lab.clients[index]!;
    });
    afterEach(async () => {
      const left = (await client.out("ps", "-aq")).split("\n").filter((id) => id !== "");
      if (left.length > 0) await client.out("rm", "-f", ...left);
      assert.deepEqual(await leftOver(lab.daemon), []);
    });

    const running = async (container: string): Promise<string> =>
      await client.out("inspect", "-f", "{{.State.Running}}", container);

    test("run -it: the size, a terminal of its own, the exit code, settings restored", async () => {
      const { output, code, restored } = await drive(
        client,
        ["run", "--rm", "-it", "busybox", "sh"],
        [["# ", "type", "stty size; tty; echo T=$TERM; echo err >&2; exit 7\n"]],
      );
      assert.match(output, /33 99\r\n\/dev\/(pts\/0|console)\r\nT=xterm\r\nerr\r\n/);
      assert.equal(code, 7);
      assert.ok(restored, "the terminal's settings were not restored");
    });

    test("each new size reaches the program as a signal", async () => {
      // The loop says which size it has, the trap that the signal came. It begins after the client's own first resize,
      // which Docker's client sends beside the later ones, in no order.
      const script =
        'trap \'echo signal\' WINCH; sleep 1; while :; do s=$(stty size); [ "$s" = "$o" ] || echo $s; o=$s; sleep 0.05; done';
      const { output, code } = await drive(
        client,
        ["run", "--rm", "-it", "--init", "busybox", "sh", "-c", script],
        [
          ["33 99\r\n", "size", [44, 111]],
          ["44 111\r\n", "size", [20, 60]],
          ["20 60\r\n", "type", ctrlC],
        ],
      );
      assert.match(output, /33 99\r\n(signal\r\n)*44 111\r\n(signal\r\n)*20 60\r\n/);
      assert.ok((output.match(/signal/g)?.length ?? 0) >= 2, output);
      assert.equal(code, 130);
    });

    test("Ctrl-C ends a program with 130, Ctrl-D ends its input", async () => {
      const interrupted = await drive(
        client,
        ["run", "--rm", "-it", "--init", "busybox", "sh", "-c", "echo go; exec sleep 1000"],
        [["go", "type", ctrlC]],
      );
      assert.equal(interrupted.code, 130);
      assert.ok(interrupted.restored);
      const shell = await drive(
        client,
        ["run", "--rm", "-it", "busybox", "sh"],
        [
          ["# ", "type", `half a line${ctrlC}`],
          ["# ", "type", ctrlD],
        ],
      );
      assert.equal(shell.code, 130);
      const ended = await drive(
        client,
        ["run", "--rm", "-it", "busybox", "cat"],
        [
          ["", "type", "hello\n"],
          ["hello\r\nhello\r\n", "type", ctrlD],
        ],
      );
      assert.equal(ended.code, 0, ended.output);
    });

    test("the detach keys leave the container running; attach comes back and gets its exit code", async () => {
      const words = ["run", "-it", "--name", "stays", "busybox", "sh"];
      const first = await drive(client, words, [["# ", "type", detachKeys]]);
      assert.equal(first.code, 0);
      assert.ok(first.restored);
      assert.equal(await running("stays"), "true");
      const again = await drive(
        client,
        ["attach", "--detach-keys", "ctrl-a,d", "stays"],
        [
          // Attaching changes the size for a moment, so that the program paints again.
          ["# ", "type", "echo b$((1+1))k\n"],
          ["b2k", "type", "\x01d"],
        ],
      );
      assert.match(again.output, /read escape sequence/);
      assert.equal(again.code, 1);
      assert.ok(again.restored);
      assert.equal(await running("stays"), "true");
      // A first key alone, then another: both belong to the program.
      const last = await drive(
        client,
        ["attach", "stays"],
        [
          ["# ", "type", "stty -echo; echo go; cat -v\n"],
          ["go\r\n", "type", "\x10x\n"],
          ["^Px\r\n", "type", ctrlD],
          ["# ", "type", "exit 4\n"],
        ],
      );
      assert.match(last.output, /go\r\n\^Px\r\n/);
      assert.equal(last.code, 4);
    });

    test("exec -it has a terminal of its own, and detaching leaves the process", async () => {
      await client.out("run", "-d", "--name", "base", "busybox", "sleep", "1000");
      const shell = await drive(
        client,
        ["exec", "-it", "-e", "A=one", "-w", "/tmp", "base", "sh"],
        [
          // Docker's client sends its first size beside later ones, in no order: the new one waits until it came.
          ["# ", "type", `${untilSize("33 99")}; sleep 0.5; echo it$((0))came\n`],
          ["it0came", "size", [50, 120]],
          ["", "type", `${untilSize("50 120")}; stty size; echo $A $PWD; exit 3\n`],
        ],
      );
      assert.match(shell.output, /50 120\r\none \/tmp\r\n/);
      assert.equal(shell.code, 3);
      assert.ok(shell.restored);
      const interrupted = await drive(
        client,
        ["exec", "-it", "base", "sh", "-c", "echo go; sleep 1000"],
        [["go", "type", ctrlC]],
      );
      assert.equal(interrupted.code, 130);
      const detached = await drive(
        client,
        ["exec", "-it", "base", "sh", "-c", "echo go; sleep 987"],
        [["go", "type", detachKeys]],
      );
      assert.match(detached.output, /read escape sequence/);
      assert.ok(detached.restored);
      assert.match(await client.out("top", "base"), /sleep 987/);
      const missing = await drive(client, ["exec", "-it", "base", "nope"], []);
      assert.equal(missing.code, 127);
      assert.match(missing.output, /exec: "nope": executable file not found in \$PATH/);
      assert.ok(missing.restored);
    });

    test("start -ai continues a stopped terminal container", async () => {
      await client.out("create", "-it", "--name", "later", "busybox", "sh");
      for (const code of [5, 6]) {
        const session = await drive(
          client,
          ["start", "-ai", "later"],
          [["# ", "type", `stty size; exit ${code}\n`]],
        );
        assert.match(session.output, /33 99/);
        assert.equal(session.code, code);
        assert.ok(session.restored);
      }
    });

    test("a container that is killed ends the session with 137 and restores the terminal", async () => {
      const session = drive(client, ["run", "-it", "--name", "victim", "busybox", "sh"], []);
      await until("it runs", async () => (await client.run(["top", "victim"])).code === 0);
      await client.out("kill", "victim");
      const { code, restored } = await session;
      assert.equal(code, 137);
      assert.ok(restored);
    });

    test("two terminals on one container see the same, and the log has it once", async () => {
      await client.out("run", "-dit", "--name", "shared", "busybox", "sh");
      const reader = drive(
        client,
        ["attach", "shared"],
        [
          ["# ", "type", "touch /attached\n"],
          ["s2d\r\n", "type", detachKeys],
        ],
      );
      await until(
        "the first is attached",
        async () => (await client.run(["exec", "shared", "test", "-e", "/attached"])).code === 0,
      );
      const writer = drive(
        client,
        ["attach", "shared"],
        [
          ["# ", "type", "echo s$((1+1))d\n"],
          ["s2d\r\n", "type", detachKeys],
        ],
      );
      for (const { output } of await Promise.all([reader, writer])) assert.match(output, /s2d\r\n/);
      assert.equal((await client.out("logs", "shared")).match(/s2d/g)?.length, 1);
    });

    test("much input and much output pass whole", async () => {
      const lines = Array.from({ length: 400 }, (_, line) => `line ${line} ${"x".repeat(60)}`);
      const { output, code } = await drive(
        client,
        ["run", "--rm", "-it", "busybox", "sh", "-c", "stty -echo; echo go; cat | md5sum; seq 1 20000"],
        [
          ["go", "type", `${lines.join("\n")}\n`],
          ["", "type", ctrlD],
        ],
      );
      const { createHash } = await import("node:crypto");
      const expected = createHash("md5")
        .update(`${lines.join("\n")}\n`)
        .digest("hex");
      assert.ok(output.includes(expected), output.slice(0, 300));
      assert.ok(output.includes(Array.from({ length: 20000 }, (_, n) => n + 1).join("\r\n")));
      assert.equal(code, 0);
    });

    test("-t without a terminal is refused, -i without one works", async () => {
      const refused = await client.run(["run", "--rm", "-it", "busybox", "true"]);
      assert.equal(refused.code, 1);
      assert.match(refused.stderr, /the input device is not a TTY/);
      const output = await client.run(["run", "--rm", "-t", "busybox", "echo", "crlf"]);
      assert.equal(output.stdout, "crlf\r\n");
    });
  });
}
