import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import type { Digest } from "#base/digest.ts";
import { pushLayout, writeLayout } from "../peers/images.ts";
import { ensurePeers } from "../peers/peer-cache.ts";
import { type PeerRegistry, startRegistry } from "../peers/registry.ts";
import { type ImageSetup, openImages, pull, statuses } from "./image-setup.ts";
import { blobOf, imageOf, ociManifest, type ScriptedImage, ScriptedRegistry } from "./scripted-registry.ts";
import { fillRegistry, importTar, lastActions, load, push, save, tarWith } from "./transfer-lab.ts";

/** Pushes to Debian's docker-registry: digests, what is sent and what is not, and what is remembered. */
const resources = new AsyncDisposableStack();
const htpasswd = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
let registry: PeerRegistry;
let closed: PeerRegistry;
let setup: ImageSetup;

before(async () => {
  [registry, closed] = await Promise.all([startRegistry(), startRegistry({ htpasswd })]);
  resources.use(registry);
  resources.use(closed);
  fillRegistry(registry.address);
  setup = resources.use(await openImages());
  await pull(setup, `${registry.address}/t/rich`, "1");
});

after(() => resources.disposeAsync());

function digestAt(reference: string): string {
  const peers = ensurePeers();
  const argv = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}", `docker://${reference}`];
  return execFileSync(peers.path("skopeo"), argv, { env: peers.env, encoding: "utf8" }).trim();
}

async function tagged(repository: string, from = `${registry.address}/t/rich:1`, tag = ""): Promise<string> {
  const name = `${registry.address}/${repository}`;
  await setup.images.tag(from, name, tag);
  return name;
}

test("a pulled image goes back with the digest it came with; layers elsewhere in the registry are mounted", async () => {
  const name = await tagged("copy/one");
  const lines = await push(setup, name);
  assert.equal(statuses(lines)[0], `The push refers to repository [${name}]`);
  assert.deepEqual(new Set(lastActions(lines)), new Set(["Mounted from t/rich"]));
  const digest = digestAt(`${registry.address}/t/rich:1`);
  assert.equal(digestAt(`${name}:latest`), digest);
  assert.match(statuses(lines).at(-1)!, new RegExp(`^latest: digest: ${digest} size: \\d+$`));
  const aux = lines.find((line) => line.kind === "aux")?.aux as { Tag: string; Digest: string; Size: number };
  assert.deepEqual([aux.Tag, aux.Digest], ["latest", digest]);
  assert.ok(setup.images.store.digestsOf(setup.images.store.resolve(name).id).includes(`${name}@${digest}`));
});

/** The forms a layer is published in, and the two families of media types. */
const forms: readonly (readonly [string, string, (tar: Buffer) => Buffer])[] = [
  ["OCI, gzip", "application/vnd.oci.image.layer.v1.tar+gzip", (tar) => gzipSync(tar)],
  ["OCI, zstd", "application/vnd.oci.image.layer.v1.tar+zstd", (tar) => zstdCompressSync(tar)],
  ["OCI, plain", "application/vnd.oci.image.layer.v1.tar", (tar) => tar],
  ["schema 2, gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip", (tar) => gzipSync(tar)],
  ["schema 2, plain", "application/vnd.docker.image.rootfs.diff.tar", (tar) => tar],
  [
    "schema 2, xz",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    (tar) => execFileSync("xz", ["-c"], { input: tar }),
  ],
  [
    "schema 2, bzip2",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    (tar) => execFileSync("bzip2", ["-c"], { input: tar }),
  ],
];

function imageIn(tar: Buffer, layerType: string, compress: (tar: Buffer) => Buffer): ScriptedImage {
  const isOci = layerType.includes(".oci.");
  const layer = blobOf(compress(tar));
  const { config } = imageOf([tar]);
  const mediaType = isOci ? ociManifest : "application/vnd.docker.distribution.manifest.v2+json";
  const configType = isOci
    ? "application/vnd.oci.image.config.v1+json"
    : "application/vnd.docker.container.image.v1+json";
  const document = {
    schemaVersion: 2,
    mediaType,
    config: { mediaType: configType, digest: config.digest, size: config.bytes.length },
    layers: [{ mediaType: layerType, digest: layer.digest, size: layer.bytes.length }],
  };
  const manifest = blobOf(Buffer.from(JSON.stringify(document)));
  const blobs = new Map([layer, config].map(({ digest, bytes }) => [digest, bytes]));
  return { blobs, layers: [layer], config, manifest };
}

