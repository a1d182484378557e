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
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, before, test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import type { ImageId } from "#base/digest.ts";
import type { EngineEvent } from "#engine/events.ts";
import type { ImportRequest } from "#engine/image-import.ts";
import { stackOf } from "#image/image.ts";
import { busyboxLayout, pushLayout, tarOf, writeLayout } from "../peers/images.ts";
import { type PeerRegistry, startRegistry } from "../peers/registry.ts";
import { type ImageSetup, openImages, pull, statuses } from "./image-setup.ts";

/** Images from a real registry (Debian's docker-registry, filled by skopeo) on the real stores. */

let registry: PeerRegistry;
let threeLayers: string;

before(async () => {
  registry = await startRegistry();
  pushLayout(busyboxLayout(), `${registry.address}/library/busybox:latest`);
  threeLayers = mkdtempSync(join(tmpdir(), "skiff-three-"));
  const layer = (name: string, text: string): Buffer => {
    const folder = join(threeLayers, name);
    mkdirSync(folder);
    writeFileSync(join(folder, name), text);
    return tarOf(folder);
  };
  const shared = layer("shared", "shared layer");
  const layout = (name: string, tars: Buffer[]): void => {
    writeLayout(join(threeLayers, `layout-${name}`), tars, { Cmd: ["sh"], Labels: { name } });
    pushLayout(join(threeLayers, `layout-${name}`), `${registry.address}/t/${name}:1`);
  };
  layout("a", [shared, layer("a", "aaaa"), layer("z", "zz")]);
  layout("b", [shared, layer("b", "bbbbbb")]);
});

after(async () => {
  await registry[Symbol.asyncDispose]();
  rmSync(threeLayers, { recursive: true });
});

const list = (setup: ImageSetup, filters?: object): ReturnType<ImageSetup["images"]["list"]> =>
  setup.images.list({
    all: false,
    sharedSize: false,
    filters: filters === undefined ? undefined : JSON.stringify(filters),
  });

function record(setup: ImageSetup): { events: EngineEvent[]; stop: () => void } {
  const from = setup.events.recent().length;
  return {
    get events() {
      return setup.events.recent().slice(from);
    },
    stop: () => {},
  };
}

const removal = { force: false, prune: true };

test("a pull by tag, again, by digest, and what is shown of it", async () => {
  await using setup = await openImages();
  const name = `${registry.address}/library/busybox`;
  const first = await pull(setup, name);
  assert.deepEqual(
    first.flatMap((line) => (line.kind === "progress" && line.detail === undefined ? [line.action] : [])),
    ["Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"],
  );
  const digest = statuses(first)
    .find((line) => line.startsWith("Digest: "))!
    .slice("Digest: ".length);
  assert.deepEqual(statuses(first), [
    "Pulling from library/busybox",
    `Digest: ${digest}`,
    `Status: Downloaded newer image for ${name}:latest`,
  ]);
  assert.deepEqual(
    statuses(await pull(setup, name)).at(-1),
    `Status: Image is up to date for ${name}:latest`,
  );
  assert.deepEqual(
    statuses(await pull(setup, name, digest)).at(-1),
    `Status: Image is up to date for ${name}@${digest}`,
  );
  const [row] = list(setup);
  assert.deepEqual(row?.tags, [`${name}:latest`]);
  assert.deepEqual(row?.digests, [`${name}@${digest}`]);
  const id = row!.id;
  for (const way of [
    `${name}:latest`,
    `${name}@${digest}`,
    `${name}:ignored@${digest}`,
    id,
    id.slice(7),
    id.slice(7, 12),
    id.slice(0, 20),
  ]) {
    assert.equal(setup.images.store.resolve(way).id, id, way);
  }
  assert.throws(() => setup.images.store.resolve("nosuch"), {
    kind: "notFound",
    message: "No such image: nosuch:latest",
  });
  assert.throws(() => setup.images.store.resolve(`nosuch@${digest}`), {
    message: `No such image: nosuch@${digest}`,
  });
  assert.throws(() => setup.images.store.resolve("f".repeat(64)), {
    message: `No such image: sha256:${"f".repeat(64)}`,
  });
  const details = setup.images.inspect(name);
  assert.equal(details.config?.Cmd?.[0], "sh");
  const upper = details.driverData?.["UpperDir"] ?? "";
  assert.equal(lstatSync(join(upper, "bin/busybox")).isFile(), true);
  assert.deepEqual(readFileSync(join(upper, "bin/busybox")), readFileSync("/bin/busybox"));
  assert.deepEqual(
    setup.images.history(name).map(({ Id, CreatedBy }) => [Id, CreatedBy]),
    [[id, "layer 1"]],
  );
});

