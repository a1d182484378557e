import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import type { ImageId } from "#base/digest.ts";
import type { ImageLayer } from "#image/image.ts";
import { ensurePeers } from "../peers/peer-cache.ts";
import { type PeerRegistry, startRegistry } from "../peers/registry.ts";
import { endOfArchive, header } from "./hostile-bytes.ts";
import { type ImageSetup, openImages, pull } from "./image-setup.ts";
import { fillRegistry, importTar, load, never, save, tarWith, texts } from "./transfer-lab.ts";

/** Images through files: what is saved is loaded with equal digests, by us and by others, and nothing hostile gets far. */
const resources = new AsyncDisposableStack();
let registry: PeerRegistry;
let source: ImageSetup;
let folder: string;
let rich: string;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "skiff-save-"));
  resources.defer(() => rmSync(folder, { recursive: true }));
  registry = resources.use(await startRegistry());
  fillRegistry(registry.address);
  source = resources.use(await openImages());
  rich = `${registry.address}/t/rich`;
  await pull(source, rich, "1");
  await pull(source, rich, "2");
});

after(() => resources.disposeAsync());

function member(archive: Buffer, path: string): string {
  return execFileSync("tar", ["-xOf", "-", path], { input: archive, maxBuffer: 2 ** 28 }).toString();
}

function skopeo(...args: string[]): string {
  const peers = ensurePeers();
  return execFileSync(peers.path("skopeo"), ["--insecure-policy", ...args], {
    env: peers.env,
    encoding: "utf8",
  });
}

test("a pulled image keeps id, manifest and compressed layers from save to load", async () => {
  const archive = await save(source, [`${rich}:1`]);
  await using target = await openImages();
  assert.deepEqual(texts(await load(target, archive)), [`Loaded image: ${rich}:1`]);
  const [before_, after_] = [source, target].map(({ images }) => images.store.resolve(`${rich}:1`));
  assert.equal(after_!.id, before_!.id);
  assert.equal(after_!.manifestDigest, before_!.manifestDigest);
  assert.deepEqual(
    after_!.layers.map(({ diffId, blobDigest }) => [diffId, blobDigest]),
    before_!.layers.map(({ diffId, blobDigest }) => [diffId, blobDigest]),
  );
  assert.deepEqual(await save(target, [`${rich}:1`]), archive);
});

test("a bare name saves every tag, an id none; images share their layers in the archive", async () => {
  const local = await importTar(source, tarWith({ "a/b": "local" }));
  const archive = await save(source, [rich, local]);
  const listed = JSON.parse(member(archive, "manifest.json")) as { RepoTags: string[] | null }[];
  assert.deepEqual(
    listed.map(({ RepoTags }) => RepoTags),
    [[`${rich}:1`, `${rich}:2`], null],
  );
  await using target = await openImages();
  assert.deepEqual(texts(await load(target, archive)), [
    `Loaded image: ${rich}:1`,
    `Loaded image: ${rich}:2`,
    `Loaded image ID: ${local}`,
  ]);
  assert.deepEqual(texts(await load(target, archive)).length, 3);
  await source.images.remove(local, { force: true, prune: true });
  await assert.rejects(save(source, ["nope"]), { kind: "notFound", message: "No such image: nope" });
});

test("what is built here is packed again with the digest it was made with", async () => {
  const id = await importTar(source, tarWith({ "etc/x": "y".repeat(100_000), "z/q": "1" }), "local/x");
  const archive = await save(source, ["local/x"]);
  for (const form of [archive, gzipSync(archive), zstdCompressSync(archive)]) {
    await using target = await openImages();
    assert.deepEqual(texts(await load(target, form)), ["Loaded image: local/x:latest"]);
    assert.equal(target.images.store.resolve("local/x").id, id);
    assert.deepEqual(await save(target, ["local/x"]), archive);
  }
});

