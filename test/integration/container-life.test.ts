import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type Answer, type ContainerLab, call, docker, ok, openLab, until } from "./container-lab.ts";

let lab: ContainerLab;
before(async () => {
  lab = await openLab();
});
after(async () => {
  await lab[Symbol.asyncDispose]();
});

async function inspect(name: string) {
  return (await call(lab, "GET", `/v1.51/containers/${name}/json`)).json();
}

test("run: output, streams, exit code, and nothing left with --rm", async () => {
  const ran = await docker(lab, ["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]);
  assert.deepEqual(ran, { code: 3, stdout: "out\n", stderr: "err\n" });
  assert.equal(await ok(lab, ["ps", "-aq"]), "");
  // Directories go in the background.
  for (const root of [lab.dataRoot, lab.execRoot])
    await until(() => readdirSync(join(root, "containers")).length === 0, `nothing is left in ${root}`);
});

test("run: exit codes of a program that is missing or cannot be executed", async () => {
  const missing = await docker(lab, ["run", "--name", "missing", "busybox", "nope"]);
  assert.equal(missing.code, 127);
  assert.match(
    missing.stderr,
    /Error response from daemon: failed to create task for container: .*exec: "nope": executable file not found in \$PATH/,
  );
  const state = (await inspect("missing")).State;
  assert.equal(state.Status, "created");
  assert.equal(state.ExitCode, 127);
  assert.match(state.Error, /executable file not found/);
  assert.equal((await inspect("missing")).NetworkSettings.Networks.bridge.IPAddress, "");
  assert.equal((await docker(lab, ["run", "--rm", "busybox", "/etc"])).code, 126);
  assert.equal((await docker(lab, ["run", "--rm", "--memory", "1k", "busybox", "true"])).code, 125);
  await ok(lab, ["rm", "missing"]);
});

test("names: conflict, rename, prefixes, ambiguity", async () => {
  const id = await ok(lab, ["create", "--name", "first", "busybox"]);
  const again = await call(lab, "POST", "/containers/create?name=first", { Image: "busybox" });
  assert.equal(again.status, 409);
  assert.equal(
    again.json().message,
    `Conflict. The container name "/first" is already in use by container "${id}". You have to remove (or rename) that container to be able to reuse that name.`,
  );
  await ok(lab, ["rename", "first", "second"]);
  assert.equal((await inspect(id.slice(0, 10))).Name, "/second");
  const same = await call(lab, "POST", "/containers/second/rename?name=second");
  assert.deepEqual(
    [same.status, same.json().message],
    [400, "Renaming a container with the same name as its current name"],
  );
  const bad = await call(lab, "POST", "/containers/second/rename?name=-x");
  assert.equal(
    bad.json().message,
    "Error when allocating new name: Invalid container name (/-x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
  );
  const ids = [id];
  // Seventeen ids share a first digit with another at the latest.
  while (ids.length < 17) ids.push(await ok(lab, ["create", "busybox"]));
  const shared = ids.map((each) => each[0]!).find((digit, index, all) => all.indexOf(digit) !== index)!;
  const ambiguous = await call(lab, "GET", `/containers/${shared}/json`);
  assert.equal(ambiguous.json().message, `multiple IDs found with provided prefix: ${shared}`);
  assert.equal((await call(lab, "GET", "/containers/zzz/json")).json().message, "No such container: zzz");
  await ok(lab, ["rm", ...ids]);
});

test("stop, start, restart, pause, kill and their refusals", async () => {
  await ok(lab, [
    "run",
    "-d",
    "--name",
    "cycle",
    "busybox",
    "sh",
    "-c",
    "trap '' TERM; sleep 100 & wait; sleep 100",
  ]);
  const { Id: id } = await inspect("cycle");
  const refusals: [string, string, number, string][] = [
    ["POST", "/containers/cycle/unpause", 500, `container ${id} is not paused`],
    [
      "DELETE",
      "/containers/cycle",
      409,
      'cannot remove container "/cycle": container is running: stop the container before removing or force remove',
    ],
    ["POST", "/containers/cycle/kill?signal=NOPE", 400, "Invalid signal: NOPE"],
    ["POST", "/containers/cycle/wait?condition=foo", 400, 'invalid condition: "foo"'],
  ];
  for (const [method, path, status, message] of refusals) {
    const answer = await call(lab, method, path);
    assert.deepEqual([answer.status, answer.json().message], [status, message]);
  }
  assert.equal((await call(lab, "POST", "/containers/cycle/start")).status, 304);
  await ok(lab, ["pause", "cycle"]);
  assert.equal((await inspect("cycle")).State.Status, "paused");
  assert.equal((await docker(lab, ["exec", "cycle", "true"])).code, 1);
  assert.equal((await call(lab, "POST", "/containers/cycle/start")).status, 409);
  await ok(lab, ["unpause", "cycle"]);
  const began = performance.now();
  await ok(lab, ["stop", "-t", "1", "cycle"]);
  assert.ok(performance.now() - began >= 1000);
  const { State } = await inspect("cycle");
  assert.deepEqual([State.Status, State.ExitCode, State.Pid, State.Running], ["exited", 137, 0, false]);
  assert.equal((await call(lab, "POST", "/containers/cycle/stop")).status, 304);
  const killed = await call(lab, "POST", "/containers/cycle/kill");
  assert.deepEqual(
    [killed.status, killed.json().message],
    [409, `cannot kill container: cycle: container ${id} is not running`],
  );
  await ok(lab, ["start", "cycle"]);
  await ok(lab, ["pause", "cycle"]);
  await ok(lab, ["stop", "-t", "0", "cycle"]);
  await ok(lab, ["restart", "-t", "0", "cycle"]);
  await ok(lab, ["kill", "cycle"]);
  assert.equal(await ok(lab, ["wait", "cycle"]), "137");
  await ok(lab, ["rm", "cycle"]);
});

test("wait never misses a fast exit, under each condition", async () => {
  for (let round = 0; round < 10; round += 1) {
    for (const condition of ["next-exit", "removed", "not-running"]) {
      const body = {
        Image: "busybox",
        Cmd: ["sh", "-c", "exit 7"],
        HostConfig: { AutoRemove: condition === "removed" },
      };
      const { Id: id } = (await call(lab, "POST", "/containers/create", body)).json();
      const path = `/containers/${id}/wait?condition=${condition}`;
      let waiting: Promise<Answer> | undefined;
      if (condition !== "not-running") {
        // The head comes when the waiter is registered.
        await new Promise<void>((registered, failed) => {
          waiting = call(lab, "POST", path, undefined, registered);
          waiting.catch(failed);
        });
      }
      assert.equal((await call(lab, "POST", `/containers/${id}/start`)).status, 204);
      const answer = await (waiting ?? call(lab, "POST", path));
      assert.deepEqual(answer.json(), { StatusCode: 7, Error: null });
      if (condition !== "removed") assert.equal((await call(lab, "DELETE", `/containers/${id}`)).status, 204);
    }
  }
});

test("restart policies: counted failures, stop in between, update", async () => {
  await ok(lab, [
    "run",
    "-d",
    "--name",
    "twice",
    "--restart",
    "on-failure:2",
    "busybox",
    "sh",
    "-c",
    "exit 3",
  ]);
  assert.equal(await ok(lab, ["wait", "twice"]), "3");
  assert.equal((await inspect("twice")).RestartCount, 2);
  await ok(lab, [
    "run",
    "-d",
    "--name",
    "forever",
    "--restart",
    "always",
    "busybox",
    "sh",
    "-c",
    "sleep 0.1; exit 4",
  ]);
  // Between runs: after the third the pause is 0.8 s, so that the stop comes within it on a loaded machine, too.
  await until(async () => {
    const { State, RestartCount } = await inspect("forever");
    return State.Status === "restarting" && RestartCount >= 3;
  }, "a pause between runs");
  assert.equal((await call(lab, "POST", "/containers/forever/stop")).status, 204);
  await sleep(1000);
  const { State } = await inspect("forever");
  assert.deepEqual([State.Status, State.ExitCode], ["exited", 4]);
  await ok(lab, ["update", "--restart", "no", "--memory", "32m", "forever"]);
  const { HostConfig } = await inspect("forever");
  assert.deepEqual([HostConfig.RestartPolicy.Name, HostConfig.Memory], ["no", 33_554_432]);
  await ok(lab, ["rm", "twice", "forever"]);
});

test("volumes: copy-up, host paths, anonymous ones go with -v", async () => {
  const host = join(lab.root, "made", "by", "engine");
  const run = [
    "run",
    "--name",
    "vols",
    "-v",
    `${host}:/host`,
    "-v",
    "named:/data",
    "-v",
    "/anon",
    "--tmpfs",
    "/t:size=1m",
  ];
  const script = "cat /data/file; echo x >/host/f; touch /anon/a; df /t | tail -1 | cut -d' ' -f1";
  assert.equal(await ok(lab, [...run, "busybox", "sh", "-c", script]), "from-image\ntmpfs");
  assert.equal(readFileSync(join(host, "f"), "utf8"), "x\n");
  const { Mounts } = await inspect("vols");
  assert.deepEqual(
    Mounts.map((mount: { Type: string; Destination: string }) => `${mount.Type} ${mount.Destination}`).sort(),
    ["bind /host", "volume /anon", "volume /data"],
  );
  const from = [
    "run",
    "--rm",
    "--volumes-from",
    "vols:ro",
    "busybox",
    "sh",
    "-c",
    "cat /data/file; touch /data/x",
  ];
  const readOnly = await docker(lab, from);
  assert.equal(readOnly.stdout, "from-image\n");
  assert.match(readOnly.stderr, /Read-only file system/);
  const inUse = await docker(lab, ["volume", "rm", "named"]);
  assert.match(inUse.stderr, /volume is in use/);
  await ok(lab, ["rm", "-v", "vols"]);
  assert.equal(await ok(lab, ["volume", "ls", "-q"]), "named");
  await ok(lab, ["volume", "rm", "named"]);
});

test("a busy port: Docker's words, and nothing half made", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "0.0.0.0", resolve));
  const { port } = server.address() as { port: number };
  try {
    const ran = await docker(lab, ["run", "--name", "busy", "-p", `${port}:80`, "busybox", "true"]);
    assert.equal(ran.code, 125);
    assert.match(
      ran.stderr,
      new RegExp(
        `driver failed programming external connectivity on endpoint busy .*Bind for 0.0.0.0:${port} failed: port is already allocated`,
      ),
    );
    assert.equal((await inspect("busy")).State.Status, "created");
    await ok(lab, ["rm", "busy"]);
    const ranged = await ok(lab, [
      "run",
      "-d",
      "--name",
      "range",
      "-p",
      `${port}-${port + 3}:80`,
      "busybox",
      "sleep",
      "20",
    ]);
    const { NetworkSettings } = await inspect(ranged);
    assert.notEqual(NetworkSettings.Ports["80/tcp"][0].HostPort, String(port));
    await ok(lab, ["rm", "-f", "range"]);
  } finally {
    server.close();
  }
});