test("what was pulled is there after a restart, without the registry", async () => {
  const root = mkdtempSync(join(tmpdir(), "skiff-images-"));
  try {
    let id: string;
    {
      await using setup = await openImages({ root, keepRoot: true });
      await pull(setup, `${registry.address}/t/a`, "1");
      id = setup.images.store.list()[0]!.id;
    }
    await using setup = await openImages({ root, keepRoot: true });
    const image = setup.images.store.resolve(`${registry.address}/t/a:1`);
    assert.equal(image.id, id);
    assert.equal(stackOf(image).length, 3);
    assert.equal(image.config.config?.Labels?.["name"], "a");
    for (const key of stackOf(image)) assert.equal(existsSync(setup.snapshotter.pathOf(key)), true);
    for (const layer of image.layers) assert.equal(await setup.content.has(layer.blobDigest!), true);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});

test("a shared layer is not fetched twice, and stays until its last image goes", async () => {
  await using setup = await openImages();
  const [a, b] = [`${registry.address}/t/a`, `${registry.address}/t/b`];
  await pull(setup, a, "1");
  const second = await pull(setup, b, "1");
  assert.equal(
    second.filter((line) => line.kind === "progress" && line.action === "Already exists").length,
    1,
  );
  const image = setup.images.store.resolve(`${a}:1`);
  const shared = image.layers[0]!;
  const seen = record(setup);
  const removed = await setup.images.remove(`${a}:1`, removal);
  assert.deepEqual(
    removed.map((line) => Object.keys(line)[0]),
    ["Untagged", "Untagged", "Deleted", "Deleted", "Deleted"],
  );
  assert.deepEqual(removed.slice(2), [
    { Deleted: image.id },
    { Deleted: image.layers[2]!.chainId },
    { Deleted: image.layers[1]!.chainId },
  ]);
  assert.deepEqual(
    seen.events.map(({ action, actorId, attributes }) => [action, actorId, attributes["name"]]),
    [
      ["untag", image.id, image.id],
      ["untag", image.id, image.id],
      ["delete", image.id, image.id],
    ],
  );
  assert.equal(setup.snapshotter.has(shared.key), true);
  assert.equal(setup.snapshotter.has(image.layers[1]!.key), false);
  assert.equal(await setup.content.has(shared.blobDigest!), true);
  assert.equal(await setup.content.has(image.layers[1]!.blobDigest!), false);
  assert.equal((await setup.images.remove(`${b}:1`, removal)).length, 5);
  assert.deepEqual(setup.snapshotter.listLayers(), []);
  assert.deepEqual(await setup.content.list(), []);
});

test("tags: made, moved, removed one by one", async () => {
  await using setup = await openImages();
  const name = `${registry.address}/library/busybox`;
  await pull(setup, name);
  const { id } = setup.images.store.resolve(name);
  const seen = record(setup);
  await setup.images.tag(name, "bb", "");
  await setup.images.tag("bb", "me/bb", "v1");
  await setup.images.tag(id.slice(7, 19), "me/bb", "v2");
  assert.deepEqual(
    seen.events.map(({ action, attributes }) => [action, attributes["name"]]),
    [
      ["tag", "bb:latest"],
      ["tag", "me/bb:v1"],
      ["tag", "me/bb:v2"],
    ],
  );
  assert.deepEqual(
    setup.images.store.tagsOf(id),
    [`${name}:latest`, "bb:latest", "me/bb:v1", "me/bb:v2"].sort(),
  );
  assert.notEqual(setup.images.inspect("bb").lastTagTime, "0001-01-01T00:00:00Z");
  await assert.rejects(setup.images.tag("bb", "Bad", "x"), { message: /must be lowercase/ });
  await assert.rejects(setup.images.tag("bb", "x", "-bad"), { message: "invalid tag format" });
  await assert.rejects(setup.images.tag("nosuch", "x", ""), { message: "No such image: nosuch:latest" });
  await assert.rejects(setup.images.tag("bb", `x@${id}`, ""), {
    message: "refusing to create a tag with a digest reference",
  });
  await assert.rejects(setup.images.remove(id, removal), {
    kind: "conflict",
    message: `conflict: unable to delete ${id.slice(7, 19)} (must be forced) - image is referenced in multiple repositories`,
  });
  assert.deepEqual(await setup.images.remove("me/bb:v1", removal), [{ Untagged: "me/bb:v1" }]);
  assert.deepEqual(await setup.images.remove("bb", removal), [{ Untagged: "bb:latest" }]);
  // Another image takes over a name.
  await pull(setup, `${registry.address}/t/b`, "1");
  await setup.images.tag(`${registry.address}/t/b:1`, "me/bb", "v2");
  assert.deepEqual(setup.images.store.tagsOf(id), [`${name}:latest`]);
  const forced = await setup.images.remove(id, { force: true, prune: true });
  assert.deepEqual(forced.at(-2), { Deleted: id });
});

test("images in use are kept in Docker's words, and go with their last container", async () => {
  await using setup = await openImages();
  const name = `${registry.address}/t/a:1`;
  await pull(setup, `${registry.address}/t/a`, "1");
  const image = setup.images.store.resolve(name);
  const short = image.id.slice(7, 19);
  const container = "c".repeat(64);
  setup.users.set(image.id, [{ id: container, running: false }]);
  await assert.rejects(setup.images.remove(name, removal), {
    kind: "conflict",
    message: `conflict: unable to remove repository reference "${name}" (must force) - container ${container.slice(0, 12)} is using its referenced image ${short}`,
  });
  await assert.rejects(setup.images.remove(image.id, removal), {
    message: `conflict: unable to delete ${short} (must be forced) - image is being used by stopped container ${container.slice(0, 12)}`,
  });
  setup.users.set(image.id, [{ id: container, running: true }]);
  await assert.rejects(setup.images.remove(image.id, { force: true, prune: true }), {
    message: `conflict: unable to delete ${short} (cannot be forced) - image is being used by running container ${container.slice(0, 12)}`,
  });
  // By name and forced: the name goes, the image stays.
  const untagged = await setup.images.remove(name, { force: true, prune: true });
  assert.equal(
    untagged.every((line) => "Untagged" in line),
    true,
  );
  assert.equal(list(setup).length, 1);
  // Stopped and forced: gone for the user, kept for the container.
  setup.users.set(image.id, [{ id: container, running: false }]);
  assert.deepEqual(await setup.images.remove(image.id, { force: true, prune: true }), [
    { Deleted: image.id },
  ]);
  assert.equal(list(setup).length, 0);
  assert.throws(() => setup.images.store.resolve(image.id), { kind: "notFound" });
  assert.equal(setup.images.store.get(image.id)?.removed, true);
  assert.equal(existsSync(setup.snapshotter.pathOf(image.layers[0]!.key)), true);
  await setup.images.containerRemoved(image.id);
  assert.equal(setup.images.store.get(image.id)?.removed, true, "still used");
  setup.users.delete(image.id);
  await setup.images.containerRemoved(image.id);
  assert.equal(setup.images.store.get(image.id), undefined);
  assert.deepEqual(setup.snapshotter.listLayers(), []);
});

test("a removed image that a container needed comes back by a pull", async () => {
  await using setup = await openImages();
  await pull(setup, `${registry.address}/t/a`, "1");
  const { id } = setup.images.store.list()[0]!;
  setup.users.set(id, [{ id: "c".repeat(64), running: false }]);
  await setup.images.remove(id, { force: true, prune: true });
  await pull(setup, `${registry.address}/t/a`, "1");
  assert.equal(setup.images.store.resolve(`${registry.address}/t/a:1`).id, id);
  assert.equal(setup.images.store.get(id)?.removed, undefined);
});

test("a lease bridges the time until a container's row is there", async () => {
  await using setup = await openImages();
  await pull(setup, `${registry.address}/t/a`, "1");
  const image = setup.images.store.list()[0]!;
  const lease = setup.images.lease(image.id);
  await setup.images.remove(image.id, { force: true, prune: true });
  assert.equal(existsSync(setup.snapshotter.pathOf(image.layers[0]!.key)), true);
  await lease[Symbol.asyncDispose]();
  assert.equal(setup.images.store.get(image.id), undefined);
  assert.deepEqual(setup.snapshotter.listLayers(), []);
});

test("filters of the list", async () => {
  await using setup = await openImages();
  const [a, b] = [`${registry.address}/t/a`, `${registry.address}/t/b`];
  await pull(setup, a, "1");
  await pull(setup, b, "1");
  const repos = (filters?: object): string[] =>
    list(setup, filters)
      .flatMap(({ tags }) => tags)
      .sort();
  assert.deepEqual(repos(), [`${a}:1`, `${b}:1`]);
  assert.deepEqual(repos({ reference: [`${registry.address}/t/a`] }), [`${a}:1`]);
  assert.deepEqual(repos({ reference: [`${registry.address}/*/*:1`] }), [`${a}:1`, `${b}:1`]);
  assert.deepEqual(repos({ reference: { [`${b}:1`]: true } }), [`${b}:1`]);
  assert.deepEqual(repos({ label: ["name=a"] }), [`${a}:1`]);
  assert.deepEqual(repos({ label: ["name"] }).length, 2);
  assert.deepEqual(repos({ label: ["name=a", "name=b"] }), []);
  assert.deepEqual(repos({ dangling: ["true"] }), []);
  assert.deepEqual(repos({ dangling: ["false"] }).length, 2);
  assert.deepEqual(repos({ before: [`${a}:1`] }), []);
  assert.deepEqual(repos({ until: ["2020-01-01"] }), []);
  assert.deepEqual(repos({ until: ["1s"] }).length, 2);
  assert.throws(() => repos({ dangling: ["x"] }), {
    kind: "invalid",
    message: "invalid filter 'dangling=[x]'",
  });
  assert.throws(() => repos({ bad: ["x"] }), { kind: "invalid", message: "invalid filter 'bad'" });
  assert.throws(() => repos({ before: ["nosuch"] }), {
    kind: "notFound",
    message: "No such image: nosuch:latest",
  });
  const shared = setup.images.list({ all: false, sharedSize: true, filters: undefined });
  for (const row of shared) assert.equal(row.sharedSizeBytes, "shared layer".length);
});

function importRequest(bytes: Uint8Array, more: Partial<ImportRequest> = {}): ImportRequest {
  const body = Readable.from([bytes.subarray(0, 100), bytes.subarray(100)]);
  const empty = { source: "-", repository: "", tag: "", message: "", changes: [], platform: "" };
  return { ...empty, body, ...more };
}

async function importInto(setup: ImageSetup, request: ImportRequest): Promise<string> {
  const lines: string[] = [];
  await setup.images.import(
    request,
    (line) => {
      if (line.kind === "status") lines.push(line.status);
    },
    new AbortController().signal,
  );
  assert.match(lines.at(-1) ?? "", /^sha256:[0-9a-f]{64}$/);
  return lines.at(-1)!;
}

test("import: plain, gzip and zstd give the same layer; changes, message, names", async () => {
  await using setup = await openImages();
  const tar = readFileSync(execTar());
  const seen = record(setup);
  const plain = await importInto(setup, importRequest(tar));
  await importInto(setup, importRequest(gzipSync(tar), { repository: "imp", message: "hello" }));
  const zstd = await importInto(
    setup,
    importRequest(zstdCompressSync(tar), {
      repository: "imp",
      tag: "z",
      changes: ['CMD ["sh"]', "ENV A=1", "EXPOSE 80"],
      platform: "linux/arm64",
    }),
  );
  assert.equal(setup.snapshotter.listLayers().length, 1);
  assert.equal(setup.images.inspect("imp").comment, "hello");
  assert.equal(setup.images.inspect(plain).comment, "Imported from -");
  const details = setup.images.inspect("imp:z");
  assert.equal(details.id, zstd);
  assert.equal(details.architecture, "arm64");
  assert.deepEqual(details.config, { Cmd: ["sh"], Env: ["A=1"], ExposedPorts: { "80/tcp": {} } });
  assert.deepEqual(
    setup.images.history("imp:z").map(({ Comment }) => Comment),
    ["Imported from -"],
  );
  assert.deepEqual(
    seen.events.map(({ action }) => action),
    ["import", "import", "import"],
  );
  assert.equal(list(setup, { dangling: ["true"] }).map(({ id }) => id)[0], plain);
  const pruned = await setup.images.prune(undefined);
  assert.deepEqual(pruned.ImagesDeleted?.[0], { Deleted: plain });
  // Its layer is shared; the archive it came as, which packing the layer again would not give, is its own.
  assert.equal(pruned.SpaceReclaimed, tar.length);
  const all = await setup.images.prune(JSON.stringify({ dangling: { false: true } }));
  assert.equal(all.SpaceReclaimed > 0, true);
  assert.deepEqual(setup.images.store.listAll(), []);
  assert.deepEqual(setup.snapshotter.listLayers(), []);
  assert.deepEqual(readdirSync(join(setup.root, "tmp")), []);
});

function execTar(): string {
  const folder = join(threeLayers, "import");
  if (!existsSync(folder)) {
    mkdirSync(join(folder, "etc"), { recursive: true });
    writeFileSync(join(folder, "etc/motd"), "welcome");
    execFileSync("tar", ["-C", folder, "-cf", `${folder}.tar`, "etc/motd"]);
  }
  return `${folder}.tar`;
}

test("import: what is broken or refused leaves nothing", async () => {
  await using setup = await openImages();
  const tar = readFileSync(execTar());
  const bad: readonly (readonly [ImportRequest, RegExp])[] = [
    [importRequest(Buffer.from("this is no archive at all, only text".repeat(100))), /./],
    [importRequest(gzipSync(tar).subarray(0, 80)), /./],
    [importRequest(tar, { repository: "Bad" }), /must be lowercase/],
    [importRequest(tar, { repository: "a", tag: "-x" }), /invalid tag format/],
    [importRequest(tar, { repository: `a@sha256:${"a".repeat(64)}` }), /cannot import digest reference/],
    [importRequest(tar, { changes: ["RUN x"] }), /not a valid change command/],
    [importRequest(tar, { source: "file:///etc/passwd" }), /unsupported protocol scheme/],
    [importRequest(tar, { source: "http://127.0.0.1:1/x" }), /connection refused/],
    [importRequest(tar, { platform: "a/b/c/d" }), /platform/],
  ];
  for (const [request, message] of bad) await assert.rejects(importInto(setup, request), { message });
  const failing = Readable.from(
    (async function* () {
      yield tar.subarray(0, 700);
      throw new Error("client went away");
    })(),
  );
  await assert.rejects(importInto(setup, importRequest(tar, { body: failing })), /client went away/);
  assert.deepEqual(setup.images.store.listAll(), []);
  assert.deepEqual(setup.snapshotter.listLayers(), []);
  assert.deepEqual(await setup.content.list(), []);
  if (existsSync(join(setup.root, "tmp"))) assert.deepEqual(readdirSync(join(setup.root, "tmp")), []);
});

test("a start removes what a crash left and keeps what is used", async () => {
  const root = mkdtempSync(join(tmpdir(), "skiff-images-"));
  try {
    let kept: number;
    {
      await using setup = await openImages({ root, keepRoot: true });
      await pull(setup, `${registry.address}/t/a`, "1");
      kept = (await setup.content.list()).length;
      await setup.content.put(Buffer.from("nobody's"));
      const applied = await setup.snapshotter.apply({ source: { path: execTar() }, below: async () => [] });
      await setup.snapshotter.seal([applied]);
      assert.equal(setup.snapshotter.listLayers().length, 4);
    }
    await using setup = await openImages({ root, keepRoot: true });
    assert.equal(setup.snapshotter.listLayers().length, 3);
    assert.equal((await setup.content.list()).length, kept);
    assert.equal(setup.images.store.resolve(`${registry.address}/t/a:1`).layers.length, 3);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});

test("removal and pull of one image beside each other end in one of the two states", async () => {
  await using setup = await openImages();
  const name = `${registry.address}/t/a`;
  for (let turn = 0; turn < 15; turn += 1) {
    await pull(setup, name, "1");
    const removing = setup.images.remove(`${name}:1`, removal);
    const pulling = pull(setup, name, "1");
    await Promise.all([removing, pulling]);
    const image = setup.images.store.find(`${name}:1`);
    if (image === undefined) {
      // The removal was last: nothing of it may be left.
      assert.deepEqual(setup.images.store.listAll(), [], `turn ${turn}`);
      assert.deepEqual(setup.snapshotter.listLayers(), []);
      assert.deepEqual(await setup.content.list(), []);
      continue;
    }
    for (const layer of image.layers) {
      assert.equal(existsSync(setup.snapshotter.pathOf(layer.key)), true, `turn ${turn}`);
      assert.equal(await setup.content.has(layer.blobDigest!), true);
    }
    assert.equal(await setup.content.has(image.id as string as never), true);
    await setup.images.remove(image.id as ImageId, { force: true, prune: true });
    assert.deepEqual(setup.snapshotter.listLayers(), []);
  }
});
