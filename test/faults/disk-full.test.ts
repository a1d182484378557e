/** A data root without space: clean errors through the real client, nothing half made, and all is well once there is space. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type Client, clientPrograms, createClient, until } from "../clients/real-lab.ts";
import { imageOf, layerTar, ScriptedRegistry } from "../integration/scripted-registry.ts";
import { busyboxLayout, pushLayout } from "../peers/images.ts";
import { leftOver } from "../peers/left-over.ts";
import { startRegistry } from "../peers/registry.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";
import { type SmallDisk, smallDisk } from "../peers/small-disk.ts";

const noSpace = /no space left on device/;

describe("a full disk under the data root", () => {
  const resources = new AsyncDisposableStack();
  let disk: SmallDisk;
  let folder: string;
  let daemon: TestDaemon;
  let client: Client;
  let scripted: ScriptedRegistry;

  before(async () => {
    disk = resources.use(smallDisk(64));
    folder = mkdtempSync(join(tmpdir(), "skiff-full-"));
    resources.defer(() => rmSync(folder, { recursive: true, force: true }));
    scripted = resources.use(await ScriptedRegistry.start());
    scripted.serve("large", imageOf([layerTar("large", 80 * 1024 * 1024)]));
    const registry = resources.use(await startRegistry());
    pushLayout(busyboxLayout(), `${registry.address}/busybox:test`);
    const dataRoot = join(disk.path, "data");
    mkdirSync(dataRoot);
    daemon = resources.use(await startSkiffd({ dataRoot }));
    client = createClient(clientPrograms[0], daemon.host, folder);
    await client.out("pull", "-q", `${registry.address}/busybox:test`);
    await client.out("tag", `${registry.address}/busybox:test`, "busybox");
  });
  after(() => resources.disposeAsync());

  test("a pull that does not fit says so, and gives the space back", async () => {
    const before = disk.freeBytes();
    const pull = await client.run(["pull", `${scripted.address}/a/b:large`]);
    assert.equal(pull.code, 1);
    assert.match(pull.stderr, noSpace);
    assert.equal((await client.out("images", "-q", "--no-trunc")).split("\n").length, 2);
    assert.deepEqual(await leftOver(daemon), []);
    await until("the space is back", () => before - disk.freeBytes() < 1024 * 1024);
    assert.equal(await client.out("run", "--rm", "busybox", "echo", "works"), "works");
  });

  test("create and start fail clearly and leave nothing; what runs goes on, reads and removals work", async () => {
    await client.out(
      ...["run", "-d", "--name", "old", "busybox", "sh", "-c"],
      "trap 'exit 9' TERM; while :; do sleep 0.1; done",
    );
    await client.out("create", "--name", "made", "busybox", "echo", "started");
    await client.out("run", "-d", "--name", "doomed", "busybox", "sleep", "1000");
    await client.out("volume", "create", "named");
    await client.out("volume", "create", "unused");
    {
      using _full = disk.fill();
      for (const words of [
        ["run", "--rm", "busybox", "true"],
        ["create", "--name", "late", "busybox", "true"],
        ["run", "-d", "-v", "fresh:/etc", "busybox", "sleep", "100"],
      ]) {
        const refused = await client.run(words);
        assert.notEqual(refused.code, 0, words.join(" "));
        assert.match(refused.stderr, noSpace);
      }
      assert.equal(await client.out("ps", "-a", "--format", "{{.Names}}"), "doomed\nmade\nold");
      assert.equal(await client.out("volume", "ls", "-q"), "named\nunused");
      // A start may find the little that it needs; else it says what is missing, and the container stays as it was.
      const started = await client.run(["start", "-a", "made"]);
      if (started.code !== 0) assert.match(started.stderr, noSpace);
      assert.equal(await client.out("exec", "old", "echo", "alive"), "alive");
      assert.equal((await client.run(["logs", "old"])).code, 0);
      assert.match(await client.out("inspect", "-f", "{{.State.Status}}", "old"), /running/);
      await client.out("rm", "-f", "doomed");
      await client.out("volume", "rm", "unused");
    }
    assert.deepEqual(await leftOver(daemon), []);
    assert.equal(await client.out("start", "-a", "made"), "started");
    await client.out("stop", "old");
    assert.equal(await client.out("inspect", "-f", "{{.State.ExitCode}}", "old"), "9");
    await client.out("rm", "old", "made");
    await client.out("volume", "rm", "named");
    assert.deepEqual(await leftOver(daemon), []);
  });

  test("a copy that does not fit says so, and what was begun of the file goes", async () => {
    const before = disk.freeBytes();
    const large = join(folder, "large");
    writeFileSync(large, Buffer.alloc(80 * 1024 * 1024, 1));
    await client.out("run", "-d", "--name", "target", "busybox", "sleep", "1000");
    for (const state of ["running", "stopped"]) {
      const copy = await client.run(["cp", large, "target:/large"]);
      assert.equal(copy.code, 1, state);
      assert.match(copy.stderr, noSpace);
      assert.notEqual((await client.run(["cp", "target:/large", join(folder, "back")])).code, 0, state);
      if (state === "running") await client.out("stop", "-t", "0", "target");
    }
    await until("the space is back", () => before - disk.freeBytes() < 1024 * 1024);
    rmSync(large);
    assert.equal(await client.out("start", "target"), "target");
    await client.out("rm", "-f", "target");
    assert.deepEqual(await leftOver(daemon), []);
  });

  test("a container that fills the disk gets its error; its exit code is kept and it can be removed", async () => {
    const before = disk.freeBytes();
    const fill = "cat /dev/zero > /filler; echo status $?; while :; do sleep 0.05; done";
    await client.out("run", "-d", "--name", "greedy", "--init", "busybox", "sh", "-c", fill);
    await until("the disk is full", () => disk.freeBytes() < 64 * 1024);
    // Its lines find no place in the log, which never stops it.
    await client.run(["exec", "greedy", "sh", "-c", "seq 1 20000 > /proc/1/fd/1"], { timeoutMs: 20_000 });
    await client.out("kill", "-s", "KILL", "greedy");
    assert.equal(await client.out("wait", "greedy"), "137");
    const removed = await client.run(["rm", "greedy"]);
    assert.equal(removed.code, 0, removed.stderr);
    await until("the space is back", () => before - disk.freeBytes() < 2 * 1024 * 1024);
    assert.deepEqual(await leftOver(daemon), []);
  });

  test("the daemon stops and starts on a full disk, and takes over what runs", async () => {
    await client.out("run", "-d", "--name", "through", "busybox", "sleep", "1000");
    const pid = await client.out("inspect", "-f", "{{.State.Pid}}", "through");
    {
      using _full = disk.fill();
      await daemon.kill();
      await sleep(100);
      await daemon.restart();
      assert.equal(await client.out("inspect", "-f", "{{.State.Pid}}", "through"), pid);
    }
    assert.equal(await client.out("exec", "through", "echo", "here"), "here");
    await client.out("rm", "-f", "through");
    assert.deepEqual(await leftOver(daemon), []);
  });
});
