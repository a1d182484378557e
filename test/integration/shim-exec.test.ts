import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { RuntimeStartError } from "#runtime/runtime-start-error.ts";
import type { AttachOptions, ExecLaunch, Shim } from "#runtime/shim.ts";
import {
  allStreams,
  demultiplex,
  dockerCapabilityMask,
  execLaunch,
  Rig,
  readAll,
  type TestContainer,
  withStdin,
} from "./shim-rig.ts";

let rig: Rig;
let shim: Shim;
let container: TestContainer;

before(async () => {
  rig = await Rig.start();
  writeFileSync(join(rig.layer, "script"), "#!/no/interpreter\n", { mode: 0o755 });
  writeFileSync(join(rig.layer, "garbage"), "xx", { mode: 0o755 });
  container = rig.container({ args: ["sleep", "600"] });
  shim = await rig.host.launch(container.launch);
  await shim.start();
});

after(async () => {
  await shim.signal(9);
  await shim.exited;
  const left = await rig.leftOver();
  await rig[Symbol.asyncDispose]();
  assert.deepEqual(left, []);
});

async function run(
  args: readonly string[],
  changes: Partial<ExecLaunch> = {},
  attach: AttachOptions = allStreams,
): Promise<{ stdout: string; stderr: string; exitCode: number }> {
  const process = await shim.exec(execLaunch(args, changes), { attach });
  assert.ok(process.stdio !== undefined);
  process.stdio.end();
  const bytes = await readAll(process.stdio);
  const { exitCode } = await process.exited;
  if (changes.terminal === true) return { stdout: bytes.toString(), stderr: "", exitCode };
  return { ...demultiplex(bytes), exitCode };
}

function statusField(status: string, name: string): string {
  return new RegExp(`^${name}:\\s+(.*)$`, "m").exec(status)?.[1] ?? "";
}

describe("exec", () => {
  it("runs in the container and gives streams and exit code", async () => {
    const result = await run(["sh", "-c", "hostname; echo err >&2; exit 7"]);
    assert.deepEqual(result, { stdout: "test\n", stderr: "err\n", exitCode: 7 });
  });

  it("gives 128 + n after a signal", async () => {
    assert.equal((await run(["sh", "-c", "kill -9 $$"])).exitCode, 137);
  });

  it("passes input and its end", async () => {
    const process = await shim.exec(execLaunch(["wc", "-c"], { openStdin: true }), { attach: withStdin });
    process.stdio?.end(Buffer.alloc(2_000_000, "y"));
    assert.ok(process.stdio !== undefined);
    assert.equal(demultiplex(await readAll(process.stdio)).stdout.trim(), "2000000");
  });

  it("knows its exit code when its stream ends", async () => {
    for (let round = 0; round < 20; round += 1) {
      const process = await shim.exec(execLaunch(["sh", "-c", "exit 9"]), { attach: allStreams });
      let code = -1;
      void process.exited.then(({ exitCode }) => {
        code = exitCode;
      });
      process.stdio?.resume();
      if (process.stdio !== undefined) await once(process.stdio, "end");
      assert.equal(code, 9);
    }
  });

  it("runs detached", async () => {
    const launch = execLaunch(["sh", "-c", "cat; echo x > /tmp/detached; exit 4"], { openStdin: true });
    const process = await shim.exec(launch, { attach: undefined });
    assert.equal(process.stdio, undefined);
    assert.equal((await process.exited).exitCode, 4);
    assert.equal((await run(["cat", "/tmp/detached"])).stdout, "x\n");
  });

  it("keeps reading what children write after it has ended", async () => {
    const result = await run(["sh", "-c", "(sleep 0.3; echo late) & echo early"]);
    assert.equal(result.stdout, "early\nlate\n");
  });

  it("goes on when its client leaves", async () => {
    const launch = execLaunch(["sh", "-c", "yes | head -n 500000 > /dev/stderr; exit 6"]);
    const process = await shim.exec(launch, { attach: allStreams });
    process.stdio?.destroy();
    assert.equal((await process.exited).exitCode, 6);
  });

  it("runs fifty at once", async () => {
    const all = Array.from({ length: 50 }, (_, i) => run(["sh", "-c", `echo ${i}; exit ${i}`]));
    const results = await Promise.all(all);
    results.forEach((result, i) => {
      assert.deepEqual(result, { stdout: `${i}\n`, stderr: "", exitCode: i });
    });
  });
});

