import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { test } from "node:test";
import { Client, diskBytes, run, type Served, serve, skiff, temporaryFolder } from "./registry-server-lab.ts";

/** Garbage collection of a registry that is being served: nothing that was acknowledged is lost, and space comes back. */

interface Report {
  readonly dryRun: boolean;
  readonly manifests: number;
  readonly links: number;
  readonly blobs: number;
  readonly bytes: number;
}

async function collect(server: Served, ...flags: string[]): Promise<Report> {
  const { code, out, err } = await run(skiff, ["registry", "gc", "--root", server.root, ...flags]);
  assert.equal(code, 0, err);
  return JSON.parse(out) as Report;
}

const rounds = process.env["SKIFF_PROVE"] === undefined ? 12 : 300;

test("pushes, deletes and collections side by side: every pushed image stays whole", async () => {
  await using stack = new AsyncDisposableStack();
  const flags = [
    "--gc-interval",
    "20ms",
    "--gc-grace",
    "100ms",
    "--gc-delete-untagged",
    "--access-log",
    "off",
  ];
  const server = stack.use(await serve(temporaryFolder(stack), ...flags));
  // So short a grace takes blobs from under a slow push: that push is refused and repeated, never acknowledged.
  // A layer that all images share and that no image holds now and then: the one a careless collection would take.
  const shared = randomBytes(200_000);
  const work = async (worker: number): Promise<void> => {
    const client = new Client(server.address, `work/${worker % 2}`);
    for (let round = 0; round < rounds; round += 1) {
      const tag = `${worker}-${round}`;
      const digest = await client.push(tag, [shared, randomBytes(50_000)]);
      await client.pull(tag);
      if (round % 3 === 0) continue;
      // Overwritten, the first one is garbage; deleted, both are.
      if (round % 3 === 1) await client.push(tag, [shared, randomBytes(1000)]);
      else assert.equal((await client.ask("DELETE", `/manifests/${digest}`)).status, 202);
    }
  };
  await Promise.all([0, 1, 2, 3].map(work));
  for (const worker of [0, 1, 2, 3]) {
    const client = new Client(server.address, `work/${worker % 2}`);
    for (let round = 0; round < rounds; round += 1) {
      if (round % 3 !== 2) await client.pull(`${worker}-${round}`);
      else assert.equal((await client.ask("HEAD", `/manifests/${worker}-${round}`)).status, 404);
    }
  }
  const reports = server
    .log()
    .split("\n")
    .filter((line) => line.includes("garbage was collected"))
    .map((line) => JSON.parse(line) as Report);
  // It collected in the midst of it, and not only once everybody was done.
  assert.ok(reports.filter(({ blobs }) => blobs > 0).length > 3, server.log());
  assert.doesNotMatch(server.log(), /"level":"error"/);
  assert.equal(await server.stop(), 0);
});

test("space comes back: measured on the disk, foreseen by a dry run, with and without a server", async () => {
  await using stack = new AsyncDisposableStack();
  const server = stack.use(await serve(temporaryFolder(stack)));
  const client = new Client(server.address, "a/b");
  const other = new Client(server.address, "c/d");
  const shared = randomBytes(1_000_000);
  await client.push("old", [shared, randomBytes(3_000_000)]);
  await client.push("old", [shared, randomBytes(2_000_000)]);
  await other.push("kept", [shared]);
  const content = join(server.root, "content");
  const full = diskBytes(content);
  assert.ok(full > 6_000_000);

  // Within the grace, and without --delete-untagged, nothing is garbage.
  assert.deepEqual(
    await collect(server, "--delete-untagged").then(({ blobs, manifests }) => [blobs, manifests]),
    [0, 0],
  );
  assert.equal((await collect(server, "--grace", "0")).blobs, 0);
  const foreseen = await collect(server, "--grace", "0", "--delete-untagged", "--dry-run");
  assert.deepEqual([foreseen.dryRun, foreseen.manifests], [true, 1]);
  assert.equal(diskBytes(content), full);

  const report = await collect(server, "--grace", "0", "--delete-untagged");
  assert.equal(report.manifests, 1);
  assert.ok(report.bytes >= 3_000_000, JSON.stringify(report));
  assert.ok(full - diskBytes(content) >= 3_000_000);
  await client.pull("old");
  await other.pull("kept");

  // Deleted images are garbage without being asked for untagged ones; their shared layer stays for the other repository.
  const digest = (await client.ask("HEAD", "/manifests/old")).headers.get("docker-content-digest")!;
  assert.equal((await client.ask("DELETE", `/manifests/${digest}`)).status, 202);
  assert.equal(await server.stop(), 0);
  const before = diskBytes(content);
  const foreseenAlone = await collect(server, "--dry-run");
  const alone = await collect(server);
  assert.deepEqual([foreseenAlone.blobs, foreseenAlone.bytes], [alone.blobs, alone.bytes]);
  assert.ok(before - diskBytes(content) >= 2_000_000);
  const again = stack.use(await serve(join(server.root, "..")));
  await new Client(again.address, "c/d").pull("kept");
  assert.equal((await new Client(again.address, "a/b").ask("HEAD", "/manifests/old")).status, 404);
});

test("who asks where there is nothing to ask", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = temporaryFolder(stack);
  const missing = ["--root", join(folder, "none")];
  for (const [args, message] of [
    [["gc", ...missing], /^skiff registry: root .*none: no such file or directory\n$/],
    [["status", ...missing], /no such file or directory\n$/],
    [["status", "--root", folder], /^skiff registry: no registry server runs on the root .*\n$/],
    [["gc", "--root", folder, "--grace", "soon"], /^skiff registry: grace "soon" is no time/],
  ] as const) {
    const { code, err } = await run(skiff, ["registry", ...args]);
    assert.deepEqual([code, message.test(err)], [1, true], err);
  }
});
