import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type ContainerLab, openLab } from "../integration/container-lab.ts";

/**
 * Each process of the engine killed by itself, and containers that do not want to end: through the docker CLI and a real
 * daemon. The lab's disposal checks that nothing of it stays.
 */
let lab: ContainerLab;

before(async () => {
  lab = await openLab();
});
after(() => lab[Symbol.asyncDispose]());

interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
}

function docker(...args: readonly string[]): Ran {
  const started = performance.now();
  const { status, stdout, stderr } = spawnSync("docker", ["-H", `unix://${lab.socket}`, ...args], {
    encoding: "utf8",
    timeout: 60_000,
  });
  return { status, stdout: stdout.trim(), stderr: stderr.trim(), ms: performance.now() - started };
}

function ok(...args: readonly string[]): string {
  const { status, stdout, stderr } = docker(...args);
  assert.equal(status, 0, `docker ${args.join(" ")}: ${stdout}${stderr}`);
  return stdout;
}

function inspect(name: string, format: string): string {
  return ok("inspect", "-f", format, name);
}

const state = (name: string): string =>
  inspect(name, "{{.State.Status}} {{.State.Running}} {{.State.ExitCode}}");

function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]);
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
  } catch {
    return ""; // It ended.
  }
}

function alive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

/** Pids whose command line is the pattern's; the lab's own by the folder that they name. */
function pidsOf(pattern: RegExp): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => pattern.test(commandOf(pid)));
}

/** Guards against waiting for ever, on a machine that does much else. */
const patienceMs = 20_000;

async function until(what: string, limitMs: number, holds: () => boolean): Promise<number> {
  const started = performance.now();
  while (!holds()) {
    assert.ok(performance.now() - started < limitMs, `${what}: not within ${limitMs} ms`);
    await sleep(10);
  }
  return performance.now() - started;
}

function run(name: string, ...args: readonly string[]): { pid: number; shim: number } {
  ok("run", "-d", "--name", name, ...args);
  const pid = Number(inspect(name, "{{.State.Pid}}"));
  const shim = parentOf(pid);
  assert.match(commandOf(shim), /^skiff-shim /);
  return { pid, shim };
}

test("a killed shim: its container ends with it, 137, noticed within two seconds", async () => {
  let { pid, shim } = run("victim", "-p", "80", "busybox", "sh", "-c", "sleep 900 & sleep 900");
  const other = run("bystander", "busybox", "sleep", "600");
  // Up to three times: our code takes its time each time, other users of the machine now and then.
  for (let tries = 1; ; tries += 1) {
    process.kill(shim, "SIGKILL");
    const ms = await until("noticed", patienceMs, () => state("victim") === "exited false 137");
    assert.equal(alive(pid), false, "the process lives on without its shim");
    if (ms < 2_000) break;
    assert.ok(tries < 3, `noticed after ${ms} ms`);
    ok("rm", "victim");
    ({ pid, shim } = run("victim", "-p", "80", "busybox", "sh", "-c", "sleep 900 & sleep 900"));
  }
  assert.match(inspect("victim", "{{.State.Error}}"), /shim/);
  assert.equal(inspect("victim", "{{json .NetworkSettings.Ports}}"), "{}");
  assert.equal(ok("wait", "victim"), "137");
  assert.equal(alive(other.pid), true);
  ok("start", "victim");
  assert.equal(state("victim"), "running true 0");
  ok("rm", "-f", "victim", "bystander");
});

test("a shim killed while there is no daemon: never shown as running", async () => {
  const { pid, shim } = run("unseen", "busybox", "sleep", "600");
  const again = run("again", "--restart", "always", "busybox", "sleep", "600");
  await lab.kill();
  process.kill(shim, "SIGKILL");
  process.kill(again.shim, "SIGKILL");
  await lab.start();
  assert.equal(state("unseen"), "exited false 137");
  assert.equal(alive(pid), false);
  await until("the restart policy", patienceMs, () => state("again") === "running true 0");
  assert.notEqual(inspect("again", "{{.State.Pid}}"), String(again.pid));
  assert.equal(alive(again.pid), false);
  ok("rm", "-f", "unseen", "again");
});

