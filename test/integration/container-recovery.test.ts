import assert from "node:assert/strict";
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type ContainerLab, call, docker, ok, openLab, until } from "./container-lab.ts";

let lab: ContainerLab;
before(async () => {
  lab = await openLab();
});
after(async () => {
  await lab[Symbol.asyncDispose]();
});

// A test that failed leaves its containers to no other.
afterEach(async () => {
  const left = (await ok(lab, ["ps", "-aq"])).split("\n").filter((id) => id !== "");
  if (left.length > 0) await ok(lab, ["rm", "-fv", ...left]);
});

async function inspect(name: string) {
  return (await call(lab, "GET", `/v1.51/containers/${name}/json`)).json();
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("error", () => resolve(false));
    socket.once("data", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("end", () => resolve(false));
    socket.setTimeout(3000, () => {
      socket.destroy();
      resolve(false);
    });
  });
}

for (const how of ["kill", "stop"] as const) {
  test(`containers outlive the daemon's ${how}: output, exit codes, ports, policies`, async () => {
    const counting = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done";
    await ok(lab, [
      "run",
      "-d",
      "--name",
      "writer",
      "-p",
      "80",
      "busybox",
      "sh",
      "-c",
      `while :; do echo hi | nc -l -p 80; done & ${counting}`,
    ]);
    await ok(lab, ["run", "-d", "--name", "ender", "busybox", "sh", "-c", "sleep 0.6; exit 7"]);
    await ok(lab, ["run", "-d", "--rm", "--name", "remover", "-v", "/anon", "busybox", "sleep", "0.6"]);
    await ok(lab, [
      "run",
      "-d",
      "--name",
      "again",
      "--restart",
      "always",
      "busybox",
      "sh",
      "-c",
      "sleep 0.6; exit 9",
    ]);
    await ok(lab, ["run", "-d", "--name", "frozen", "busybox", "sleep", "100"]);
    await ok(lab, ["pause", "frozen"]);
    await ok(lab, ["create", "--name", "fresh", "busybox"]);
    await ok(lab, [
      "run",
      "-d",
      "--name",
      "halted",
      "--restart",
      "unless-stopped",
      "busybox",
      "sleep",
      "100",
    ]);
    await ok(lab, ["stop", "-t", "0", "halted"]);
    const before = await inspect("writer");
    const port = Number(before.NetworkSettings.Ports["80/tcp"][0].HostPort);
    await lab[how]();
    await until(() => answers(port), "the port answers without the daemon");
    await sleep(1200);
    const away = Date.now();
    await lab.start();
    const after = await inspect("writer");
    assert.deepEqual(after.State, before.State);
    assert.deepEqual(after.NetworkSettings, before.NetworkSettings);
    await until(() => answers(port), "the port answers again");
    const ended = (await inspect("ender")).State;
    assert.deepEqual([ended.Status, ended.ExitCode], ["exited", 7]);
    assert.ok(Date.parse(ended.FinishedAt) < away, "the end is when it happened, not when it was learnt");
    await until(
      async () => (await call(lab, "GET", "/containers/remover/json")).status === 404,
      "the --rm container goes",
    );
    assert.equal(await ok(lab, ["volume", "ls", "-q"]), "");
    await until(async () => Date.parse((await inspect("again")).State.StartedAt) >= away, "restart always");
    assert.equal((await inspect("frozen")).State.Status, "paused");
    await ok(lab, ["unpause", "frozen"]);
    assert.equal(await ok(lab, ["exec", "frozen", "echo", "alive"]), "alive");
    assert.equal((await inspect("fresh")).State.Status, "created");
    assert.equal((await inspect("halted")).State.Status, "exited");
    const written = async (): Promise<number[]> =>
      (await ok(lab, ["logs", "writer"]))
        .split("\n")
        .filter((line) => line !== "")
        .map(Number);
    const known = (await written()).length;
    await until(async () => (await written()).length > known + 50, "it writes on");
    const lines = await written();
    assert.ok(
      lines.every((value, index) => value === index),
      "no line lost or doubled",
    );
  });
}

test("what no row names is removed when the daemon starts", async () => {
  await lab.stop();
  const id = "0123456789abcdef".repeat(4);
  for (const folder of [join(lab.dataRoot, "containers", id), join(lab.execRoot, "containers", id)]) {
    mkdirSync(folder, { recursive: true });
  }
  mkdirSync(join(lab.dataRoot, "containers", "not-an-id"));
  await lab.start();
  assert.deepEqual(readdirSync(join(lab.dataRoot, "containers")), ["not-an-id"]);
  assert.deepEqual(readdirSync(join(lab.execRoot, "containers")), []);
});

test("killed while containers start and exit: every one is whole afterwards, nothing runs twice", async () => {
  const phases = [0, 3, 6, 10, 15, 25, 40, 80];
  for (const [round, delay] of phases.entries()) {
    const name = `round${round}`;
    const running = docker(lab, ["run", "-d", "--name", name, "busybox", "sh", "-c", "echo once; exit 5"]);
    // The command line needs some 20 ms before its first request.
    await sleep(18 + delay);
    await lab.kill();
    const told = await running;
    await lab.start();
    const answer = await call(lab, "GET", `/containers/${name}/json`);
    if (told.code === 0) assert.equal(answer.status, 200, "an acknowledged container is there");
    if (answer.status === 404) continue;
    const { State } = answer.json();
    assert.ok(["created", "running", "exited"].includes(State.Status), State.Status);
    if (told.code === 0) assert.notEqual(State.Status, "created", "an acknowledged start happened");
    if (State.Status !== "created") {
      assert.equal((await call(lab, "POST", `/containers/${name}/wait`)).json().StatusCode, 5);
      assert.equal(await ok(lab, ["logs", name]), "once");
    }
    await ok(lab, ["rm", "-f", name]);
  }
  await until(() => readdirSync(join(lab.execRoot, "containers")).length === 0, "nothing is left");
});

test("a row whose directories were not made yet when the daemon died is a whole container", async () => {
  const id = await ok(lab, ["create", "--name", "early", "busybox", "echo", "whole"]);
  await lab.kill();
  rmSync(join(lab.dataRoot, "overlay2", `w-${id}`), { recursive: true });
  rmSync(join(lab.dataRoot, "containers", id), { recursive: true });
  await lab.start();
  assert.equal(await ok(lab, ["start", "-a", "early"]), "whole");
  assert.equal(await ok(lab, ["logs", "early"]), "whole");
  await ok(lab, ["rm", "early"]);
});
