/**
 * Registries that do things wrong, on pull and on push: in bounded time it either works in spite of it, whole, or fails with
 * a reason; nothing wrong stays on the disk, no tag is set that names less than an image, and credentials go to nobody else.
 */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { defaultTiming, type RegistryTiming } from "#registry/timing.ts";
import { familiarString } from "#wire/reference.ts";
import { type ImageSetup, openImages, pull } from "../integration/image-setup.ts";
import { certificate } from "../integration/registry-server-lab.ts";
import { imageOf, layerTar, type ScriptedImage } from "../integration/scripted-registry.ts";
import { importTar, never, push } from "../integration/transfer-lab.ts";
import type { Way } from "./fault-acts.ts";
import { faultModes } from "./fault-modes.ts";
import { type Fault, FaultRegistry } from "./fault-registry.ts";

const timing: RegistryTiming = {
  ...defaultTiming,
  connectMs: 2000,
  headersMs: 300,
  idleMs: 300,
  rateWindowMs: 300,
  rateBytesMin: 1024,
  attemptsMax: 3,
  resumesMax: 8,
  backoffMs: 5,
  backoffMaxMs: 20,
  retryAfterMsMax: 3000,
};
/** Longer than anything takes on a machine that does much else; without bounds it would be for ever. */
const boundMs = 20_000;
const auth = { username: "user", password: "secret" };

const image: ScriptedImage = imageOf([layerTar("modes-one", 200_000)]);

/** One side: pulls and pushes do not meet, so that they can wait at the same time. */
class Lab implements AsyncDisposable {
  readonly registry: FaultRegistry;
  readonly other: FaultRegistry;
  readonly setup: ImageSetup;
  #rounds = 0;
  readonly #resources: AsyncDisposableStack;

  private constructor(
    registry: FaultRegistry,
    other: FaultRegistry,
    setup: ImageSetup,
    resources: AsyncDisposableStack,
  ) {
    this.registry = registry;
    this.other = other;
    this.setup = setup;
    this.#resources = resources;
  }

  static async open(): Promise<Lab> {
    const resources = new AsyncDisposableStack();
    const registry = resources.use(await FaultRegistry.start());
    const other = resources.use(await FaultRegistry.start());
    const setup = resources.use(await openImages({ config: { timing } }));
    await importTar(setup, layerTar("modes-made", 200_000), "made");
    return new Lab(registry, other, setup, resources);
  }

  /** A repository that nobody used, on a registry with these faults. */
  begin(way: Way): string {
    this.registry.begin(way.faults);
    this.other.begin([]);
    way.setUp?.(this.registry);
    this.#rounds += 1;
    return `r${this.#rounds}/x`;
  }

  judge(way: Way, got: string): void {
    if (way.expect === "ok") assert.equal(got, "ok");
    else assert.match(got, way.expect);
    assert.equal(way.after?.(this.registry, this.other), undefined);
  }

  /** Partials of layers are kept for a resume: for the next mode they are in the way. */
  clearPartials(): void {
    const ingest = join(this.setup.root, "content/ingest");
    for (const name of readdirSync(ingest)) rmSync(join(ingest, name));
  }

  async onDisk(): Promise<unknown> {
    const { images, content, root } = this.setup;
    return {
      images: images.store.listAll().length,
      blobs: (await content.list()).sort(),
      layers: readdirSync(join(root, "overlay2")).sort(),
      staging: readdirSync(join(root, "overlay2/tmp")),
      temporary: readdirSync(join(root, "tmp")),
    };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#resources.disposeAsync();
  }
}

async function outcome(work: Promise<unknown>): Promise<string> {
  const ended = work.then(
    () => "ok",
    (error: Error) => error.message,
  );
  return await Promise.race([ended, sleep(boundMs, "without an end", { ref: false })]);
}

async function pullFrom(lab: Lab, way: Way): Promise<void> {
  const { registry, other, setup } = lab;
  const repository = lab.begin(way);
  registry.serve(repository, image);
  other.serve(repository, image);
  const before = await lab.onDisk();
  const reference = `${registry.address}/${repository}`;
  const got = await outcome(pull(setup, reference, "latest", { auth }));
  const found = setup.images.store.find(reference);
  if (found !== undefined) await setup.images.remove(reference, { force: true, prune: true });
  lab.clearPartials();
  lab.judge(way, got);
  assert.equal(found?.id, got === "ok" ? image.config.digest : undefined);
  assert.deepEqual(await lab.onDisk(), before);
}

