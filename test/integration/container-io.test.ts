import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { FrameDecoder } from "#wire/stdio-frames.ts";
import {
  type ContainerLab,
  call,
  collect,
  docker,
  drain,
  hijack,
  ok,
  openLab,
  until,
} from "./container-lab.ts";

let lab: ContainerLab;
before(async () => {
  lab = await openLab();
});
after(async () => {
  await lab[Symbol.asyncDispose]();
});

function unframe(bytes: Buffer): { stdout: string; stderr: string } {
  const parts = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
  const decoder = new FrameDecoder((stream, part) => parts[stream].push(part));
  decoder.push(bytes);
  return { stdout: Buffer.concat(parts.stdout).toString(), stderr: Buffer.concat(parts.stderr).toString() };
}

async function create(body: object): Promise<string> {
  const made = await call(lab, "POST", "/containers/create", { Image: "busybox", ...body });
  assert.equal(made.status, 201, made.text);
  return made.json().Id;
}

test("attach before start loses no byte, and several clients see the same", async () => {
  const id = await create({ Cmd: ["sh", "-c", "seq 1 20000; echo end >&2"] });
  const clients = await Promise.all(
    [1, 2, 3].map(() => hijack(lab, `/v1.51/containers/${id}/attach?stream=1&stdout=1&stderr=1`)),
  );
  const outputs = clients.map(drain);
  await call(lab, "POST", `/containers/${id}/start`);
  const expected = Array.from({ length: 20_000 }, (_, index) => `${index + 1}\n`).join("");
  for (const output of await Promise.all(outputs)) {
    assert.deepEqual(unframe(output), { stdout: expected, stderr: "end\n" });
  }
  await ok(lab, ["rm", id]);
});

test("stdin: half-close ends the input and nothing else; the output follows", async () => {
  assert.equal(
    await ok(lab, ["run", "--rm", "-i", "busybox", "sh", "-c", "sort; echo done"], "b\na\n"),
    "a\nb\ndone",
  );
  const big = Array.from({ length: 50_000 }, (_, index) => `line ${index}\n`).join("");
  const ran = await docker(lab, ["run", "--rm", "-i", "busybox", "cat"], big);
  assert.equal(ran.stdout, big);
});

test("attach with logs gives the past, then the present; stream selection", async () => {
  const id = await create({
    Cmd: ["sh", "-c", "echo past; echo hidden >&2; read x; echo got $x"],
    OpenStdin: true,
    AttachStdin: true,
  });
  await call(lab, "POST", `/containers/${id}/start`);
  // Logged, both of it: what comes after the attach is the present.
  await until(async () => {
    const { stdout, stderr } = await docker(lab, ["logs", id]);
    return stdout === "past\n" && stderr === "hidden\n";
  }, "the past");
  const client = await hijack(lab, `/v1.51/containers/${id}/attach?stream=1&stdin=1&stdout=1&logs=1`);
  client.write("hello\n");
  assert.deepEqual(unframe(await drain(client)), { stdout: "past\ngot hello\n", stderr: "" });
  const logsOnly = await hijack(lab, `/v1.51/containers/${id}/attach?stderr=1&logs=1`);
  assert.deepEqual(unframe(await drain(logsOnly)), { stdout: "", stderr: "hidden\n" });
  await ok(lab, ["rm", id]);
});

test("detach keys end the client and leave the process", async () => {
  const id = await create({ Cmd: ["cat"], Tty: true, OpenStdin: true });
  await call(lab, "POST", `/containers/${id}/start`);
  const client = await hijack(
    lab,
    `/v1.51/containers/${id}/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-a,x`,
  );
  const seen = collect(client);
  client.write("one\n");
  // The echo of the terminal, then what cat gives back.
  await until(() => seen.text() === "one\r\none\r\n", "the line comes back");
  client.write("\x01");
  client.write("x");
  await seen.ended;
  client.destroy();
  assert.equal(seen.text(), "one\r\none\r\n");
  assert.equal((await call(lab, "GET", `/containers/${id}/json`)).json().State.Running, true);
  const bad = await call(lab, "POST", `/containers/${id}/attach?detachKeys=zz`);
  assert.deepEqual([bad.status, bad.json().message], [400, "Invalid detach keys (zz) provided"]);
  await ok(lab, ["rm", "-f", id]);
});

