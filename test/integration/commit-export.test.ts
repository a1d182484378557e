import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { globSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { call } from "../peers/engine-call.ts";
import { busyboxLayout } from "../peers/images.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";

/** Containers to images and to files, by the command line against a daemon. */
const skiff = join(import.meta.dirname, "../../bin/skiff");
const resources = new AsyncDisposableStack();
let daemon: TestDaemon;

// No name here may begin an id: letters beyond f are in each.
before(async () => {
  daemon = resources.use(await startSkiffd());
  const archive = execFileSync("tar", ["-C", busyboxLayout(), "-cf", "-", "."], { maxBuffer: 2 ** 28 });
  writeFileSync(join(daemon.home, "boxes.tar"), archive);
  const line = await run("load", "-i", join(daemon.home, "boxes.tar"));
  await run("tag", line.split(": ")[1]!, "boxes");
});

after(() => resources.disposeAsync());

const execute = promisify(execFile);

async function run(...args: string[]): Promise<string> {
  const environment = { ...process.env, DOCKER_HOST: daemon.host, DOCKER_CONFIG: daemon.home };
  const { stdout } = await execute(skiff, args, { env: environment, timeout: 60_000, maxBuffer: 2 ** 26 });
  return stdout.trim();
}

async function fails(...args: string[]): Promise<string> {
  const error = await run(...args).then(
    () => undefined,
    (reason: { stderr: string }) => reason,
  );
  assert.ok(error !== undefined, `${args.join(" ")} should fail`);
  return error.stderr.trim();
}

/** Changes of every kind that a layer can hold. */
const work = [
  "rm -r /home /var",
  "mkdir /home && echo new > /home/new",
  "rm /etc/group",
  "echo more >> /etc/passwd",
  "mkdir -p /a/b && echo x > /a/b/x && ln /a/b/x /a/hard && ln -s b/x /a/soft",
  "mkfifo /a/fifo && chmod 4750 /a/b/x && chown -h 5:6 /a/soft",
  "touch -d '2020-01-02 03:04:05' /a/b/x",
  "echo '#' > '/a/ünï cödé'",
].join(" && ");

/** Every name with what can be told of it, and every file's content. */
const describe =
  "find / -xdev -path /proc -prune -o -path /sys -prune -o -path /dev -prune -o -path '/bin/*' -prune -o -path /etc/hosts -prune -o -print | sort | while read -r f; do stat -c '%n %f %u:%g %s %h' \"$f\"; done; find /a /home /etc/passwd -type f | sort | while read -r f; do md5sum \"$f\"; done";

test("commit: parent, history, config, and the very files", async () => {
  await run("run", "--name", "worked", "-e", "A=1", "boxes", "sh", "-c", work);
  const id = await run(
    "commit",
    "-a",
    "J R",
    "-m",
    "a note",
    "-c",
    "ENV B=2",
    "-c",
    'CMD ["true"]',
    "worked",
    "com:1",
  );
  const [inspect] = JSON.parse(await run("image", "inspect", "com:1"));
  const [base] = JSON.parse(await run("image", "inspect", "boxes"));
  assert.equal(inspect.Id, id);
  assert.equal(inspect.Parent, base.Id);
  assert.deepEqual([inspect.Author, inspect.Comment, inspect.Config.Cmd], ["J R", "a note", ["true"]]);
  assert.ok(inspect.Config.Env.includes("A=1") && inspect.Config.Env.includes("B=2"));
  assert.equal(inspect.RootFS.Layers.length, base.RootFS.Layers.length + 1);
  const history = (
    await run("history", "--format", "{{.ID}} {{.CreatedBy}} {{.Comment}}", "--no-trunc", "com:1")
  ).split("\n");
  assert.equal(history[0], `${id} sh -c ${work} a note`);
  assert.ok(history[1]!.startsWith(base.Id));
  const committed = await run("run", "--rm", "com:1", "sh", "-c", describe);
  assert.match(committed, /\/a\/hard 89e8 0:0 2 2\n/);
  assert.match(committed, /\/a\/soft a1ff 5:6 3 1\n/);
  assert.doesNotMatch(committed, /\/etc\/group|\/var /);
  // The same container again gives the same layer.
  const again = await run("commit", "worked");
  const [second] = JSON.parse(await run("image", "inspect", again));
  assert.equal(second.RootFS.Layers.at(-1), inspect.RootFS.Layers.at(-1));
  await run("rmi", again);
});

test("save and load give a committed layer back, byte for byte", async () => {
  const path = join(daemon.home, "com.tar");
  const id = await run("images", "-q", "--no-trunc", "com:1");
  const shown = await run("run", "--rm", "com:1", "sh", "-c", describe);
  await run("save", "-o", path, "com:1");
  await run("rmi", "com:1");
  assert.equal(await run("load", "-i", path), "Loaded image: com:1");
  assert.equal(await run("images", "-q", "--no-trunc", "com:1"), id);
  assert.equal(await run("run", "--rm", "com:1", "sh", "-c", describe), shown);
  await run("save", "-o", `${path}.2`, "com:1");
  assert.ok(readFileSync(`${path}.2`).equals(readFileSync(path)));
});

test("export of a stopped and of a running container, and import: the same files in one layer", async () => {
  const path = join(daemon.home, "flat.tar");
  await run("export", "-o", path, "worked");
  await run("import", path, "flat:1");
  const [inspect] = JSON.parse(await run("image", "inspect", "flat:1"));
  assert.equal(inspect.RootFS.Layers.length, 1);
  assert.equal((await run("history", "-q", "flat:1")).split("\n").length, 1);
  assert.equal(
    await run("run", "--rm", "flat:1", "sh", "-c", describe),
    await run("run", "--rm", "com:1", "sh", "-c", describe),
  );
  await run(
    "run",
    "-d",
    "--name",
    "r1",
    "-v",
    "/vol",
    "com:1",
    "sh",
    "-c",
    "echo in > /vol/x; echo up > /up; sleep 100",
  );
  await run("exec", "r1", "sh", "-c", "until [ -e /up ]; do sleep 0.1; done");
  await run("export", "-o", path, "r1");
  const names = execFileSync("tar", ["-tf", path], { encoding: "utf8" }).split("\n");
  assert.ok(names.includes("up") && names.includes("vol/") && !names.includes("vol/x"));
  assert.ok(names.includes(".dockerenv") && names.includes("proc/"));
});

test("commit freezes what runs, unless told otherwise", async () => {
  const since = Math.floor(Date.now() / 1000) - 1;
  await run("commit", "r1", "com:paused");
  await run("commit", "--pause=false", "r1", "com:unpaused");
  const until = Math.floor(Date.now() / 1000) + 1;
  const filter = encodeURIComponent(JSON.stringify({ type: ["container"], container: ["r1"] }));
  const events = await call(daemon.socket, "GET", `/events?since=${since}&until=${until}&filters=${filter}`);
  const actions = events.text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line).Action as string);
  assert.deepEqual(
    actions.filter((action) => ["pause", "commit", "unpause"].includes(action)),
    ["pause", "commit", "unpause", "commit"],
  );
  assert.equal(await run("inspect", "-f", "{{.State.Status}}", "r1"), "running");
  await run("rm", "-f", "r1");
});

