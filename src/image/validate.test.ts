import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { EngineError } from "#base/errors.ts";
import { mediaTypes } from "#wire/oci-image.ts";
import { checkLayersMatch, parseImageConfig, parseManifest } from "./validate.ts";

const digest = `sha256:${"a".repeat(64)}`;
const other = `sha256:${"b".repeat(64)}`;
const config = { mediaType: mediaTypes.ociConfig, digest, size: 2 };
const layer = { mediaType: mediaTypes.ociLayerGzip, digest: other, size: 10 };
const manifest = { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers: [layer] };
const index = {
  schemaVersion: 2,
  mediaType: mediaTypes.ociIndex,
  manifests: [
    { mediaType: mediaTypes.ociManifest, digest, size: 5, platform: { os: "linux", architecture: "amd64" } },
  ],
};

const bytes = (value: unknown): Buffer =>
  Buffer.from(typeof value === "string" ? value : JSON.stringify(value));

test("manifests and indexes of both families", () => {
  assert.equal(parseManifest(bytes(manifest), mediaTypes.ociManifest).kind, "manifest");
  assert.equal(parseManifest(bytes(index), mediaTypes.ociIndex).kind, "index");
  assert.equal(
    parseManifest(bytes({ ...manifest, mediaType: undefined }), mediaTypes.ociManifest).kind,
    "manifest",
  );
  assert.equal(
    parseManifest(bytes({ ...manifest, mediaType: undefined }), "application/json").kind,
    "manifest",
  );
  assert.equal(parseManifest(bytes(index), "").kind, "index");
  const docker = {
    schemaVersion: 2,
    mediaType: mediaTypes.dockerManifest,
    config: { ...config, mediaType: mediaTypes.dockerConfig },
    layers: [{ ...layer, mediaType: mediaTypes.dockerLayerGzip }],
  };
  assert.equal(parseManifest(bytes(docker), mediaTypes.dockerManifest).kind, "manifest");
});

/** Each is refused: what it is, the document, and the registry's Content-Type. */
const refused: readonly (readonly [string, unknown, string])[] = [
  ["both kinds at once", { ...manifest, manifests: index.manifests }, mediaTypes.ociManifest],
  ["both kinds at once, as an index", { ...index, layers: [] }, mediaTypes.ociIndex],
  ["both kinds at once, config only", { ...index, config }, mediaTypes.ociIndex],
  ["schema 1 layers beside", { ...manifest, fsLayers: [] }, mediaTypes.ociManifest],
  ["own media type differs", manifest, mediaTypes.ociIndex],
  ["own media type differs within a kind", manifest, mediaTypes.dockerManifest],
  ["an index called a manifest", { ...index, mediaType: undefined }, mediaTypes.ociManifest],
  ["a manifest called an index", { ...manifest, mediaType: undefined }, mediaTypes.ociIndex],
  [
    "schema 1",
    { schemaVersion: 1, fsLayers: [] },
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
  ],
  ["schema 1 by its version", { schemaVersion: 1 }, "application/json"],
  ["no version", { ...manifest, schemaVersion: undefined }, mediaTypes.ociManifest],
  ["version as text", { ...manifest, schemaVersion: "2" }, mediaTypes.ociManifest],
  ["an unknown type", manifest, "application/vnd.example+json"],
  ["an HTML page", "<html>", "text/html"],
  [
    "a double key",
    JSON.stringify(manifest).replace('"config"', '"layers":[],"config"'),
    mediaTypes.ociManifest,
  ],
  [
    "a double key by escapes",
    JSON.stringify(manifest).replace('"config"', '"l\\u0061yers":[],"config"'),
    mediaTypes.ociManifest,
  ],
  [
    "a double key below",
    JSON.stringify(manifest).replace('"size":10', '"size":10,"size":11'),
    mediaTypes.ociManifest,
  ],
  ["a twin in another case", { ...manifest, Layers: [] }, mediaTypes.ociManifest],
  ["a twin in a descriptor", { ...manifest, config: { ...config, Digest: other } }, mediaTypes.ociManifest],
  ["no config", { ...manifest, config: undefined }, mediaTypes.ociManifest],
  [
    "a config that is none",
    { ...manifest, config: { ...config, mediaType: "application/vnd.cncf.helm.config.v1+json" } },
    mediaTypes.ociManifest,
  ],
  [
    "layers that are none",
    { ...manifest, layers: [{ ...layer, mediaType: "text/plain" }] },
    mediaTypes.ociManifest,
  ],
  ["layers as an object", { ...manifest, layers: {} }, mediaTypes.ociManifest],
  [
    "too many layers",
    { ...manifest, layers: Array.from({ length: 128 }, () => layer) },
    mediaTypes.ociManifest,
  ],
  ["a layer of 10 TB", { ...manifest, layers: [{ ...layer, size: 1e13 }] }, mediaTypes.ociManifest],
  ["a config of 1 GB", { ...manifest, config: { ...config, size: 1e9 } }, mediaTypes.ociManifest],
  ["a negative size", { ...manifest, layers: [{ ...layer, size: -1 }] }, mediaTypes.ociManifest],
  ["a fraction", { ...manifest, layers: [{ ...layer, size: 1.5 }] }, mediaTypes.ociManifest],
  ["a huge size", { ...manifest, layers: [{ ...layer, size: 1e300 }] }, mediaTypes.ociManifest],
  ["a size as text", { ...manifest, layers: [{ ...layer, size: "10" }] }, mediaTypes.ociManifest],
  [
    "an index too long",
    { ...index, manifests: Array.from({ length: 1025 }, () => index.manifests[0]) },
    mediaTypes.ociIndex,
  ],
  ["null", "null", mediaTypes.ociManifest],
  ["an array", "[]", mediaTypes.ociManifest],
  ["nothing", "", mediaTypes.ociManifest],
  ["more behind it", `${JSON.stringify(manifest)} {}`, mediaTypes.ociManifest],
  ["deep nesting", `${'{"a":'.repeat(5000)}1${"}".repeat(5000)}`, mediaTypes.ociManifest],
  ["very deep nesting", "[".repeat(1_000_000), mediaTypes.ociManifest],
  ["too large", `${" ".repeat(4 * 1024 * 1024)}{}`, mediaTypes.ociManifest],
];