test("the first process killed while there is no daemon: its own exit code", async () => {
  const { pid } = run("signalled", "busybox", "sleep", "600");
  await lab.kill();
  process.kill(pid, "SIGTERM");
  process.kill(pid, "SIGKILL");
  await lab.start();
  assert.equal(state("signalled"), "exited false 137");
  assert.equal(inspect("signalled", "{{.State.Error}}"), "");
  ok("rm", "signalled");
});

test("a killed launcher is started again; containers do not notice", async () => {
  const { pid } = run("kept", "busybox", "sleep", "600");
  const [launcher] = pidsOf(new RegExp(`skiff-native launcher ${lab.execRoot} `));
  assert.ok(launcher !== undefined);
  process.kill(launcher, "SIGKILL");
  await until("its end", patienceMs, () => !alive(launcher));
  assert.equal(ok("run", "--rm", "busybox", "echo", "after"), "after");
  assert.equal(alive(pid), true);
  assert.equal(ok("exec", "kept", "echo", "in"), "in");
  ok("rm", "-f", "kept");
});

test("a killed namespace helper is started again; containers keep their network", async () => {
  const { pid } = run("online", "busybox", "sleep", "600");
  const before = inspect("online", "{{.NetworkSettings.IPAddress}} {{.NetworkSettings.MacAddress}}");
  const daemon = Number(readFileSync(join(lab.root, "pid"), "utf8"));
  const helpers = pidsOf(/skiff-native netns-pool/).filter((candidate) => parentOf(candidate) === daemon);
  assert.equal(helpers.length, 1);
  process.kill(helpers[0]!, "SIGKILL");
  await until("its end", patienceMs, () => !alive(helpers[0]!));
  const addresses = new Set<string>();
  for (let count = 0; count < 40; count += 1) {
    addresses.add(
      ok("run", "--rm", "busybox", "sh", "-c", "ip -4 -o addr show eth0 | tr -s ' ' | cut -d' ' -f4"),
    );
  }
  assert.ok(!addresses.has(`${before.split(" ")[0]}/16`), "another container got its address");
  assert.equal(inspect("online", "{{.NetworkSettings.IPAddress}} {{.NetworkSettings.MacAddress}}"), before);
  assert.match(ok("exec", "online", "ping", "-c", "1", "-W", "2", gateway()), /1 packets received/);
  assert.equal(alive(pid), true);
  ok("rm", "-f", "online");
});

function gateway(): string {
  return inspect("online", "{{.NetworkSettings.Gateway}}");
}

test("the daemon's whole process group killed: containers live", async () => {
  const { pid } = run(
    "grouped",
    "busybox",
    "sh",
    "-c",
    "i=0; while :; do i=$((i+1)); echo line $i; usleep 5000; done",
  );
  const daemon = Number(readFileSync(join(lab.root, "pid"), "utf8"));
  const group = Number(readFileSync(`/proc/${daemon}/stat`, "utf8").split(") ")[1]!.split(" ")[2]);
  const members = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((name) => {
      try {
        return Number(readFileSync(`/proc/${name}/stat`, "utf8").split(") ")[1]!.split(" ")[2]) === group;
      } catch {
        return false;
      }
    });
  assert.ok(!members.includes(String(pid)));
  assert.ok(
    !members.some((member) => /^skiff-shim/.test(commandOf(Number(member)))),
    "a shim is in the group",
  );
  // The test's own group may be the daemon's: those of the group that the lab started.
  for (const member of members) {
    const command = commandOf(Number(member));
    if (Number(member) === daemon || command.includes(lab.root)) process.kill(Number(member), "SIGKILL");
  }
  await until("the daemon's end", patienceMs, () => !alive(daemon));
  await lab.start();
  assert.equal(alive(pid), true);
  assert.equal(inspect("grouped", "{{.State.Pid}}"), String(pid));
  ok("stop", "-t", "0", "grouped");
  const lines = ok("logs", "grouped").split("\n");
  assert.deepEqual(
    lines,
    lines.map((_, index) => `line ${index + 1}`),
  );
  ok("rm", "grouped");
});