test("what is no container is not committed or exported; a container is not saved", async () => {
  assert.match(await fails("commit", "nope"), /No such container: nope/);
  assert.match(await fails("export", "boxes"), /No such container: boxes/);
  assert.match(await fails("save", "worked"), /No such image: worked/);
  assert.match(await fails("commit", "-c", "FROM x", "worked"), /from is not a valid change command/);
  assert.match(await fails("commit", "worked", "UPPER"), /must be lowercase/);
});

test("children keep their parents; the last child takes untagged parents along", async () => {
  await run("run", "--name", "p1", "boxes", "touch", "/one");
  const parent = await run("commit", "p1");
  await run("run", "--name", "p2", parent, "touch", "/two");
  const child = await run("commit", "p2", "child:1");
  await run("rm", "p1", "p2");
  assert.match(await fails("rmi", parent), /\(cannot be forced\) - image has dependent child images/);
  assert.match(await fails("rmi", "-f", parent), /\(cannot be forced\) - image has dependent child images/);
  assert.ok(!(await run("images", "-q", "--no-trunc")).includes(parent));
  assert.ok((await run("images", "-aq", "--no-trunc")).includes(parent));
  const removed = await run("rmi", "child:1");
  assert.ok(removed.includes(`Deleted: ${child}`) && removed.includes(`Deleted: ${parent}`));
});

/** Bytes of the files of layers and blobs. */
function bytesOnDisk(): number {
  const files = ["overlay2/**", "content/**"].flatMap((pattern) =>
    globSync(pattern, { cwd: daemon.dataRoot, withFileTypes: true }),
  );
  const seen = new Map<number, number>();
  for (const file of files.filter((entry) => entry.isFile())) {
    // What a removal still takes away in the background may go between the listing and the look.
    const found = statSync(join(file.parentPath, file.name), { throwIfNoEntry: false });
    if (found !== undefined) seen.set(found.ino, found.size);
  }
  return [...seen.values()].reduce((sum, size) => sum + size, 0);
}

test("system df and image prune say what the disk says", async () => {
  await run("rm", "-f", "worked");
  const usage = async (): Promise<number> =>
    (await call<{ LayersSize: number }>(daemon.socket, "GET", "/system/df")).body!.LayersSize;
  const trash = join(daemon.dataRoot, "overlay2/trash");
  for (let round = 0; readdirSync(trash).length > 0 && round < 600; round += 1) await sleep(50);
  const before_ = { said: await usage(), real: bytesOnDisk() };
  // Links, manifests and configs are what they differ by.
  assert.ok(Math.abs(before_.said - before_.real) < 40_000, JSON.stringify(before_));
  const pruned = await call<{ SpaceReclaimed: number }>(
    daemon.socket,
    "POST",
    `/images/prune?filters=${encodeURIComponent('{"dangling":["false"]}')}`,
  );
  assert.equal(await usage(), before_.said - pruned.body!.SpaceReclaimed);
  assert.equal(await usage(), 0);
  // Files leave the disk in the background.
  for (let round = 0; bytesOnDisk() > 0 && round < 300; round += 1) await sleep(100);
  assert.equal(bytesOnDisk(), 0);
});