describe("an exec's identity", () => {
  it("is the user, groups and capabilities asked for", async () => {
    const capabilities = {
      bounding: dockerCapabilityMask,
      effective: 0n,
      permitted: 0n,
      inheritable: 0n,
      ambient: 0n,
    };
    const changes = { uid: 1000, gid: 1001, additionalGids: [5, 2000], capabilities };
    const { stdout } = await run(["cat", "/proc/self/status"], changes);
    assert.equal(statusField(stdout, "Uid"), "1000\t1000\t1000\t1000");
    assert.equal(statusField(stdout, "Gid"), "1001\t1001\t1001\t1001");
    assert.equal(statusField(stdout, "Groups").trim(), "5 2000");
    assert.equal(statusField(stdout, "CapEff"), "0000000000000000");
    assert.equal(statusField(stdout, "CapPrm"), "0000000000000000");
    assert.equal(statusField(stdout, "CapBnd"), "00000000a80425fb");
    assert.equal(statusField(stdout, "NoNewPrivs"), "0");
    assert.equal(statusField(stdout, "Umask"), "0022");
  });

  it("has exactly the default capabilities as root", async () => {
    const { stdout } = await run(["cat", "/proc/self/status"]);
    for (const name of ["CapPrm", "CapEff", "CapBnd"]) {
      assert.equal(statusField(stdout, name), "00000000a80425fb");
    }
    for (const name of ["CapInh", "CapAmb"]) assert.equal(statusField(stdout, name), "0000000000000000");
  });

  it("can keep capabilities for another user through the ambient set", async () => {
    const chown = 1n;
    const capabilities = {
      bounding: chown,
      effective: chown,
      permitted: chown,
      inheritable: chown,
      ambient: chown,
    };
    const { stdout } = await run(["cat", "/proc/self/status"], { uid: 1000, gid: 1000, capabilities });
    for (const name of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
      assert.equal(statusField(stdout, name), "0000000000000001", name);
    }
  });

  for (const noNewPrivileges of [false, true]) {
    it(`is under the seccomp filter (no_new_privs ${noNewPrivileges})`, async () => {
      // ld [nr]; jeq mkdir ? EPERM : ALLOW; beside it mkdirat. BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K (linux/filter.h).
      const filter: [number, number, number, number][] = [
        [0x20, 0, 0, 0],
        [0x15, 1, 0, 83],
        [0x15, 0, 1, 258],
        [0x06, 0, 0, 0x00050001],
        [0x06, 0, 0, 0x7fff0000],
      ];
      const bytes = Buffer.alloc(filter.length * 8);
      filter.forEach(([code, jt, jf, k], i) => {
        bytes.writeUInt16LE(code, i * 8);
        bytes.writeUInt8(jt, i * 8 + 2);
        bytes.writeUInt8(jf, i * 8 + 3);
        bytes.writeUInt32LE(k, i * 8 + 4);
      });
      const seccompBpfPath = join(rig.root, "filter.bpf");
      writeFileSync(seccompBpfPath, bytes);
      const uid = noNewPrivileges ? 1000 : 0;
      const script = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; mkdir /tmp/denied";
      const result = await run(["sh", "-c", script], { seccompBpfPath, noNewPrivileges, uid });
      assert.match(result.stdout, /Seccomp:\s+2/);
      assert.match(result.stdout, noNewPrivileges ? /NoNewPrivs:\s+1/ : /NoNewPrivs:\s+0/);
      assert.match(result.stderr, /Operation not permitted/);
      assert.notEqual(result.exitCode, 0);
    });
  }

  it("sits in the container's cgroups and namespaces", async () => {
    const process = await shim.exec(execLaunch(["sleep", "500"]), { attach: undefined });
    const read = (pid: number): string =>
      readFileSync(`/proc/${pid}/cgroup`, "utf8")
        .split("\n")
        .filter((line) => !line.startsWith("0::"))
        .join("\n");
    assert.equal(read(process.pid), read(shim.pid));
    const { stdout } = await run(["sh", "-c", "kill -9 $(pidof sleep | tr ' ' '\\n' | grep -v '^1$')"]);
    assert.equal(stdout, "");
    assert.equal((await process.exited).exitCode, 137);
  });

  it("is given the limits of the container's process", async () => {
    const mine = readFileSync(`/proc/${shim.pid}/limits`, "utf8");
    assert.equal((await run(["cat", "/proc/self/limits"])).stdout, mine);
  });
});

