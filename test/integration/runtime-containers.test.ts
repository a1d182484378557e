import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { SandboxMount } from "#runtime/runtime.ts";
import { exec, execRequest, RuntimeRig, stop } from "./runtime-rig.ts";

let rig: RuntimeRig;
before(async () => {
  rig = await RuntimeRig.start();
});
after(() => rig[Symbol.asyncDispose]());

function bind(source: string, target: string, changes: Partial<SandboxMount> = {}): SandboxMount {
  return {
    type: "bind",
    source,
    target,
    readOnly: false,
    propagation: "rprivate",
    nonRecursive: false,
    ...changes,
  };
}

/** A directory on the host that hostile images aim at, and its state. */
function canaryTree(): { path: string; state: () => string } {
  const path = mkdtempSync(join(tmpdir(), "skiff-canary-"));
  writeFileSync(join(path, "null"), "precious");
  writeFileSync(join(path, "hosts"), "precious");
  return {
    path,
    state: () =>
      readdirSync(path)
        .sort()
        .map((name) => {
          const { ino, mode, uid, size, mtimeMs } = lstatSync(join(path, name));
          return `${name} ${ino} ${mode} ${uid} ${size} ${mtimeMs}`;
        })
        .join("\n"),
  };
}

for (const runtimeName of ["crun", "runc"]) {
  describe(`containers by ${runtimeName}`, () => {
    const output = async (
      script: string,
      changes: Parameters<RuntimeRig["run"]>[1] = {},
    ): Promise<string> => {
      const { stdout, stderr } = await rig.run(["sh", "-c", script], { runtimeName, ...changes });
      assert.equal(stderr, "");
      return stdout;
    };

    test("environment, user, directory and names arrive as asked", async () => {
      const text = await output(
        "pwd; hostname; id; for name in PATH HOME HOSTNAME TERM A B GONE; do eval echo $name=\\$$name; done",
        {
          env: ["A=1", "B=a b", "A=2", "GONE=x", "GONE"],
          user: "app",
          groupAdd: ["wheel"],
          workingDir: "/new/dir",
          hostname: "h1",
        },
      );
      assert.deepEqual(text.trim().split("\n"), [
        "/new/dir",
        "h1",
        "uid=1000(app) gid=1000(app) groups=10(wheel),29(audio),1000(app)",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/home/app",
        "HOSTNAME=h1",
        "TERM=",
        "A=2",
        "B=a b",
        "GONE=",
      ]);
    });

    test("binds, read-only binds with all below, tmpfs, shm size, read-only root", async () => {
      const volume = mkdtempSync(join(rig.root, "volume-"));
      writeFileSync(join(volume, "hello"), "hi\n");
      const text = await output(
        "cat /data/hello; echo x > /data/new; touch /ro/y 2>/dev/null || echo ro; touch /z 2>/dev/null || echo rootro; echo t > /t/x && cat /t/x; cat /file; grep -E ' (/t|/dev/shm|/ro) ' /proc/mounts",
        {
          mounts: [
            bind(volume, "/data"),
            bind(volume, "/ro", { readOnly: true }),
            bind(join(volume, "hello"), "/file", { readOnly: true }),
            {
              type: "tmpfs",
              source: "",
              target: "/t",
              readOnly: false,
              propagation: "rprivate",
              nonRecursive: false,
              tmpfsOptions: "size=1m,exec",
            },
          ],
          readonlyRootfs: true,
          shmSizeBytes: 1024 * 1024,
        },
      );
      assert.match(text, /^hi\nro\nrootro\nt\nhi\n/);
      assert.match(text, /shm \/dev\/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k/);
      assert.match(text, /tmpfs \/t tmpfs rw,nosuid,nodev,relatime,size=1024k/);
      assert.equal(readFileSync(join(volume, "new"), "utf8"), "x\n");
    });

    test("limits: ulimits, sysctls, memory, pids, oom score", async () => {
      const text = await output(
        "ulimit -n; ulimit -Hc; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/self/oom_score_adj; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/cpuset/cpuset.cpus",
        {
          ulimits: [
            { name: "nofile", soft: 100, hard: 200 },
            { name: "core", soft: -1, hard: -1 },
          ],
          sysctls: new Map([
            ["net.ipv4.ip_forward", "1"],
            ["kernel.shm_rmid_forced", "1"],
          ]),
          oomScoreAdj: 123,
          resources: {
            memoryBytes: 64 << 20,
            pidsMax: 77,
            cpuQuotaUs: 50_000,
            cpuPeriodUs: 100_000,
            cpuShares: 512,
            cpusetCpus: "0",
          },
        },
      );
      assert.deepEqual(text.trim().split("\n"), [
        "100",
        "unlimited",
        "1",
        "1",
        "0",
        "123",
        String(64 << 20),
        String(128 << 20),
        "77",
        "50000",
        "512",
        "0",
      ]);
    });

    test("host namespaces are the host's", async () => {
      const host = { kind: "host" } as const;
      const text = await output("for name in net uts ipc pid cgroup; do readlink /proc/self/ns/$name; done", {
        network: host,
        utsNamespace: host,
        ipcNamespace: host,
        pidNamespace: host,
      });
      const own = ["net", "uts", "ipc", "pid", "cgroup"].map((name) =>
        execFileSync("readlink", [`/proc/self/ns/${name}`], { encoding: "utf8" }).trim(),
      );
      assert.deepEqual(text.trim().split("\n"), own);
    });

    test("another container's namespaces are shared by path", async () => {
      const { sandbox } = await rig.sleeper({ runtimeName });
      const path = (name: string) => ({ kind: "path", path: `/proc/${sandbox.pid}/ns/${name}` }) as const;
      const text = await output("readlink /proc/self/ns/net; readlink /proc/self/ns/pid", {
        network: path("net"),
        pidNamespace: path("pid"),
      });
      const expected = (
        await exec(sandbox, ["sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/pid"])
      ).stdout;
      assert.equal(text, expected);
      await stop(sandbox);
    });

    test("devices asked for are there and may be used as far as asked", async () => {
      const text = await output(
        "for name in x ro; do ls -l /dev/$name; done | awk '{print $1, $5, $6}'; head -c 1 /dev/x | wc -c; (: > /dev/ro) 2>/dev/null || echo refused",
        {
          devices: [
            { hostPath: "/dev/zero", containerPath: "/dev/x", permissions: "rwm" },
            { hostPath: "/dev/kmsg", containerPath: "/dev/ro", permissions: "r" },
          ],
        },
      );
      assert.deepEqual(text.trim().split("\n"), ["crw-rw-rw- 1, 5", "crw-r--r-- 1, 11", "1", "refused"]);
    });

    test("--init reaps orphans, passes signals on and gives the program's exit code", async () => {
      const { exit, stdout } = await rig.run(
        [
          "sh",
          "-c",
          "cat /proc/1/cmdline | tr '\\0' ' '; (sleep 0.05 &); sleep 0.3; i=0; while ps | grep -q '[Z] ' && [ $i -lt 50 ]; do i=$((i+1)); sleep 0.1; done; ps | grep -c '[Z] '; exit 7",
        ],
        { runtimeName, init: true },
      );
      assert.equal(exit.exitCode, 7);
      assert.match(stdout, /^\/sbin\/docker-init -- sh -c/);
      assert.match(stdout, /\n?0\n$/);
      const { sandbox } = await rig.sleeper({ runtimeName, init: true });
      // runc says "started" a moment before its own init becomes the program; and the program is the child.
      while ((await sandbox.processes()).length < 2) await sleep(5);
      await sandbox.signal(15);
      assert.equal((await sandbox.exited).exitCode, 143);
      assert.equal((await rig.run(["nope"], { runtimeName, init: true })).exit.exitCode, 127);
    });

    test("pause stops every process, resume goes on, killAll leaves none", async () => {
      const { sandbox } = await rig.sleeper({
        runtimeName,
        args: ["sh", "-c", "sleep 600 & sleep 600 & wait"],
      });
      while ((await sandbox.processes()).length < 3) await sleep(5);
      await sandbox.pause();
      assert.equal(sandbox.isPaused(), true);
      const state = (pid: number): string => readFileSync(`/proc/${pid}/status`, "utf8");
      for (const { pid } of await sandbox.processes()) assert.match(state(pid), /^State:\s+[DST] /m);
      await sandbox.resume();
      assert.equal(sandbox.isPaused(), false);
      await sandbox.killAll();
      assert.equal((await sandbox.exited).exitCode, 137);
    });

    test("a frozen fork bomb is killed whole", async () => {
      const { sandbox } = await rig.sleeper({
        runtimeName,
        args: ["sh", "-c", "f() { f | f & }; f; sleep 600"],
        resources: { pidsMax: 60 },
      });
      await sleep(100);
      await sandbox.killAll();
      assert.equal((await sandbox.exited).exitCode, 137);
      assert.deepEqual(await sandbox.processes(), []);
    });

    test("update changes the limits of a running container", async () => {
      const { sandbox } = await rig.sleeper({ runtimeName, resources: { memoryBytes: 32 << 20 } });
      await sandbox.update({ memoryBytes: 96 << 20, memorySwapBytes: 200 << 20, pidsMax: 33, cpuShares: 99 });
      const read = async (): Promise<string> =>
        (
          await exec(sandbox, [
            "sh",
            "-c",
            "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes pids/pids.max cpu/cpu.shares",
          ])
        ).stdout;
      assert.equal(await read(), `${96 << 20}\n${200 << 20}\n33\n99\n`);
      await sandbox.update({ memoryBytes: 16 << 20, memorySwapBytes: 16 << 20 });
      assert.equal(await read(), `${16 << 20}\n${16 << 20}\n33\n99\n`);
      await assert.rejects(sandbox.update({ memoryBytes: 1 << 20 }), /Minimum memory limit allowed is 6MB/);
      await stop(sandbox);
    });

    test("exec: user, directory, environment, limits and exit code as the container's", async () => {
      const { sandbox } = await rig.sleeper({
        runtimeName,
        user: "app",
        env: ["A=1", "B=2"],
        workingDir: "/srv",
        ulimits: [{ name: "nofile", soft: 55, hard: 66 }],
        oomScoreAdj: 77,
      });
      const script =
        "id -u; pwd; echo $A$B$C$HOME$HOSTNAME$TERM; ulimit -n; cat /proc/self/oom_score_adj; exit 9";
      const result = await exec(sandbox, ["sh", "-c", script], { env: ["C=3", "B=two"] });
      assert.deepEqual(result, {
        exitCode: 9,
        stdout: "1000\n/srv\n1two3/home/apptester\n55\n77\n",
        stderr: "",
      });
      assert.equal((await exec(sandbox, ["pwd"], { workingDir: "/tmp", user: "0" })).stdout, "/tmp\n");
      const refusals: [Parameters<typeof execRequest>, RegExp][] = [
        [[["nope"]], /exec: "nope": executable file not found in \$PATH: unknown$/],
        [[["/etc/passwd"]], /exec: "\/etc\/passwd": permission denied: unknown$/],
        [
          [["id"], { user: "nobody-here" }],
          /^EngineError: unable to find user nobody-here: no matching entries in passwd file$/,
        ],
        [[["id"], { workingDir: "tmp" }], /must be an absolute path/],
      ];
      for (const [request, expected] of refusals)
        await assert.rejects(sandbox.exec(execRequest(...request)), expected);
      await stop(sandbox);
    });

    test("programs that cannot run are told in Docker's words", async () => {
      writeFileSync(join(rig.layer, "bin/bad-interpreter"), "#!/nope\n", { mode: 0o755 });
      const cases: [string, RegExp, number][] = [
        ["nope", /exec: "nope": executable file not found in \$PATH: unknown$/, 127],
        ["/nope", /exec: "\/nope": stat \/nope: no such file or directory: unknown$/, 127],
        ["/etc/passwd", /exec: "\/etc\/passwd": permission denied: unknown$/, 126],
        ["/etc", /exec: "\/etc": permission denied: unknown$/, 126],
      ];
      for (const [program, message, exitCode] of cases) {
        await assert.rejects(rig.run([program], { runtimeName }), (error: Error & { exitCode?: number }) => {
          assert.match(error.message, message);
          assert.equal(error.exitCode, exitCode);
          return true;
        });
      }
    });

    test("images whose /dev, /proc, /sys or /etc is a link are refused, and the host keeps its files", async () => {
      const canary = canaryTree();
      const before = canary.state();
      try {
        for (const name of ["dev", "proc", "sys", "etc"]) {
          for (const target of [canary.path, `../../../../../../../../..${canary.path}`]) {
            const hostile = mkdtempSync(join(rig.root, "hostile-"));
            mkdirSync(join(hostile, "bin"));
            symlinkSync(target, join(hostile, name));
            const request = rig.request({ runtimeName, lowerDirs: [hostile, rig.layer] });
            await assert.rejects(
              rig.runtime.prepare(request),
              new RegExp(`/${name} of the image is a symbolic link`),
            );
            assert.equal(existsSync(join(request.runDir, "config.json")), false);
          }
        }
        assert.equal(canary.state(), before);
      } finally {
        rmSync(canary.path, { recursive: true });
      }
    });

    test("a target behind links of the image is mounted inside it, and the host keeps its files", async () => {
      const canary = canaryTree();
      const before = canary.state();
      try {
        const hostile = mkdtempSync(join(rig.root, "hostile-"));
        symlinkSync(canary.path, join(hostile, "out"));
        const volume = mkdtempSync(join(rig.root, "volume-"));
        writeFileSync(join(volume, "mine"), "");
        const { stdout } = await rig.run(["sh", "-c", "ls /out/sub; ls /out"], {
          runtimeName,
          lowerDirs: [hostile, rig.layer],
          mounts: [bind(volume, "/out/sub")],
        });
        assert.equal(stdout, "mine\nsub\n");
        assert.equal(canary.state(), before);
      } finally {
        rmSync(canary.path, { recursive: true });
      }
    });

    test("a working directory that is a descriptor is refused", async () => {
      for (const workingDir of ["/proc/self/fd/8", "/proc/thread-self/cwd", "/dev/fd/3"]) {
        await assert.rejects(rig.run(["pwd"], { runtimeName, workingDir }), /is inside \/(?:proc|dev)/);
      }
      const linked = mkdtempSync(join(rig.root, "hostile-"));
      symlinkSync("/proc/self/fd/9", join(linked, "wd"));
      await assert.rejects(
        rig.run(["pwd"], { runtimeName, lowerDirs: [linked, rig.layer], workingDir: "/wd" }),
        /is inside \/proc/,
      );
    });

    test("after a restart of the daemon a container is taken over whole", async () => {
      const { sandbox, request } = await rig.sleeper({ runtimeName, user: "app" });
      await sandbox.pause();
      sandbox.detach();
      await rig.host[Symbol.asyncDispose]();
      await rig.connect();
      const found = await rig.runtime.recover(request);
      assert.ok(found !== undefined && "sandbox" in found);
      assert.equal(found.sandbox.pid, sandbox.pid);
      assert.equal(found.sandbox.isPaused(), true);
      await found.sandbox.resume();
      const result = await exec(found.sandbox, ["grep", "-E", "CapBnd|Seccomp:", "/proc/self/status"]);
      assert.equal(result.stdout, "CapBnd:\t00000000a80425fb\nSeccomp:\t2\n");
      await stop(found.sandbox);
    });

    test("a sandbox that was never started leaves nothing", async () => {
      const request = rig.request({ runtimeName });
      const sandbox = await rig.runtime.prepare(request);
      assert.ok(statSync(join(sandbox.rootPath, "bin/busybox")).isFile());
      await sandbox.abandon();
      const mounts = readFileSync("/proc/self/mounts", "utf8");
      assert.equal(mounts.includes(request.id), false);
    });

    test("what mounting needs is there without a file in the container's own layer", async () => {
      const file = join(rig.root, "some-hosts");
      writeFileSync(file, "127.0.0.1 me\n");
      const request = rig.request({
        runtimeName,
        args: ["sh", "-c", "cat /etc/hosts && test -e /.dockerenv && readlink /etc/mtab"],
        mounts: ["hosts", "hostname", "resolv.conf"].map((name) => bind(file, `/etc/${name}`)),
      });
      const sandbox = await rig.runtime.prepare(request);
      await sandbox.start();
      assert.equal((await sandbox.exited).exitCode, 0);
      assert.deepEqual(readdirSync(request.upperDir), []);
    });

    test("rootPath of a running container shows its volumes", async () => {
      const volume = mkdtempSync(join(rig.root, "volume-"));
      writeFileSync(join(volume, "seen"), "");
      const { sandbox } = await rig.sleeper({ runtimeName, mounts: [bind(volume, "/data")] });
      assert.deepEqual(readdirSync(join(sandbox.rootPath, "data")), ["seen"]);
      await stop(sandbox);
    });
  });
}