for (const program of ["xz", "bzip2"]) {
  const compress = (bytes: Buffer): Buffer =>
    execFileSync(program, ["-1c"], { input: bytes, maxBuffer: 2 ** 28 });

  test(`${program}: an archive, layers inside of one, and an import`, async () => {
    const archive = await save(source, [`${rich}:1`]);
    await using target = await openImages();
    assert.deepEqual(texts(await load(target, compress(archive))), [`Loaded image: ${rich}:1`]);
    // Made by GNU tar, so that our own packing gives other bytes, and by ours.
    const foreignTar = tarWith({ "a/b": "x".repeat(5000), "c d": "1" });
    const ownId = await importTar(target, foreignTar);
    const [{ key, diffId }] = target.images.store.resolve(ownId).layers as [ImageLayer];
    const ownTar = await buffer(target.snapshotter.layerTar(key));
    for (const tar of [foreignTar, ownTar]) {
      const tarId = `sha256:${hexOf(tar)}`;
      assert.equal(tarId === diffId, tar === foreignTar);
      await using imported = await openImages();
      await checkLayer(imported, await importTar(imported, compress(tar)), tar);
      await using loaded = await openImages();
      const parts = [
        file("c", config([tarId])),
        file("l", compress(tar)),
        manifestJson({ Config: "c", Layers: ["l"] }),
      ];
      const [line] = texts(await load(loaded, Buffer.concat([...parts, endOfArchive])));
      await checkLayer(loaded, line!.replace("Loaded image ID: ", ""), tar);
    }
  });
}

/** The image's one layer is this tar, goes out as it, and is kept in a form that a manifest can name. */
async function checkLayer(setup: ImageSetup, id: string, tar: Buffer): Promise<void> {
  const [layer] = setup.images.store.resolve(id).layers as [ImageLayer];
  assert.equal(layer.diffId, `sha256:${hexOf(tar)}`);
  assert.match(layer.mediaType ?? "none", /^none$|tar\+gzip$/);
  await using again = await openImages();
  assert.deepEqual(texts(await load(again, await save(setup, [id]))), [`Loaded image ID: ${id}`]);
  const kept = layer.blobDigest === undefined ? 0 : 1;
  assert.equal((await setup.content.list()).length, 1 + kept);
  assert.deepEqual(readdirSync(join(setup.root, "tmp")), []);
}

test("a tag that moves is told; the other image stays without it", async () => {
  await using target = await openImages();
  const first = await importTar(target, tarWith({ a: "1" }), "moves");
  const other = await importTar(source, tarWith({ a: "2" }), "moves");
  assert.deepEqual(texts(await load(target, await save(source, ["moves"]))), [
    `The image moves:latest already exists, renaming the old one with ID ${first} to empty string`,
    "Loaded image: moves:latest",
  ]);
  assert.equal(target.images.store.resolve("moves").id, other);
  assert.deepEqual(target.images.store.tagsOf(first), []);
});

test("others read our archives, and we read theirs", async () => {
  const ours = join(folder, "ours.tar");
  writeFileSync(ours, await save(source, [`${rich}:1`]));
  const { id } = source.images.store.resolve(`${rich}:1`);
  for (const transport of ["docker-archive", "oci-archive"]) {
    const raw = skopeo("inspect", "--config", "--raw", `${transport}:${ours}`);
    assert.equal(`sha256:${createHash("sha256").update(raw).digest("hex")}`, id, transport);
  }
  const layout = join(folder, "layout");
  skopeo("copy", "-q", `oci-archive:${ours}`, `oci:${layout}:v1`);
  execFileSync("tar", ["-C", layout, "-cf", join(folder, "layout.tar"), "."]);
  skopeo("copy", "-q", `oci-archive:${ours}`, `docker-archive:${join(folder, "classic.tar")}:classic/x:3`);
  const cases = [
    ["layout.tar", `Loaded image ID: ${id}`],
    ["classic.tar", "Loaded image: classic/x:3"],
  ] as const;
  for (const [name, line] of cases) {
    await using target = await openImages();
    assert.deepEqual(texts(await load(target, readFileSync(join(folder, name)))), [line]);
    assert.equal(target.images.store.get(id)?.layers.length, 3, name);
    const again = await save(target, [id]);
    await using third = await openImages();
    await load(third, again);
    assert.notEqual(third.images.store.get(id), undefined);
  }
});

