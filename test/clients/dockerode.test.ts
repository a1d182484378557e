import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import Docker from "dockerode";
import { busyboxLayout, pushLayout } from "../peers/images.ts";
import { type PeerRegistry, startRegistry } from "../peers/registry.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";
import { until } from "./real-lab.ts";

interface EventMessage {
  readonly Type: string;
  readonly Action: string;
  readonly status?: string;
  readonly id?: string;
  readonly from?: string;
  readonly timeNano: number;
  readonly Actor: { readonly ID: string; readonly Attributes: Readonly<Record<string, string>> };
}

function collect(stream: NodeJS.ReadableStream): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("end", () => resolve(Buffer.concat(chunks).toString()));
    stream.on("error", reject);
  });
}

/** Splits a framed stream with dockerode's own code. */
async function demux(
  docker: Docker,
  stream: NodeJS.ReadableStream,
): Promise<{ stdout: string; stderr: string }> {
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  docker.modem.demuxStream(stream, stdout, stderr);
  stream.on("end", () => {
    stdout.end();
    stderr.end();
  });
  const [out, err] = await Promise.all([collect(stdout), collect(stderr)]);
  return { stdout: out, stderr: err };
}

describe("dockerode", () => {
  let daemon: TestDaemon;
  let registry: PeerRegistry;
  let docker: Docker;
  let image: string;

  before(async () => {
    registry = await startRegistry();
    daemon = await startSkiffd();
    docker = new Docker({ socketPath: daemon.socket });
    image = `${registry.address}/busybox:latest`;
    pushLayout(busyboxLayout(), image);
  });
  after(async () => {
    await daemon?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
  });

  test("pull with progress", async () => {
    const seen: { status?: string; id?: string; progressDetail?: object; error?: string }[] = [];
    const stream = await docker.pull(image);
    await new Promise<void>((resolve, reject) => {
      docker.modem.followProgress(
        stream,
        (error) => (error === null ? resolve() : reject(error)),
        (event) => seen.push(event),
      );
    });
    const statuses = seen.map((event) => event.status ?? "");
    assert.ok(
      statuses.some((status) => status.startsWith("Pulling from busybox")),
      statuses.join("\n"),
    );
    assert.ok(statuses.includes("Pulling fs layer"));
    assert.ok(statuses.includes("Pull complete"));
    assert.ok(statuses.some((status) => status.startsWith("Digest: sha256:")));
    assert.ok(statuses.includes(`Status: Downloaded newer image for ${image}`));
  });

  test("ping, version, info, images", async () => {
    assert.equal(String(await docker.ping()), "OK");
    const version = await docker.version();
    assert.equal(version.Os, "linux");
    assert.match(version.ApiVersion, /^1\.\d+$/);
    const info = await docker.info();
    assert.equal(typeof info.NCPU, "number");
    const images = await docker.listImages();
    assert.ok(images.some((entry) => entry.RepoTags?.includes(image)));
    const shown = await docker.getImage(image).inspect();
    assert.equal(shown.Os, "linux");
    assert.ok((await docker.getImage(image).history()).length >= 1);
  });

  test("create, start, wait, logs, inspect, remove", async () => {
    const container = await docker.createContainer({
      Image: image,
      Cmd: ["sh", "-c", "echo out; echo err >&2; exit 5"],
    });
    await container.start();
    assert.equal((await container.wait()).StatusCode, 5);
    const logs = await container.logs({ stdout: true, stderr: true, follow: true });
    assert.deepEqual(await demux(docker, logs), { stdout: "out\n", stderr: "err\n" });
    const shown = await container.inspect();
    assert.equal(shown.State.Status, "exited");
    assert.equal(shown.State.ExitCode, 5);
    await container.remove();
    await assert.rejects(container.inspect(), (error: { statusCode: number }) => error.statusCode === 404);
  });

  test("attach with stdin: half-close reaches the process, output comes framed", async () => {
    const container = await docker.createContainer({
      Image: image,
      Cmd: ["sh", "-c", "cat; echo done >&2"],
      OpenStdin: true,
      StdinOnce: true,
      AttachStdin: true,
      AttachStdout: true,
      AttachStderr: true,
    });
    const stream = await container.attach({
      stream: true,
      stdin: true,
      stdout: true,
      stderr: true,
      hijack: true,
    });
    const output = demux(docker, stream);
    await container.start();
    stream.write("first\n");
    await sleep(50);
    stream.end("second\n");
    assert.deepEqual(await output, { stdout: "first\nsecond\n", stderr: "done\n" });
    assert.equal((await container.wait()).StatusCode, 0);
    await container.remove();
  });

  test("attach without hijack: the client's JSON body does not reach stdin", async () => {
    const container = await docker.createContainer({
      Image: image,
      Cmd: ["sh", "-c", "exec 2>/dev/null; timeout 1 cat; echo end"],
      OpenStdin: true,
    });
    const stream = await container.attach({ stream: true, stdout: true, stderr: true });
    const output = demux(docker, stream);
    await container.start();
    assert.deepEqual(await output, { stdout: "end\n", stderr: "" });
    await container.remove({ force: true });
  });

  test("a terminal: raw stream and resize", async () => {
    const container = await docker.createContainer({
      Image: image,
      Cmd: ["sh", "-c", 'until [ "$(stty size 2>/dev/null)" = "33 77" ]; do sleep 0.1; done; stty size'],
      Tty: true,
    });
    const stream = await container.attach({ stream: true, stdout: true, stderr: true, hijack: true });
    const output = collect(stream);
    await container.start();
    await container.resize({ h: 33, w: 77 });
    assert.equal((await output).trim(), "33 77");
    await container.remove({ force: true });
  });

  test("exec: output, exit code, stdin", async () => {
    const container = await docker.createContainer({ Image: image, Cmd: ["sleep", "60"] });
    await container.start();
    const exec = await container.exec({
      Cmd: ["sh", "-c", "cat; exit 9"],
      AttachStdin: true,
      AttachStdout: true,
      AttachStderr: true,
    });
    const stream = await exec.start({ hijack: true, stdin: true });
    const output = demux(docker, stream);
    stream.end("typed\n");
    assert.deepEqual(await output, { stdout: "typed\n", stderr: "" });
    const shown = await exec.inspect();
    assert.equal(shown.ExitCode, 9);
    assert.equal(shown.Running, false);
    await container.kill();
    await container.wait();
    await assert.rejects(
      container.exec({ Cmd: ["true"] }),
      (error: { statusCode: number }) => error.statusCode === 409,
    );
    await container.remove();
  });

  test("events of a container's life, with the fields older clients read", async () => {
    const seen: EventMessage[] = [];
    const stream = await docker.getEvents({ filters: { type: ["container"] } });
    let rest = "";
    stream.on("data", (chunk: Buffer) => {
      rest += chunk.toString();
      const lines = rest.split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) if (line.trim() !== "") seen.push(JSON.parse(line) as EventMessage);
    });
    const container = await docker.createContainer({
      Image: image,
      Cmd: ["sh", "-c", "exit 4"],
      name: "dockerode-events",
    });
    await container.start();
    await container.wait();
    await container.remove();
    await until("the last event", () => seen.some(({ Action }) => Action === "destroy"));
    (stream as unknown as { destroy(): void }).destroy();
    const mine = seen.filter((event) => event.Actor.ID === container.id);
    assert.deepEqual(
      mine.map((event) => event.Action),
      ["create", "start", "die", "destroy"],
    );
    const died = mine.find((event) => event.Action === "die")!;
    assert.equal(died.Actor.Attributes["exitCode"], "4");
    assert.equal(died.Actor.Attributes["name"], "dockerode-events");
    assert.equal(died.status, "die");
    assert.equal(died.id, container.id);
    assert.equal(died.from, image);
    assert.ok(died.timeNano > 1e18);
  });

  test("list, rename, pause, top, stop, restart, prune", async () => {
    const container = await docker.createContainer({
      Image: image,
      Cmd: ["sleep", "60"],
      name: "dockerode-one",
      Labels: { a: "b" },
      StopSignal: "SIGKILL",
    });
    await container.start();
    assert.equal((await docker.listContainers({ filters: { label: ["a=b"] } })).length, 1);
    await container.rename({ name: "dockerode-two" });
    await container.pause();
    assert.equal((await container.inspect()).State.Status, "paused");
    await container.unpause();
    const top = (await container.top()) as { Titles: string[]; Processes: string[][] };
    assert.ok(top.Processes[0]!.at(-1)!.includes("sleep"));
    await container.restart({ t: 1 });
    await container.stop({ t: 1 });
    await assert.rejects(container.stop(), (error: { statusCode: number }) => error.statusCode === 304);
    const pruned = await docker.pruneContainers({ filters: { label: ["a=b"] } });
    assert.deepEqual(pruned.ContainersDeleted, [container.id]);
  });

  test("archives out and in", async () => {
    const container = await docker.createContainer({ Image: image, Cmd: ["true"] });
    const archive = (await container.getArchive({ path: "/bin/busybox" })) as NodeJS.ReadableStream;
    await container.putArchive(archive, { path: "/tmp" });
    const info = (await container.infoArchive({ path: "/tmp/busybox" })) as { resume(): void };
    info.resume();
    await assert.rejects(container.getArchive({ path: "/none" }), { statusCode: 404 });
    await container.remove();
  });

  test("volumes and networks", async () => {
    const volume = await docker.createVolume({ Name: "dockerode-volume" });
    assert.equal(volume.name, "dockerode-volume");
    assert.ok((await docker.listVolumes()).Volumes.some((entry) => entry.Name === "dockerode-volume"));
    await docker.getVolume("dockerode-volume").remove();
    assert.ok((await docker.listNetworks()).some((network) => network.Name === "bridge"));
  });
});