test("network, pid and uts modes", async () => {
  await ok(lab, ["run", "-d", "--name", "owner", "--hostname", "boss", "busybox", "sleep", "30"]);
  const shared = ["run", "--rm", "--network", "container:owner", "--pid", "container:owner", "busybox"];
  assert.match(
    await ok(lab, [...shared, "sh", "-c", "hostname; ps; cat /etc/hosts"]),
    /boss[\s\S]*sleep 30[\s\S]*boss/,
  );
  assert.doesNotMatch(await ok(lab, ["run", "--rm", "--network", "none", "busybox", "ip", "addr"]), /eth0/);
  const gone = await docker(lab, ["run", "--rm", "--network", "container:nobody", "busybox", "true"]);
  assert.equal(gone.code, 125);
  assert.match(gone.stderr, /No such container: nobody/);
  const hosts = await ok(lab, [
    "run",
    "--rm",
    "--add-host",
    "db:10.9.8.7",
    "--dns",
    "9.9.9.9",
    "busybox",
    "cat",
    "/etc/hosts",
    "/etc/resolv.conf",
  ]);
  assert.match(hosts, /10\.9\.8\.7\tdb/);
  assert.match(hosts, /nameserver 9\.9\.9\.9/);
  await ok(lab, ["rm", "-f", "owner"]);
});