describe("an exec's descriptors", () => {
  it("are 0, 1 and 2 only", async () => {
    const { stdout } = await run(["sh", "-c", "echo /proc/self/fd/*; ls -l /proc/self/fd"]);
    assert.match(
      stdout,
      /^\/proc\/self\/fd\/0 \/proc\/self\/fd\/1 \/proc\/self\/fd\/2( \/proc\/self\/fd\/3)?\n/,
    );
    assert.doesNotMatch(stdout, /skiff|\/work|\/var/);
  });

  for (let fd = 3; fd < 24; fd += 1) {
    it(`give no way out by WORKDIR /proc/self/fd/${fd}`, async () => {
      await assert.rejects(run(["pwd"], { cwd: `/proc/self/fd/${fd}` }), (error) => {
        assert.ok(error instanceof RuntimeStartError);
        assert.match(error.message, /chdir to cwd \("\/proc\/self\/fd\/\d+"\) set in config.json failed: /);
        return true;
      });
    });
  }

  it("do not lead to the engine's program", async () => {
    const { stderr } = await run(["/garbage"]);
    assert.equal(stderr, "exec /garbage: exec format error\n");
    const victim = await run(["sh", "-c", "readlink /proc/self/exe"]);
    assert.equal(victim.stdout, "/bin/busybox\n");
  });
});

describe("what cannot be executed", () => {
  const prefix = "OCI runtime exec failed: exec failed: unable to start container process: ";
  const cases: readonly (readonly [string[], Partial<ExecLaunch>, string, number])[] = [
    [["nope"], {}, 'exec: "nope": executable file not found in $PATH', 127],
    [["/nope"], {}, 'exec: "/nope": stat /nope: no such file or directory', 127],
    [["./x"], {}, 'exec: "./x": stat ./x: no such file or directory', 127],
    [["/etc"], {}, 'exec: "/etc": permission denied', 126],
    [["/etc/passwd"], {}, 'exec: "/etc/passwd": permission denied', 126],
    [["true"], { env: [] }, 'exec: "true": executable file not found in $PATH', 127],
    [
      ["true"],
      { cwd: "/none" },
      'chdir to cwd ("/none") set in config.json failed: no such file or directory',
      127,
    ],
  ];
  for (const [args, changes, text, exitCode] of cases) {
    it(text, async () => {
      await assert.rejects(run(args, changes), (error) => {
        assert.ok(error instanceof RuntimeStartError);
        assert.equal(error.message, `${prefix}${text}: unknown`);
        assert.equal(error.exitCode, exitCode);
        return true;
      });
    });
  }

  it("a missing interpreter is said on stderr, with exit code 1", async () => {
    const result = await run(["/script"]);
    assert.deepEqual(result, {
      stdout: "",
      stderr: "exec /script: no such file or directory\n",
      exitCode: 1,
    });
  });

  it("a container that is not running", async () => {
    const idle = await rig.host.launch(rig.container({ args: ["true"] }).launch);
    await assert.rejects(idle.exec(execLaunch(["true"]), { attach: allStreams }), { code: "not-running" });
    await idle.abandon();
  });
});

describe("an exec with a terminal", () => {
  it("has it as its controlling terminal, in the size asked for", async () => {
    const changes = { terminal: true, terminalSize: { rows: 21, columns: 77 } };
    const { stdout, exitCode } = await run(["sh", "-c", "tty; stty size; echo x >/dev/tty; exit 3"], changes);
    assert.match(stdout, /^\/dev\/pts\/\d+\r\n21 77\r\nx\r\n$/);
    assert.equal(exitCode, 3);
  });

  it("takes input and is resized", async () => {
    const launch = execLaunch(
      ["sh", "-c", "trap 'stty size; exit 0' WINCH; echo up; while true; do sleep 0.05; done"],
      {
        terminal: true,
        openStdin: true,
      },
    );
    const process = await shim.exec(launch, { attach: withStdin });
    assert.ok(process.stdio !== undefined);
    const [first] = (await once(process.stdio, "data")) as [Buffer];
    assert.match(first.toString(), /up/);
    const rest = readAll(process.stdio);
    await process.resize(11, 22);
    assert.match((await rest).toString(), /11 22/);
    assert.equal((await process.exited).exitCode, 0);
  });

  it("passes Ctrl-C on as SIGINT", async () => {
    const process = await shim.exec(execLaunch(["sleep", "60"], { terminal: true, openStdin: true }), {
      attach: withStdin,
    });
    process.stdio?.resume();
    await sleep(50);
    process.stdio?.write("\u0003");
    assert.equal((await process.exited).exitCode, 130);
  });
});
