import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { busyboxRoot, tarOf } from "../peers/images.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";

/**
 * On systemd hosts every mount is shared, so that what anybody mounts or unmounts below reaches the host unless he took
 * care. The daemon runs in a mount namespace that is made like that; it plays the host.
 */
let host: ChildProcess;
let daemon: TestDaemon;
let folder: string;

const propagations = ["rprivate", "rslave", "rshared"] as const;

/** Runs a command on that host. */
function onHost(...command: readonly string[]): string {
  return execFileSync("nsenter", ["-t", String(host.pid), "-m", "--", ...command], { encoding: "utf8" });
}

function docker(...args: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  const done = spawnSync("docker", ["-H", daemon.host, ...args], { encoding: "utf8", timeout: 60_000 });
  return { status: done.status, stdout: done.stdout.trim(), stderr: done.stderr.trim() };
}

function ok(...args: readonly string[]): string {
  const { status, stdout, stderr } = docker(...args);
  assert.equal(status, 0, `docker ${args.join(" ")}: ${stdout}${stderr}`);
  return stdout;
}

/** Every mount of the host: where, what, and how it propagates. */
function hostMounts(): string[] {
  return readFileSync(`/proc/${host.pid}/mountinfo`, "utf8").trim().split("\n").sort();
}

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "skiff-propagation-"));
  // Private first: where this machine's mounts are shared, what other tests mount must not come in here.
  const script = "mount --make-rshared / && echo ready && exec sleep 1000";
  host = spawn("unshare", ["--mount", "--propagation", "private", "sh", "-c", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(host.stdout!, "data");
  daemon = await startSkiffd({ prefix: ["nsenter", "-t", String(host.pid), "-m", "--"] });
  const root = join(folder, "root");
  mkdirSync(root);
  busyboxRoot(root);
  const tar = join(folder, "busybox.tar");
  writeFileSync(tar, tarOf(root));
  ok("import", tar, "busybox");
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
  host?.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

test("the host's mounts are shared, and the daemon lives among them", () => {
  const mounts = hostMounts();
  assert.ok(mounts.every((line) => / shared:\d+ /.test(line)));
  const daemonMounts = readFileSync(`/proc/${daemon.child.pid}/mountinfo`, "utf8").trim().split("\n").sort();
  assert.deepEqual(daemonMounts, mounts);
});

test("nothing that the daemon, its shims and runtimes mount or unmount reaches the host", async () => {
  const before = hostMounts();
  const check = (when: string): void => assert.deepEqual(hostMounts(), before, when);
  const bind = join(folder, "bind");
  mkdirSync(bind);
  const options = ["-v", `${bind}:/bind`, "-v", "named:/named", "--tmpfs", "/scratch", "-v", "/anonymous"];
  ok("run", "-d", "--name", "plain", ...options, "busybox", "sleep", "600");
  check("a container runs");
  ok("run", "-d", "--name", "strong", "--privileged", ...options, "busybox", "sleep", "600");
  ok("exec", "strong", "sh", "-c", "mount -t tmpfs none /mnt 2>/dev/null || mount -t tmpfs none /named");
  ok("exec", "strong", "umount", "/scratch");
  check("a privileged container mounts and unmounts");
  ok("run", "--rm", "--read-only", ...options, "busybox", "true");
  const runc = docker("run", "--rm", "--runtime", "runc", ...options, "busybox", "true");
  assert.equal(runc.status, 0, runc.stderr);
  check("containers came and went");
  // The runtime's own view: crun does not bear the unified hierarchy beside the old ones.
  if (existsSync("/sys/fs/cgroup/unified/cgroup.procs")) {
    assert.ok(before.some((line) => line.includes(" /sys/fs/cgroup/unified ")));
  }
  await daemon.kill();
  check("the daemon was killed");
  await daemon.restart();
  check("another daemon took over");
  assert.equal(ok("exec", "plain", "cat", "/proc/1/comm"), "sleep");
  process.kill(Number(ok("inspect", "-f", "{{.State.Pid}}", "strong")), "SIGKILL");
  assert.equal(ok("wait", "strong"), "137");
  ok("rm", "-fv", "plain", "strong");
  check("everything is removed");
});

test("binds propagate as they are told", () => {
  const volume = (kind: string): string => join(folder, `volume-${kind}`);
  for (const kind of propagations) {
    for (const side of ["host", "container"]) mkdirSync(join(volume(kind), side), { recursive: true });
  }
  const binds = propagations.flatMap((kind) => ["-v", `${volume(kind)}:/${kind}:${kind}`]);
  ok("run", "-d", "--name", "mounter", "--cap-add", "SYS_ADMIN", ...binds, "busybox", "sleep", "600");
  const before = hostMounts();
  try {
    for (const kind of propagations) {
      onHost("mount", "-t", "tmpfs", "none", join(volume(kind), "host"));
      onHost("sh", "-c", `echo from-host > ${join(volume(kind), "host/file")}`);
      const inside = docker("exec", "mounter", "cat", `/${kind}/host/file`);
      assert.equal(inside.stdout, kind === "rprivate" ? "" : "from-host", `${kind}: the host's mount inside`);
      const script = `mount -t tmpfs none /${kind}/container && echo from-container > /${kind}/container/file`;
      ok("exec", "mounter", "sh", "-c", script);
      const outside = spawnSync(
        "nsenter",
        ["-t", String(host.pid), "-m", "--", "cat", join(volume(kind), "container/file")],
        { encoding: "utf8" },
      );
      assert.equal(
        outside.stdout,
        kind === "rshared" ? "from-container\n" : "",
        `${kind}: the container's mount on the host`,
      );
    }
    assert.equal(
      ok("inspect", "-f", "{{range .Mounts}}{{.Propagation}} {{end}}", "mounter").split(" ").sort().join(" "),
      "rprivate rshared rslave",
    );
  } finally {
    ok("rm", "-f", "mounter");
    // As with Docker, what a container mounted on a shared bind stays: it is the host's now.
    const left = hostMounts().filter((line) => !before.includes(line));
    for (const line of left.reverse()) onHost("umount", line.split(" ")[4]!);
  }
  assert.deepEqual(hostMounts(), before);
});

test("a shared bind needs a source that is shared, a slave one shared or slave", () => {
  const source = join(folder, "private");
  mkdirSync(source);
  onHost("mount", "-t", "tmpfs", "none", source);
  onHost("mount", "--make-private", source);
  try {
    for (const [kind, words] of [
      ["rshared", "not a shared mount"],
      ["rslave", "not a shared or slave mount"],
    ]) {
      const refused = docker("run", "--rm", "-v", `${source}:/y:${kind}`, "busybox", "true");
      assert.equal(refused.status, 125, refused.stderr);
      assert.match(refused.stderr, new RegExp(`path ${source} is mounted on ${source} but it is ${words}`));
    }
    assert.equal(docker("run", "--rm", "-v", `${source}:/y`, "busybox", "true").status, 0);
  } finally {
    onHost("umount", source);
  }
});
