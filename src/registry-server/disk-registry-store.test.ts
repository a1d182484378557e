import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { digestOf, hexOf } from "#base/digest.ts";
import { silentLog } from "#base/log.ts";
import { mediaTypes } from "#wire/oci-image.ts";
import { DiskRegistryStore } from "./disk-registry-store.ts";
import { readManifest } from "./manifest-document.ts";
import type { RegistryDigest } from "./registry-store.ts";

class Lab implements AsyncDisposable {
  readonly root = mkdtempSync(join(tmpdir(), "skiff-store-"));
  store!: DiskRegistryStore;
  #next = 0;

  static async open(): Promise<Lab> {
    const lab = new Lab();
    lab.store = await DiskRegistryStore.open(lab.root, silentLog);
    return lab;
  }

  async reopen(): Promise<void> {
    await this.store[Symbol.asyncDispose]();
    this.store = await DiskRegistryStore.open(this.root, silentLog);
  }

  async blob(repository: string, text: string): Promise<RegistryDigest> {
    this.#next += 1;
    const path = join(this.root, "uploads", `direct-${this.#next}`);
    writeFileSync(path, text);
    const content = digestOf(text);
    const digest = content as string as RegistryDigest;
    await this.store.blobLinks.add(repository, { digest, content, sizeBytes: text.length, path }, []);
    return digest;
  }

  async manifest(repository: string, document: object, tag?: string): Promise<RegistryDigest> {
    const bytes = Buffer.from(JSON.stringify(document));
    const digest = digestOf(bytes) as string as RegistryDigest;
    const read = readManifest(bytes, undefined);
    await this.store.manifestRows.put(repository, {
      digest,
      bytes,
      document: read,
      ...(tag === undefined ? {} : { tag }),
    });
    return digest;
  }

  async image(repository: string, text: string, tag?: string, more: object = {}): Promise<RegistryDigest> {
    await this.blob(repository, text);
    return await this.manifest(repository, image(text, more), tag);
  }

  files(): string[] {
    return readdirSync(join(this.root, "content/blobs/sha256")).sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.store[Symbol.asyncDispose]();
    rmSync(this.root, { recursive: true });
  }
}

function image(config: string, more: object = {}): object {
  const descriptor = { mediaType: mediaTypes.ociConfig, digest: digestOf(config), size: config.length };
  return { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config: descriptor, layers: [], ...more };
}

function sizeOfImage(config: string): number {
  return JSON.stringify(image(config)).length;
}

function index(entries: readonly { digest: RegistryDigest; size: number; mediaType?: string }[]): object {
  const manifests = entries.map((entry) => ({ mediaType: mediaTypes.ociManifest, ...entry }));
  return { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests };
}

const ever = Number.MAX_SAFE_INTEGER;

test("everything is there again after a restart, and nothing else", async () => {
  await using lab = await Lab.open();
  const one = await lab.image("a", "one", "t");
  const two = await lab.image("a", "two", "u", { subject: { mediaType: "x/y", digest: one, size: 1 } });
  await lab.store.blobLinks.mount("a", "b", digestOf("one") as string as RegistryDigest);
  await lab.store.manifestRows.removeTag("a", "u");
  const upload = await lab.store.uploads.begin("a");
  const look = () => ({
    repositories: lab.store.repositories(),
    tags: [...lab.store.tags("a")],
    manifests: lab.store.manifests("a").map(({ digest, subject, blobs }) => ({ digest, subject, blobs })),
    links: [lab.store.links("a"), lab.store.links("b")].map((list) =>
      list.map(({ digest }) => digest).sort(),
    ),
    totals: lab.store.totals(),
    referrers: lab.store
      .index("a")
      ?.referrersOf(one)
      .map(({ digest }) => digest),
  });
  const before = look();
  assert.deepEqual(before.referrers, [two]);
  await lab.reopen();
  const after = look();
  const sorted = (list: { digest: string }[]) => list.sort((a, b) => (a.digest < b.digest ? -1 : 1));
  assert.deepEqual(sorted(after.manifests), sorted(before.manifests));
  assert.deepEqual({ ...after, manifests: [] }, { ...before, manifests: [] });
  assert.equal(lab.store.uploads.find("a", upload.id).repository, "a");
});