test("digests are kept from a pull to a push elsewhere, in every form of layers", async () => {
  await using from = await ScriptedRegistry.start();
  await using own = await openImages();
  for (const [index, [name, layerType, compress]] of forms.entries()) {
    const image = imageIn(tarWith({ [`form/${index}`]: name.repeat(2000) }), layerType, compress);
    from.serve("latest", image);
    const mediaType = (JSON.parse(image.manifest.bytes.toString()) as { mediaType: string }).mediaType;
    for (const key of ["latest", image.manifest.digest])
      from.manifests.set(key, { type: mediaType, bytes: image.manifest.bytes });
    await pull(own, `${from.address}/form`);
    const copy = `${registry.address}/form/copy${index}`;
    await own.images.tag(`${from.address}/form`, copy, "");
    assert.deepEqual(lastActions(await push(own, copy)), ["Pushed"], name);
    assert.equal(digestAt(`${copy}:latest`), image.manifest.digest, name);
  }
});

test("digests are kept, too, where the layer was here in another form when the image came", async () => {
  const layer = tarWith({ "again/file": "y".repeat(60_000) });
  await using own = await openImages();
  await importTar(own, layer, "again");
  const first = `${registry.address}/again/first`;
  await own.images.tag("again", first, "");
  await push(own, first);
  const digest = digestAt(`${first}:latest`);
  // Another machine that has the files of the layer, but not its archive.
  await using other = await openImages();
  await importTar(other, layer, "files");
  const lines = await pull(other, first);
  assert.deepEqual(lastActions(lines), ["Already exists"]);
  assert.deepEqual(lastActions(await push(other, first)), ["Layer already exists"]);
  assert.equal(digestAt(`${first}:latest`), digest);
  await using elsewhere = await ScriptedRegistry.start();
  const copy = `${closed.address}/again/copy`;
  await other.images.tag(first, copy, "");
  const auth = { username: "user", password: "secret" };
  assert.ok(
    statuses(await push(other, copy, { auth }))
      .at(-1)!
      .includes(digest),
  );
  // And one that has it as zstd: the registry that the image came from has its own.
  elsewhere.serve("latest", imageIn(layer, forms[1]![1], forms[1]![2]));
  await using third = await openImages();
  await pull(third, `${elsewhere.address}/zstd`);
  await pull(third, first);
  assert.deepEqual(lastActions(await push(third, first)), ["Layer already exists"]);
  assert.equal(digestAt(`${first}:latest`), digest);
  assert.match(third.images.store.resolve(first).layers[0]!.mediaType!, /zstd$/);
});

test("pushed again, nothing is sent", async () => {
  const lines = await push(setup, await tagged("copy/one"));
  assert.deepEqual(new Set(lastActions(lines)), new Set(["Layer already exists"]));
});

test("an image made here is compressed once and remembered; others pull and run the same", async () => {
  const id = await importTar(setup, tarWith({ "a/b": "x".repeat(300_000), c: "1" }), "made");
  const name = await tagged("made/here", "made");
  assert.equal(setup.images.store.get(id)!.layers[0]!.blobDigest === undefined, false);
  const first = await push(setup, name);
  assert.deepEqual(lastActions(first), ["Pushed"]);
  const { layers, manifestDigest } = setup.images.store.get(id)!;
  assert.notEqual(layers[0]!.blobDigest as string, layers[0]!.diffId as string);
  assert.equal(manifestDigest, digestAt(`${name}:latest`) as Digest);
  const again = await push(setup, await tagged("made/again", "made"));
  assert.deepEqual(lastActions(again), ["Mounted from made/here"]);
  assert.equal(digestAt(`${registry.address}/made/again:latest`), manifestDigest);
  await using other = await openImages();
  await pull(other, name);
  assert.equal(other.images.store.resolve(name).id, id);
  assert.deepEqual(readdirSync(join(setup.root, "tmp")), []);
});