test("ps: filters, limit, status text, untagged images", async () => {
  await ok(lab, ["run", "-d", "--name", "up1", "--label", "tier=web", "-p", "80", "busybox", "sleep", "60"]);
  await docker(lab, ["run", "--name", "down1", "--label", "tier=db", "busybox", "sh", "-c", "exit 5"]);
  await ok(lab, ["create", "--name", "new1", "busybox"]);
  const names = async (...args: string[]) =>
    (await ok(lab, ["ps", "--format", "{{.Names}}", ...args])).split("\n").filter((name) => name !== "");
  assert.deepEqual(await names(), ["up1"]);
  assert.deepEqual(await names("-a"), ["new1", "down1", "up1"]);
  assert.deepEqual(await names("-n", "1"), ["new1"]);
  const cases: [string, string[]][] = [
    ["status=exited", ["down1"]],
    ["status=created", ["new1"]],
    ["exited=5", ["down1"]],
    ["label=tier", ["down1", "up1"]],
    ["label=tier=web", ["up1"]],
    ["name=^/?up", ["up1"]],
    ["ancestor=busybox", ["new1", "down1", "up1"]],
    ["before=down1", ["up1"]],
    ["since=down1", ["new1"]],
    ["network=bridge", ["new1", "down1", "up1"]],
    ["expose=80", ["up1"]],
    ["health=none", ["new1", "down1", "up1"]],
    ["is-task=false", ["new1", "down1", "up1"]],
  ];
  for (const [filter, expected] of cases) assert.deepEqual(await names("-a", "-f", filter), expected, filter);
  const bad = await call(lab, "GET", `/containers/json?filters=${encodeURIComponent('{"foo":["a"]}')}`);
  assert.deepEqual([bad.status, bad.json().message], [400, "invalid filter 'foo'"]);
  const row = (await call(lab, "GET", "/containers/json?all=1"))
    .json()
    .find((item: { Names: string[] }) => item.Names[0] === "/down1");
  assert.match(row.Status, /^Exited \(5\) (Less than a second|\d+ seconds?) ago$/);
  assert.equal(row.Command, "sh -c 'exit 5'");
  await ok(lab, ["tag", "busybox", "other"]);
  assert.equal((await call(lab, "GET", "/containers/json")).json()[0].Image, "busybox");
  await ok(lab, ["rm", "-f", "up1", "down1", "new1"]);
  await ok(lab, ["rmi", "other"]);
});