test("what a crash leaves goes at the next start: bytes without a row, uploads without a session", async () => {
  await using lab = await Lab.open();
  await lab.image("a", "kept", "t");
  const kept = lab.files();
  writeFileSync(join(lab.root, "content/blobs/sha256", hexOf(digestOf("lost"))), "lost");
  writeFileSync(join(lab.root, "content/ingest/put-7"), "half");
  writeFileSync(join(lab.root, "uploads/00000000-0000-0000-0000-000000000000"), "half");
  await lab.reopen();
  assert.deepEqual(lab.files(), kept);
  assert.deepEqual(readdirSync(join(lab.root, "content/ingest")), []);
  assert.deepEqual(readdirSync(join(lab.root, "uploads")), []);
});

test("a row whose bytes are gone is dropped, and a push heals it; a database that is gone is refused", async () => {
  await using lab = await Lab.open();
  await lab.image("a", "text", "t");
  unlinkSync(join(lab.root, "content/blobs/sha256", hexOf(digestOf("text"))));
  await lab.reopen();
  assert.deepEqual(lab.store.links("a"), []);
  await lab.image("a", "text", "t");
  assert.equal(lab.store.links("a").length, 1);
  await lab.store[Symbol.asyncDispose]();
  for (const name of readdirSync(lab.root)) {
    if (name.startsWith("registry.db")) unlinkSync(join(lab.root, name));
  }
  await assert.rejects(DiskRegistryStore.open(lab.root, silentLog), { code: "database-missing" });
  rmSync(join(lab.root, "content"), { recursive: true });
  mkdirSync(join(lab.root, "content"));
  lab.store = await DiskRegistryStore.open(lab.root, silentLog);
});

test("collection: what a tag reaches stays, through indexes and referrers; the rest goes, parents first", async () => {
  await using lab = await Lab.open();
  const child = await lab.image("a", "child");
  const tagged = await lab.manifest("a", index([{ digest: child, size: sizeOfImage("child") }]), "t");
  const about = await lab.image("a", "about", undefined, {
    subject: { mediaType: "x/y", digest: child, size: 1 },
  });
  const lostChild = await lab.image("a", "lost");
  const lost = await lab.manifest("a", index([{ digest: lostChild, size: sizeOfImage("lost") }]));
  const untagged = lab.store.untaggedManifests("a").map(({ digest }) => digest);
  assert.deepEqual(untagged, [lost, lostChild]);
  assert.equal(await lab.store.collectManifest("a", lostChild, { pushedBeforeMs: ever }), false);
  assert.equal(await lab.store.collectManifest("a", lost, { pushedBeforeMs: Date.now() - 60_000 }), false);
  for (const digest of untagged) {
    assert.equal(await lab.store.collectManifest("a", digest, { pushedBeforeMs: ever }), true);
  }
  for (const digest of [tagged, child, about]) {
    assert.equal(await lab.store.collectManifest("a", digest, { pushedBeforeMs: ever }), false);
  }
  const gone = await lab.store.collectLinks("a", { touchedBeforeMs: ever });
  assert.deepEqual(
    gone.map(({ digest }) => digest as string),
    [digestOf("lost")],
  );
  const planned = await lab.store.sweepable();
  assert.equal(planned.removed, 3);
  assert.deepEqual(await lab.store.sweepContent(), planned);
  assert.equal(lab.files().length, 5);
  await lab.store.manifestRows.removeTag("a", "t");
  assert.equal(lab.store.untaggedManifests("a").length, 3);
});

test("a link that somebody was told of lately is not collected", async () => {
  await using lab = await Lab.open();
  const digest = await lab.blob("a", "text");
  const touchedBeforeMs = Date.now() + 1;
  while (Date.now() <= touchedBeforeMs);
  assert.equal(lab.store.collectableLinks("a", { touchedBeforeMs }).length, 1);
  lab.store.blobLinks.find("a", digest);
  assert.deepEqual(await lab.store.collectLinks("a", { touchedBeforeMs }), []);
  assert.equal(lab.store.links("a").length, 1);
});

test("a layer that could be missing and came later is kept with its manifest, also after a restart", async () => {
  await using lab = await Lab.open();
  const text = "from elsewhere";
  const layer = {
    mediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar",
    digest: digestOf(text),
    size: text.length,
    urls: ["http://elsewhere.test/layer"],
  };
  const digest = await lab.image("a", "config", "1", { layers: [layer] });
  await lab.blob("a", text);
  assert.equal(await lab.manifest("a", image("config", { layers: [layer] }), "1"), digest);
  for (const when of ["at once", "after a restart"]) {
    assert.deepEqual(await lab.store.collectLinks("a", { touchedBeforeMs: ever }), [], when);
    await lab.reopen();
  }
});