test("an image from a file of plain layers is compressed on its way", async () => {
  await using other = await openImages();
  await load(other, await save(setup, ["made"]));
  await using plain = await openImages();
  const id = await importTar(plain, tarWith({ a: "b".repeat(50_000) }), "p");
  const archive = await save(plain, ["p"]);
  await load(other, archive);
  await other.images.tag("p", `${registry.address}/plain/p`, "");
  await push(other, `${registry.address}/plain/p`);
  assert.match(other.images.store.get(id)!.layers[0]!.mediaType!, /gzip$/);
  assert.deepEqual(
    (await other.content.list()).filter(
      (digest) => (digest as string) === other.images.store.get(id)!.layers[0]!.diffId,
    ),
    [],
  );
});

test("a layer that was here already is not lost with the image that brought its archive", async () => {
  // GNU tar's bytes, which packing the directory again would not give.
  const layer = tarWith({ "shared/file": "y".repeat(40_000) });
  const layout = mkdtempSync(join(tmpdir(), "skiff-shared-"));
  const name = `${registry.address}/shared/pulled`;
  try {
    const id = writeLayout(layout, [layer], { Labels: { other: "image" } });
    pushLayout(layout, `${name}:latest`);
    await using other = await openImages();
    await importTar(other, layer, "first");
    await pull(other, name);
    await other.images.remove("first", { force: false, prune: true });
    assert.equal(other.images.store.resolve(name).id, id);
    const copy = `${registry.address}/shared/copy`;
    await other.images.tag(name, copy, "");
    assert.deepEqual(lastActions(await push(other, copy)), ["Pushed"]);
    await using third = await openImages();
    await load(third, await save(other, [name]));
    assert.equal(third.images.store.resolve(name).id, id);
  } finally {
    rmSync(layout, { recursive: true });
  }
});

test("all tags of a repository", async () => {
  await tagged("many/t", undefined, "b");
  const name = await tagged("many/t", undefined, "a");
  const lines = await push(setup, name, { tag: "" });
  const digests = statuses(lines).filter((line) => line.includes(": digest: "));
  assert.deepEqual(
    digests.map((line) => line.split(":")[0]),
    ["a", "b"],
  );
});

test("what cannot be pushed", async () => {
  const cases = [
    [
      `${registry.address}/no/such`,
      {
        kind: "notFound",
        message: `An image does not exist locally with the tag: ${registry.address}/no/such`,
      },
    ],
    [`${registry.address}/x@sha256:${"0".repeat(64)}`, { kind: "invalid" }],
  ] as const;
  for (const [name, expected] of cases) await assert.rejects(push(setup, name), expected);
  const gone = `127.0.0.1:1/x`;
  await setup.images.tag("made", gone, "");
  await assert.rejects(push(setup, gone), {
    message: /^Get "http:\/\/127\.0\.0\.1:1\/v2\/": dial tcp 127\.0\.0\.1:1: connect: connection refused$/,
  });
});

test("a registry that asks who we are", async () => {
  const name = `${closed.address}/x/made`;
  await setup.images.tag("made", name, "");
  await assert.rejects(push(setup, name), { message: /no basic auth credentials$/ });
  const wrong = { username: "user", password: "wrong" };
  await assert.rejects(push(setup, name, { auth: wrong }), {
    message: /unauthorized: authentication required/,
  });
  const auth = { username: "user", password: "secret" };
  assert.deepEqual(lastActions(await push(setup, name, { auth })), ["Pushed"]);
  const login = (password: string): Promise<string> =>
    setup.images.login(
      { username: "user", password, identityToken: "", serverAddress: closed.address },
      new AbortController().signal,
    );
  assert.equal(await login("secret"), "");
  await assert.rejects(login("wrong"), {
    kind: "unauthorized",
    message: `login attempt to http://${closed.address}/v2/ failed with status: 401 Unauthorized`,
  });
  const header = Buffer.from(JSON.stringify(auth)).toString("base64url");
  const found = await setup.images.distribution(name, header, new AbortController().signal);
  assert.deepEqual(found.platforms, [{ architecture: "amd64", os: "linux" }]);
  await assert.rejects(
    setup.images.distribution(`${registry.address}/no/x`, undefined, new AbortController().signal),
    {
      kind: "notFound",
    },
  );
});