test("inspect → create round trip", async () => {
  await ok(lab, [
    "create",
    "--name",
    "source",
    "-e",
    "A=1",
    "-m",
    "64m",
    "--cap-drop",
    "NET_RAW",
    "-p",
    "127.0.0.1::81",
    "-v",
    "/v",
    "--restart",
    "on-failure:3",
    "busybox",
    "sleep",
    "1",
  ]);
  const first = await inspect("source");
  const body = {
    ...first.Config,
    HostConfig: first.HostConfig,
    NetworkingConfig: { EndpointsConfig: first.NetworkSettings.Networks },
  };
  const made = await call(lab, "POST", "/containers/create?name=copy", body);
  assert.equal(made.status, 201, made.text);
  const second = await inspect("copy");
  assert.deepEqual(second.HostConfig, first.HostConfig);
  assert.deepEqual({ ...second.Config, Hostname: "" }, { ...first.Config, Hostname: "" });
  await ok(lab, ["rm", "-v", "source", "copy"]);
});

test("diff, top, sizes, prune", async () => {
  await ok(lab, [
    "run",
    "-d",
    "--name",
    "work",
    "busybox",
    "sh",
    "-c",
    "echo 12345 >/tmp/f; rm /data/file; sleep 60",
  ]);
  await until(async () => (await ok(lab, ["top", "work"])).includes("sleep 60"), "the script is done");
  assert.equal(await ok(lab, ["diff", "work"]), "C /data\nD /data/file\nC /tmp\nA /tmp/f");
  assert.match(
    await ok(lab, ["top", "work"]),
    /^UID\s+PID\s+PPID\s+C\s+STIME\s+TTY\s+TIME\s+CMD\n[\s\S]*sleep 60/,
  );
  assert.match(await ok(lab, ["top", "work", "-o", "pid,comm"]), /^PID\s+COMMAND/);
  const sized = (await call(lab, "GET", "/containers/work/json?size=1")).json();
  assert.ok(sized.SizeRw >= 6 && sized.SizeRootFs > 1e6);
  await ok(lab, ["stop", "-t", "0", "work"]);
  assert.match(await ok(lab, ["container", "prune", "-f"]), /Deleted Containers:\n[0-9a-f]{64}/);
  assert.equal(await ok(lab, ["ps", "-aq"]), "");
});