test("a hostile nest of indexes is walked without recursion", async () => {
  await using lab = await Lab.open();
  let digest = await lab.image("a", "x");
  // Straight into the index: twenty thousand commits would show nothing more.
  const found = lab.store.index("a")!;
  const inner = found.manifests.get(digest)!;
  for (let depth = 0; depth < 20_000; depth += 1) {
    const outer = {
      ...inner,
      digest: digestOf(`nest ${depth}`) as string as RegistryDigest,
      children: [digest],
    };
    found.addManifest(outer);
    digest = outer.digest;
  }
  assert.equal(lab.store.untaggedManifests("a").length, 20_001);
  assert.equal(lab.store.untaggedManifests("a")[0]?.digest, digest);
  found.setTag("t", digest);
  assert.deepEqual(lab.store.untaggedManifests("a"), []);
});

/** Collections without any grace, against pushes, mounts and deletes: what is there is whole at every moment. */
test("whatever runs at the same time, a manifest that is there can be read with all that it names", async () => {
  const operation = fc.record({
    kind: fc.constantFrom("push", "mount", "untag", "delete", "collect", "sweep"),
    text: fc.constantFrom("0", "1", "2", "3"),
    repository: fc.constantFrom("a", "b"),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { minLength: 5, maxLength: 30 }), async (operations) => {
      await using lab = await Lab.open();
      const { store } = lab;
      const run = async ({ kind, text, repository }: (typeof operations)[number]): Promise<unknown> => {
        const digest = digestOf(text) as string as RegistryDigest;
        const name = digestOf(JSON.stringify(image(text))) as string as RegistryDigest;
        switch (kind) {
          case "push":
            // Without grace the blob may be collected before the manifest names it: then the push is refused.
            return await lab.image(repository, text, `t${text}`).catch((error: { code: string }) => {
              assert.equal(error.code, "MANIFEST_BLOB_UNKNOWN");
            });
          case "mount":
            return await store.blobLinks.mount("a", "b", digest);
          case "untag":
            return await store.manifestRows.removeTag(repository, `t${text}`);
          case "delete":
            return await store.manifestRows.remove(repository, name);
          case "collect": {
            for (const manifest of store.untaggedManifests(repository)) {
              await store.collectManifest(repository, manifest.digest, { pushedBeforeMs: ever });
            }
            return await store.collectLinks(repository, { touchedBeforeMs: ever });
          }
          default:
            return await store.sweepContent();
        }
      };
      await Promise.all(operations.map(run));
      for (const restarted of [false, true]) {
        if (restarted) await lab.reopen();
        await check(lab.store);
      }
    }),
    { numRuns: process.env["SKIFF_PROVE"] === undefined ? 10 : 200 },
  );
});

async function check(store: DiskRegistryStore): Promise<void> {
  for (const repository of ["a", "b"]) {
    for (const manifest of store.index(repository)?.manifests.values() ?? []) {
      assert.equal(digestOf(await store.manifestRows.read(manifest)) as string, manifest.digest);
      for (const blob of manifest.blobs) assert.ok(store.blobLinks.find(repository, blob) !== undefined);
    }
    for (const digest of store.tags(repository).values()) {
      assert.ok(store.manifestRows.find(repository, { digest }) !== undefined);
    }
  }
  const { contents } = store.totals();
  await store.sweepContent();
  assert.equal((await store.sweepable()).removed, 0);
  assert.equal(store.totals().contents, contents);
}

test("uploads that nobody has written to expire, the others stay", async () => {
  await using lab = await Lab.open();
  const { uploads } = lab.store;
  const old = await uploads.begin("a");
  writeFileSync(old.path, "half");
  old.touchedAtMs = 1000;
  const young = await uploads.begin("a");
  assert.equal(await lab.store.expireUploads({ idleSinceMs: 2000 }), 1);
  assert.throws(() => uploads.find("a", old.id), { code: "BLOB_UPLOAD_UNKNOWN" });
  assert.equal(uploads.find("a", young.id), young);
  assert.deepEqual(readdirSync(join(lab.root, "uploads")), []);
  await lab.reopen();
  assert.equal(lab.store.totals().uploads, 1);
});