test("resize reaches the terminal, before the program looks and after", async () => {
  const id = await create({
    // It says its size when it is ready to hear of another one.
    Cmd: ["sh", "-c", "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.05; done"],
    Tty: true,
    HostConfig: { ConsoleSize: [31, 97] },
  });
  const refused = await call(lab, "POST", `/containers/${id}/resize?h=10&w=10`);
  assert.deepEqual([refused.status, refused.json().message], [409, `container ${id} is not running`]);
  const client = await hijack(lab, `/v1.51/containers/${id}/attach?stream=1&stdout=1`);
  const seen = collect(client);
  await call(lab, "POST", `/containers/${id}/start`);
  await until(() => seen.text() === "31 97\r\n", "the size of the start");
  assert.equal((await call(lab, "POST", `/containers/${id}/resize?h=40&w=120`)).status, 200);
  await seen.ended;
  client.destroy();
  assert.equal(seen.text(), "31 97\r\n40 120\r\n");
  await ok(lab, ["rm", "-f", id]);
});

test("logs: tail, since, timestamps, follow to the end, details, no reading with driver none", async () => {
  const id = await create({
    Cmd: ["sh", "-c", "echo a; echo b >&2; sleep 0.4; echo c"],
    Labels: { app: "x y" },
    HostConfig: { LogConfig: { Type: "json-file", Config: { labels: "app" } } },
  });
  await call(lab, "POST", `/containers/${id}/start`);
  const followed = await docker(lab, ["logs", "-f", id]);
  assert.deepEqual(followed, { code: 0, stdout: "a\nc\n", stderr: "b\n" });
  assert.equal((await docker(lab, ["logs", "--tail", "1", id])).stdout, "c\n");
  assert.equal((await docker(lab, ["logs", "--tail", "0", id])).stdout, "");
  const stamped = (await docker(lab, ["logs", "-t", id])).stdout.split("\n");
  assert.match(stamped[0]!, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z a$/);
  const since = stamped[1]!.split(" ")[0]!;
  assert.equal((await docker(lab, ["logs", "--since", since, id])).stdout, "c\n");
  assert.equal((await docker(lab, ["logs", "--details", "--tail", "1", id])).stdout, "app=x+y c\n");
  const neither = await call(lab, "GET", `/containers/${id}/logs`);
  assert.deepEqual(
    [neither.status, neither.json().message],
    [400, "Bad parameters: you must choose at least one stream"],
  );
  await ok(lab, ["rm", id]);
  const silent = await create({
    Cmd: ["echo", "x"],
    HostConfig: { LogConfig: { Type: "none", Config: {} } },
  });
  const none = await call(lab, "GET", `/containers/${silent}/logs?stdout=1`);
  assert.deepEqual(
    [none.status, none.json().message],
    [501, "configured logging driver does not support reading"],
  );
  await ok(lab, ["rm", silent]);
});