test("health checks run inside and are told", async () => {
  await ok(lab, [
    "run",
    "-d",
    "--name",
    "sick",
    "--health-cmd",
    "test -e /tmp/well",
    "--health-interval",
    "200ms",
    "--health-retries",
    "2",
    "busybox",
    "sleep",
    "60",
  ]);
  const becomes = (status: string): Promise<void> =>
    until(async () => (await inspect("sick")).State.Health.Status === status, status);
  await becomes("unhealthy");
  await ok(lab, ["exec", "sick", "touch", "/tmp/well"]);
  await becomes("healthy");
  assert.match(await ok(lab, ["ps", "--format", "{{.Status}}"]), /\(healthy\)$/);
  await ok(lab, ["rm", "-f", "sick"]);
});

test("a sandbox made ahead is given back when it is not used, and follows changes when it is", async () => {
  const runDirs = () => readdirSync(join(lab.execRoot, "containers"));
  const id = await ok(lab, [
    "create",
    "--name",
    "ahead",
    "busybox",
    "sh",
    "-c",
    "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null",
  ]);
  await until(() => runDirs().length === 0, "the run directory goes");
  assert.notEqual((await docker(lab, ["start", "-a", id])).stdout, "33554432\n");
  await ok(lab, ["rm", id]);
  const changed = await ok(lab, [
    "create",
    "busybox",
    "sh",
    "-c",
    "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null",
  ]);
  await ok(lab, ["update", "-m", "32m", "--memory-swap", "64m", changed]);
  assert.equal(await docker(lab, ["start", "-a", changed]).then((ran) => ran.stdout), "33554432\n");
  await ok(lab, ["rm", changed]);
  // Removed at once: nothing of the sandbox is left.
  await ok(lab, ["rm", await ok(lab, ["create", "busybox"])]);
  await until(() => runDirs().length === 0, "nothing of the sandbox is left");
});

test("a create that cannot make its directory leaves nothing", async () => {
  const containers = join(lab.dataRoot, "containers");
  mkdirSync(containers, { recursive: true });
  renameSync(containers, `${containers}.away`);
  writeFileSync(containers, "in the way");
  try {
    assert.equal((await call(lab, "POST", "/containers/create?name=half", { Image: "busybox" })).status, 500);
  } finally {
    unlinkSync(containers);
    renameSync(`${containers}.away`, containers);
  }
  assert.equal(await ok(lab, ["ps", "-aq"]), "");
  assert.ok(!existsSync(join(lab.dataRoot, "containers", "half")));
  await ok(lab, ["create", "--name", "half", "busybox"]);
  await ok(lab, ["rm", "half"]);
});