test("umoci changes an image, and it loads", async () => {
  const layout = join(folder, "umoci");
  writeFileSync(join(folder, "u.tar"), await save(source, [`${rich}:1`]));
  skopeo("copy", "-q", `oci-archive:${join(folder, "u.tar")}`, `oci:${layout}:v1`);
  execFileSync(ensurePeers().path("umoci"), [
    "config",
    "--image",
    `${layout}:v1`,
    "--config.workingdir",
    "/w",
  ]);
  await using target = await openImages();
  const archive = execFileSync("tar", ["-C", layout, "-cf", "-", "."], { maxBuffer: 2 ** 28 });
  const [line] = texts(await load(target, archive));
  const id = line!.replace("Loaded image ID: ", "") as ImageId;
  assert.equal(target.images.store.get(id)?.config.config?.WorkingDir, "/w");
});

test("progress: bars for layers that are unpacked", async () => {
  await using target = await openImages();
  const lines = await load(target, await save(source, [`${rich}:1`]), { quiet: false });
  const bars = lines.filter((line) => line.kind === "progress");
  assert.equal(new Set(bars.map(({ id }) => id)).size, 3);
  assert.ok(bars.every(({ action }) => action === "Loading layer"));
});

/** A member of an archive. */
function file(path: string, bytes: Buffer | string): Buffer {
  const content = Buffer.from(bytes);
  const padding = Buffer.alloc((512 - (content.length % 512)) % 512);
  return Buffer.concat([header({ path: path as never, sizeBytes: content.length }), content, padding]);
}

const config = (diffIds: readonly string[]): string =>
  JSON.stringify({ architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids: diffIds } });
const hexOf = (bytes: Buffer | string): string => createHash("sha256").update(bytes).digest("hex");
const zeroId = `sha256:${"0".repeat(64)}`;

const layerTar = tarWith({ f: "content" });
const manifestJson = (entry: object): Buffer => file("manifest.json", JSON.stringify([entry]));
const layout = (index: unknown): Buffer[] => [
  file("oci-layout", '{"imageLayoutVersion":"1.0.0"}'),
  file("index.json", typeof index === "string" ? index : JSON.stringify(index)),
];