test("exec: streams, exit codes, environment, detached, refusals", async () => {
  const name = "execs";
  await ok(lab, ["run", "-d", "--name", name, "-e", "A=outer", "busybox", "sleep", "60"]);
  const ran = await docker(lab, [
    "exec",
    "-e",
    "B=own",
    "-w",
    "/tmp",
    "-u",
    "7:8",
    name,
    "sh",
    "-c",
    "echo $A $B $PWD $(id -u):$(id -g); echo e >&2; exit 9",
  ]);
  assert.deepEqual(ran, { code: 9, stdout: "outer own /tmp 7:8\n", stderr: "e\n" });
  assert.equal((await docker(lab, ["exec", "-i", name, "cat"], "in\n")).stdout, "in\n");
  const missing = await docker(lab, ["exec", name, "nope"]);
  assert.equal(missing.code, 127);
  assert.match(
    missing.stdout,
    /OCI runtime exec failed: .*exec: "nope": executable file not found in \$PATH/,
  );
  const made = (
    await call(lab, "POST", `/containers/${name}/exec`, { Cmd: ["sh", "-c", "touch /tmp/there; exit 6"] })
  ).json();
  assert.equal((await call(lab, "POST", `/exec/${made.Id}/start`, { Detach: true })).status, 200);
  const running = async (): Promise<boolean> =>
    (await call(lab, "GET", `/exec/${made.Id}/json`)).json().Running;
  await until(async () => !(await running()), "the detached exec ends");
  const seen = (await call(lab, "GET", `/exec/${made.Id}/json`)).json();
  assert.deepEqual([seen.ExitCode, seen.ProcessConfig.entrypoint, seen.CanRemove], [6, "sh", false]);
  const again = await call(lab, "POST", `/exec/${made.Id}/start`, {});
  assert.deepEqual(
    [again.status, again.json().message],
    [409, `Error: Exec command ${made.Id} has already run`],
  );
  assert.equal((await call(lab, "GET", "/exec/nope/json")).json().message, "No such exec instance: nope");
  assert.equal(
    (await call(lab, "POST", `/containers/${name}/exec`, {})).json().message,
    "No exec command specified",
  );
  await ok(lab, ["stop", "-t", "0", name]);
  const { Id: id } = (await call(lab, "GET", `/containers/${name}/json`)).json();
  const stopped = await call(lab, "POST", `/containers/${name}/exec`, { Cmd: ["ls"] });
  assert.deepEqual([stopped.status, stopped.json().message], [409, `container ${id} is not running`]);
  await ok(lab, ["rm", name]);
});

test("start -a -i and attach by the command line", async () => {
  const id = await create({
    Cmd: ["sh", "-c", "read x; echo got $x; exit 4"],
    OpenStdin: true,
    StdinOnce: true,
  });
  const ran = await docker(lab, ["start", "-a", "-i", id], "word\n");
  assert.deepEqual([ran.code, ran.stdout], [4, "got word\n"]);
  await ok(lab, ["rm", id]);
});

test("events carry Docker's actions and attributes", async () => {
  // From the past on: nothing is missed before the command line has connected.
  const child = spawn("docker", [
    ...["-H", `unix://${lab.socket}`, "events", "--since", (Date.now() / 1000).toFixed(3)],
    "--format",
    "{{.Type}} {{.Action}} {{json .Actor.Attributes}}",
  ]);
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  await ok(lab, ["run", "--rm", "--name", "told", "--label", "k=v", "busybox", "sh", "-c", "exit 2"]).catch(
    () => {},
  );
  await until(() => text.includes("container destroy"), "the last event");
  child.kill("SIGKILL");
  await once(child, "close");
  const lines = text.trim().split("\n");
  assert.deepEqual(
    lines.map((line) => line.split(" ").slice(0, 2).join(" ")),
    [
      "container create",
      "container attach",
      "network connect",
      "container start",
      "container die",
      "network disconnect",
      "container destroy",
    ],
  );
  const { execDuration, ...died } = JSON.parse(lines[4]!.slice("container die ".length));
  assert.match(execDuration, /^\d+$/);
  assert.deepEqual(died, {
    exitCode: "2",
    image: "busybox",
    k: "v",
    name: "told",
  });
});

test("a client that goes away while it waits for a start is forgotten", async () => {
  const id = await create({ Cmd: ["echo", "x"] });
  const client = await hijack(lab, `/v1.51/containers/${id}/attach?stream=1&stdout=1`);
  client.destroy();
  await once(client, "close");
  assert.equal((await call(lab, "POST", `/containers/${id}/start`)).status, 204);
  assert.equal((await call(lab, "POST", `/containers/${id}/wait`)).json().StatusCode, 0);
  const late = await hijack(lab, `/v1.51/containers/${id}/attach?stream=1&stdout=1`);
  const ended = drain(late);
  await ok(lab, ["rm", id]);
  assert.equal((await ended).length, 0);
});