/** The registry refuses a manifest that names what it lacks: where there is a tag, the image is there. */
async function pushTo(lab: Lab, way: Way): Promise<void> {
  const { registry, setup } = lab;
  const repository = lab.begin(way);
  const reference = `${registry.address}/${repository}`;
  registry.blobs.clear();
  await setup.images.tag("made", reference, "latest");
  const got = await outcome(push(setup, reference, { auth }));
  await setup.images.remove(reference, { force: false, prune: true });
  // A name by digest would offer a mount the next time.
  const { store } = setup.images;
  for (const found of store.namesOf(store.resolve("made").id)) {
    if (found.digest !== undefined)
      await setup.images.remove(familiarString(found), { force: false, prune: true });
  }
  lab.judge(way, got);
  if (got !== "ok") assert.equal(registry.manifests.has(`${repository}:latest`), false, "there is a tag");
  assert.deepEqual(readdirSync(join(setup.root, "tmp")), []);
}

// What a mode needs of its surroundings is known once the servers listen.
const labs = { pull: await Lab.open(), push: await Lab.open(), plain: await Lab.open() };
const bytes = image.layers[0]!.bytes;

after(async () => {
  for (const lab of Object.values(labs)) await lab[Symbol.asyncDispose]();
});

describe("a registry that", { concurrency: 2 }, () => {
  describe("on pull", { concurrency: 1 }, () => {
    for (const { name, pull: way } of faultModes({ other: labs.pull.other, layer: bytes })) {
      if (way !== undefined) test(name, () => pullFrom(labs.pull, way));
    }
    const honest: Way = { faults: [], expect: "ok" };
    test("is honest again", () => pullFrom(labs.pull, honest));
  });

  describe("on push", { concurrency: 1 }, () => {
    for (const { name, push: way } of faultModes({ other: labs.push.other, layer: bytes })) {
      if (way !== undefined) test(name, () => pushTo(labs.push, way));
    }
    const honest: Way = { faults: [], expect: "ok" };
    test("is honest again", () => pushTo(labs.push, honest));
  });
});

test("a registry on https cannot send anybody to http", async () => {
  const folder = mkdtempSync(join(tmpdir(), "skiff-modes-tls-"));
  const { cert, key } = certificate(folder, "modes");
  const tls = { cert: readFileSync(cert), key: readFileSync(key) };
  rmSync(folder, { recursive: true });
  await using registry = await FaultRegistry.start((listener) => createServer(tls, listener));
  const { other, setup } = labs.plain;
  registry.serve("a/b", image);
  const reference = `${registry.address}/a/b`;
  const location = `http://${other.address}/v2/a/b/x`;
  const away = (status: number): Fault["act"] => {
    return ({ response }) => response.writeHead(status, { location }).end();
  };
  const refuses = async (work: () => Promise<unknown>): Promise<void> => {
    other.begin([]);
    await assert.rejects(work, /https to http/);
    assert.deepEqual(other.seen, []);
  };
  registry.begin([{ at: "layer", act: away(307) }]);
  await refuses(() => pull(setup, reference, "latest", { auth }));
  registry.begin([]);
  registry.auth = "bearer";
  registry.realm = location;
  await refuses(() => pull(setup, reference, "latest", { auth }));
  const serverAddress = registry.address;
  await refuses(() => setup.images.login({ ...auth, serverAddress, identityToken: "" }, never));
  registry.begin([{ at: "begin", act: away(202) }]);
  registry.blobs.clear();
  await setup.images.tag("made", reference, "latest");
  await refuses(() => push(setup, reference, { auth }));
});

test("addresses that a manifest names for its layers are asked nothing", async () => {
  const { registry, other, setup } = labs.plain;
  const foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
  for (const mediaType of ["application/vnd.oci.image.layer.v1.tar+gzip", foreign]) {
    const [{ digest, bytes: content }] = image.layers as [(typeof image.layers)[number]];
    const urls = [`http://${other.address}/v2/a/b/blobs/${digest}`];
    const layers = [{ mediaType, digest, size: content.length, urls }];
    other.begin([]);
    registry.begin([{ at: "layer", act: ({ response }) => response.writeHead(404).end() }]);
    registry.serve("urls/x", imageOf([layerTar("modes-one", 200_000)], { manifest: { layers } }));
    await assert.rejects(pull(setup, `${registry.address}/urls/x`));
    assert.deepEqual(other.seen, []);
  }
});