test("documents that could be read in two ways, or are none, are refused", () => {
  for (const [what, document, type] of refused) {
    assert.throws(
      () => parseManifest(bytes(document), type),
      (error) => error instanceof EngineError && error.kind === "invalid",
      what,
    );
  }
  const invalid = Buffer.from(JSON.stringify(manifest));
  invalid[20] = 0xff;
  assert.throws(() => parseManifest(invalid, mediaTypes.ociManifest), EngineError);
});

test("digests that are none are refused wherever they stand", () => {
  const evil = [
    "sha256:../x",
    "sha256:../../../../etc/passwd",
    `sha256:${"A".repeat(64)}`,
    `sha256:${"a".repeat(63)}`,
    `sha256:${"a".repeat(65)}`,
    `sha256:${"a".repeat(64)}\0`,
    `sha256:${"a".repeat(64)}\n`,
    `\0sha256:${"a".repeat(64)}`,
    `sha512:${"a".repeat(128)}`,
    `md5:${"a".repeat(32)}`,
    "a".repeat(64),
    "",
    null,
    5,
    {},
  ];
  for (const text of evil) {
    const bad = { ...layer, digest: text };
    assert.throws(
      () => parseManifest(bytes({ ...manifest, layers: [bad] }), mediaTypes.ociManifest),
      EngineError,
    );
    assert.throws(() =>
      parseManifest(bytes({ ...manifest, config: { ...config, digest: text } }), mediaTypes.ociManifest),
    );
    assert.throws(
      () => parseManifest(bytes({ ...index, manifests: [bad] }), mediaTypes.ociIndex),
      EngineError,
    );
    assert.throws(() => parseImageConfig(bytes({ os: "linux", rootfs: { diff_ids: [text] } })), EngineError);
  }
});

test("addresses in descriptors are read over", () => {
  const foreign = { ...layer, urls: ["http://169.254.169.254/x"] };
  const parsed = parseManifest(bytes({ ...manifest, layers: [foreign] }), mediaTypes.ociManifest);
  assert.equal(parsed.kind === "manifest" && "urls" in parsed.manifest.layers[0]!, false);
});

test("image configs", () => {
  const good = { architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids: [digest] } };
  assert.deepEqual(parseImageConfig(bytes(good)).rootfs.diff_ids, [digest]);
  assert.equal(parseImageConfig(bytes({})).os, "linux");
  const bad: readonly unknown[] = [
    { ...good, Rootfs: {} },
    { ...good, rootfs: { diff_ids: {} } },
    { ...good, rootfs: { diff_ids: [digest], Diff_ids: [] } },
    { ...good, rootfs: { diff_ids: Array.from({ length: 128 }, () => digest) } },
    { ...good, os: 5 },
    { ...good, config: [] },
    { ...good, config: { Env: "A=b" } },
    { ...good, config: { Env: [5] } },
    { ...good, config: { Cmd: ["a\0b"] } },
    { ...good, config: { env: ["A=b"] } },
    { ...good, config: { Labels: { a: 5 } } },
    { ...good, config: { Volumes: ["/a"] } },
    { ...good, config: { User: {} } },
    { ...good, history: {} },
    { ...good, history: [5] },
    { ...good, history: [{ empty_layer: "yes" }] },
  ];
  for (const value of bad)
    assert.throws(() => parseImageConfig(bytes(value)), EngineError, JSON.stringify(value));
  const parsed = parseManifest(bytes(manifest), mediaTypes.ociManifest);
  assert.ok(parsed.kind === "manifest");
  assert.throws(() => checkLayersMatch(parsed.manifest, parseImageConfig(bytes({}))), {
    message: "layers from manifest don't match image configuration",
  });
  assert.throws(
    () => checkLayersMatch(parsed.manifest, parseImageConfig(bytes({ ...good, os: "windows" }))),
    {
      message: 'image operating system "windows" cannot be used on this platform',
    },
  );
});

test("keys that touch prototypes are inert", () => {
  const text = `{"schemaVersion":2,"__proto__":{"config":1},"constructor":{},${JSON.stringify(manifest).slice(19)}`;
  assert.equal(parseManifest(bytes(text), mediaTypes.ociManifest).kind, "manifest");
  assert.equal(({} as { config?: unknown }).config, undefined);
});

test("mutated documents never do more than throw our error", () => {
  const seeds = [JSON.stringify(manifest), JSON.stringify(index)];
  fc.assert(
    fc.property(
      fc.constantFrom(...seeds),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }),
      fc.constantFrom(mediaTypes.ociManifest, mediaTypes.ociIndex, mediaTypes.dockerManifest, ""),
      (seed, changes, type) => {
        const document = Buffer.from(seed);
        for (const [at, value] of changes) document[at % document.length] = value;
        for (const parse of [() => parseManifest(document, type), () => parseImageConfig(document)]) {
          try {
            parse();
          } catch (error) {
            assert.ok(error instanceof EngineError && error.kind === "invalid", String(error));
          }
        }
      },
    ),
    { numRuns: 20_000 },
  );
});