const hostile: readonly (readonly [string, readonly Buffer[], RegExp])[] = [
  ["no archive", [Buffer.from("root:x:0:0::/root:/bin/sh\n".repeat(40))], /archive\/tar: invalid tar header/],
  ["nothing in it", [file("x", "{}")], /does not contain a manifest\.json/],
  ["config outside", [manifestJson({ Config: "../../../etc/passwd", Layers: [] })], /archive has no file/],
  [
    "config is a link out",
    [
      header({ path: "c" as never, type: "symlink", linkPath: "/etc/passwd" as never }),
      manifestJson({ Config: "c" }),
    ],
    /archive has no file/,
  ],
  [
    "links in a circle",
    [
      header({ path: "a" as never, type: "symlink", linkPath: "b" as never }),
      header({ path: "b" as never, type: "symlink", linkPath: "a" as never }),
      manifestJson({ Config: "a" }),
    ],
    /archive has no file/,
  ],
  ["a member above the root", [file("../x", "y")], /outside of/],
  ["config of no image", [file("c", "[]"), manifestJson({ Config: "c" })], /image config is no object/],
  ["a key twice", [file("c", '{"os":"linux","os":"windows"}'), manifestJson({ Config: "c" })], /twice/],
  [
    "another layer than the config says",
    [file("c", config([zeroId])), file("l", layerTar), manifestJson({ Config: "c", Layers: ["l"] })],
    /layers from manifest don't match/,
  ],
  [
    "more layers than the config says",
    [file("c", config([])), file("l", layerTar), manifestJson({ Config: "c", Layers: ["l"] })],
    /layers length mismatch/,
  ],
  [
    "a bad tag",
    [file("c", config([])), manifestJson({ Config: "c", RepoTags: ["UPPER:1"], Layers: [] })],
    /must be lowercase/,
  ],
  [
    "index and manifest at once",
    layout({ schemaVersion: 2, manifests: [], layers: [] }),
    /more than one kind/,
  ],
  [
    "a blob with other bytes",
    [
      ...layout({
        schemaVersion: 2,
        manifests: [{ mediaType: "application/vnd.oci.image.manifest.v1+json", digest: zeroId, size: 2 }],
      }),
      file(`blobs/sha256/${"0".repeat(64)}`, "{}"),
    ],
    /has other bytes/,
  ],
  [
    "a digest with a path",
    layout({
      schemaVersion: 2,
      manifests: [
        { mediaType: "application/vnd.oci.image.manifest.v1+json", digest: "sha256:../x", size: 2 },
      ],
    }),
    /invalid checksum digest format/,
  ],
  [
    "128 layers",
    [
      file("c", config(Array.from({ length: 128 }, () => zeroId))),
      file("l", layerTar),
      manifestJson({ Config: "c", Layers: Array.from({ length: 128 }, () => "l") }),
    ],
    /max depth exceeded/,
  ],
  [
    "one large config named a thousand times",
    [
      file("c", `${config([]).slice(0, -1)},"x":"${"x".repeat(1_000_000)}"}`),
      file("manifest.json", JSON.stringify(Array.from({ length: 900 }, () => ({ Config: "c", Layers: [] })))),
    ],
    /documents of the archive are too large/,
  ],
  [
    "an index that names one manifest again and again",
    layout({
      schemaVersion: 2,
      manifests: Array.from({ length: 1001 }, () => ({
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        digest: zeroId,
        size: 2,
      })),
    }),
    /more than 1000 images/,
  ],
  [
    "a layer that climbs",
    [
      file("l", Buffer.concat([file("../../canary", "x"), endOfArchive])),
      file("c", config([`sha256:${hexOf(Buffer.concat([file("../../canary", "x"), endOfArchive]))}`])),
      manifestJson({ Config: "c", Layers: ["l"] }),
    ],
    /outside of/,
  ],
];

for (const [name, parts, expected] of hostile) {
  test(`refused, and nothing stays: ${name}`, async () => {
    await using target = await openImages();
    await assert.rejects(load(target, Buffer.concat([...parts, endOfArchive])), {
      kind: "invalid",
      message: expected,
    });
    assert.deepEqual(target.images.store.listAll(), []);
    assert.deepEqual(await target.content.list(), []);
    assert.deepEqual(target.snapshotter.listLayers(), []);
    assert.deepEqual(readdirSync(join(target.root, "tmp")), []);
    assert.deepEqual(readdirSync(join(target.root, "overlay2")).sort(), ["tmp", "trash"]);
  });
}

test("a body that breaks off leaves nothing", async () => {
  const archive = await save(source, [`${rich}:1`]);
  await using target = await openImages();
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield archive.subarray(0, archive.length / 2);
    throw new Error("client is gone");
  }
  await assert.rejects(load(target, broken()), /client is gone/);
  const aborted = AbortSignal.abort();
  await assert.rejects(load(target, archive, { signal: aborted }), { kind: "cancelled" });
  assert.deepEqual(await target.content.list(), []);
  assert.deepEqual(readdirSync(join(target.root, "tmp")), []);
});

test("a reader that goes away lets go of what it held", async () => {
  const stream = await source.images.save([`${rich}:1`], never);
  for await (const _chunk of stream) break;
  const unread = await source.images.save([`${rich}:2`], never);
  unread.destroy();
  await new Promise((resolve) => unread.once("close", resolve));
  await source.images.remove(`${rich}:1`, { force: false, prune: true });
  await pull(source, rich, "1");
});