test("every process of the engine killed at once: what ran is gone and says so", async () => {
  const { pid, shim } = run("all", "-v", "/data", "busybox", "sleep", "600");
  const [launcher] = pidsOf(new RegExp(`skiff-native launcher ${lab.execRoot} `));
  await lab.kill();
  process.kill(shim, "SIGKILL");
  process.kill(launcher!, "SIGKILL");
  await lab.start();
  assert.equal(state("all"), "exited false 137");
  assert.equal(alive(pid), false);
  ok("start", "all");
  ok("rm", "-fv", "all");
  assert.equal(ok("volume", "ls", "-q"), "");
});

test("what is left of a run before a reboot is never taken for what runs now", async () => {
  const { shim } = run("booted", "busybox", "sleep", "600");
  const id = inspect("booted", "{{.Id}}");
  await lab.kill();
  process.kill(shim, "SIGKILL");
  await until("the shim's end", patienceMs, () => !alive(shim));
  // Its files now name a pid that somebody else has: this very process.
  const runDir = join(lab.execRoot, "containers", id);
  const info = readFileSync(join(runDir, "shim.info"), "utf8");
  writeFileSync(join(runDir, "shim.info"), info.replace(/^shimPid \d+$/m, `shimPid ${process.pid}`));
  writeFileSync(join(runDir, "container.pid"), String(process.pid));
  await lab.start();
  assert.equal(state("booted"), "exited false 137");
  assert.equal(existsSync(runDir), false);
  ok("start", "booted");
  ok("rm", "-f", "booted");
});

test("stop of a container that ignores SIGTERM: killed when its time is over", () => {
  run("stubborn", "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 1; done");
  const stopped = docker("stop", "-t", "1", "stubborn");
  assert.equal(stopped.status, 0, stopped.stderr);
  // Ten seconds is what it would take by default.
  assert.ok(stopped.ms >= 1_000 && stopped.ms < 9_000, `${stopped.ms} ms`);
  assert.equal(state("stubborn"), "exited false 137");
  ok("rm", "stubborn");
});

/** Each forks two more, and goes on when the limit refuses: `command eval` keeps the shell from ending by the failure. */
const forkBomb = "b() { command eval 'b & b & wait' 2>/dev/null; }; while :; do b; done";

test("a fork bomb is bounded and can be stopped", async () => {
  const limit = 150;
  const bomb = `trap '' TERM; ${forkBomb}`;
  const { pid } = run("bomb", "--pids-limit", String(limit), "busybox", "sh", "-c", bomb);
  const pids = existsSync("/sys/fs/cgroup/pids") ? "/sys/fs/cgroup/pids" : "/sys/fs/cgroup";
  const cgroup = join(pids, lab.cgroupParent, inspect("bomb", "{{.Id}}"));
  const current = (): number => Number(readFileSync(join(cgroup, "pids.current"), "utf8"));
  await until("the limit", patienceMs, () => current() >= limit - 10);
  assert.ok(current() <= limit);
  const stopped = docker("stop", "-t", "1", "bomb");
  assert.equal(stopped.status, 0, stopped.stderr);
  assert.ok(stopped.ms < 9_000, `${stopped.ms} ms`);
  assert.equal(alive(pid), false);
  assert.equal(state("bomb"), "exited false 137");
  await until("its cgroup's end", patienceMs, () => !existsSync(cgroup));
  ok("rm", "bomb");
});

test("a fork bomb is removed by force", async () => {
  run("bomb", "--pids-limit", "150", "busybox", "sh", "-c", forkBomb);
  await sleep(500);
  const removed = docker("rm", "-f", "bomb");
  assert.equal(removed.status, 0, removed.stderr);
  assert.ok(removed.ms < 9_000, `${removed.ms} ms`);
});
