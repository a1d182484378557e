import { createHash } from "node:crypto";
import { createReadStream, readdirSync } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { type Digest, hexOf, type ImageId } from "#base/digest.ts";
import type { Log } from "#base/log.ts";
import type { ContainerDocument } from "#engine/container-document.ts";
import type { Image } from "#image/image.ts";
import type { Database } from "#state/database.ts";
import { openDatabase } from "#state/sqlite-database.ts";

/**
 * Whether the state of a stopped daemon agrees with itself: rows with rows, rows with what lies on the disk, and blobs
 * with their digests. Fault tests run it after every crash; each line says one disagreement, none means that all is well.
 */
export async function findDisagreements(roots: {
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly log: Log;
}): Promise<string[]> {
  await using database = await openDatabase(join(roots.dataRoot, "state.db"), {
    log: roots.log,
    mustExist: true,
  });
  const state = await readState(database);
  return [
    ...checkReferences(state),
    ...checkContainers(state, roots.dataRoot, roots.execRoot),
    ...checkLayers(state, roots.dataRoot),
    ...checkVolumes(state, roots.dataRoot),
    ...(await checkBlobs(state, roots.dataRoot)),
    ...checkLeftovers(roots.dataRoot),
  ];
}

type StoredImage = Omit<Image, "id"> & { readonly id: ImageId };

interface State {
  readonly containers: readonly ContainerDocument[];
  readonly images: ReadonlyMap<string, StoredImage>;
  readonly references: readonly { readonly name: string; readonly image_id: string }[];
  readonly layers: ReadonlySet<string>;
  /** Layers that only the build cache may have. */
  readonly cached: ReadonlySet<string>;
  readonly volumes: ReadonlySet<string>;
}

async function readState(database: Database): Promise<State> {
  const documents = async <T>(table: "container" | "image"): Promise<T[]> => {
    const rows = await database.all<{ id: string; document: string }>(`SELECT id, document FROM ${table}`);
    return rows.map(({ id, document }) => ({ ...(JSON.parse(document) as object), id }) as T);
  };
  const column = async (sql: string): Promise<Set<string>> =>
    new Set((await database.all<{ value: string }>(sql)).map(({ value }) => value));
  return {
    containers: await documents<ContainerDocument>("container"),
    images: new Map((await documents<StoredImage>("image")).map((image) => [image.id, image])),
    references: await database.all<{ name: string; image_id: string }>(
      "SELECT name, image_id FROM reference",
    ),
    layers: await column("SELECT key AS value FROM layer"),
    cached: await column(
      "SELECT json_extract(document, '$.layer.key') AS value FROM build_cache WHERE json_extract(document, '$.layer.key') IS NOT NULL",
    ),
    volumes: await column("SELECT name AS value FROM volume"),
  };
}

function names(...path: readonly string[]): string[] {
  try {
    return readdirSync(join(...path));
  } catch {
    return [];
  }
}

/** Both directions: what a row promises and the disk has not, and what lies on the disk without a row. */
function compare(what: string, rows: Iterable<string>, found: Iterable<string>): string[] {
  const expected = new Set(rows);
  const there = new Set(found);
  return [
    ...[...expected]
      .filter((name) => !there.has(name))
      .map((name) => `${what} ${name} has a row and is not on the disk`),
    ...[...there]
      .filter((name) => !expected.has(name))
      .map((name) => `${what} ${name} is on the disk and has no row`),
  ];
}

function checkReferences({ references, images, containers }: State): string[] {
  const dangling = references
    .filter(({ image_id }) => !images.has(image_id))
    .map(({ name, image_id }) => `name ${name} points at ${image_id}, which is no image`);
  const orphans = containers
    .filter(({ imageId }) => !images.has(imageId))
    .map(({ id, imageId }) => `container ${id} was made from ${imageId}, which is no image`);
  const parents = [...images.values()]
    .filter(({ parent }) => parent !== undefined && !images.has(parent))
    .map(({ id, parent }) => `image ${id} has the parent ${parent}, which is no image`);
  return [...dangling, ...orphans, ...parents];
}

function checkContainers({ containers, volumes }: State, dataRoot: string, execRoot: string): string[] {
  const ids = containers.map(({ id }) => id);
  const writable = names(dataRoot, "overlay2")
    .filter((name) => name.startsWith("w-"))
    .map((name) => name.slice(2));
  const running = names(execRoot, "containers").filter((name) => !ids.some((id) => id === name));
  const mounts = containers.flatMap(({ id, mounts }) =>
    mounts
      .filter(({ kind, name }) => kind === "volume" && !volumes.has(name))
      .map(({ name }) => `container ${id} mounts the volume ${name}, which is not there`),
  );
  return [
    ...compare("state directory of container", ids, names(dataRoot, "containers")),
    ...compare("writable layer of container", ids, writable),
    ...running.map((name) => `run directory ${name} belongs to no container`),
    ...mounts,
  ];
}

function checkLayers({ images, layers, cached }: State, dataRoot: string): string[] {
  const onDisk = names(dataRoot, "overlay2").filter((name) => /^(?:c-)?[0-9a-f]{64}$/.test(name));
  const used = new Set<string>([...images.values()].flatMap((image) => image.layers.map(({ key }) => key)));
  return [
    ...compare("layer", layers, onDisk),
    ...[...used]
      .filter((key) => !layers.has(key))
      .map((key) => `layer ${key} is part of an image and has no row`),
    ...[...layers]
      .filter((key) => !used.has(key) && !cached.has(key))
      .map((key) => `layer ${key} is part of no image`),
  ];
}

function checkVolumes({ volumes }: State, dataRoot: string): string[] {
  const onDisk = names(dataRoot, "volumes").filter((name) => name !== ".trash");
  return compare("volume", volumes, onDisk);
}

async function checkBlobs({ images }: State, dataRoot: string): Promise<string[]> {
  const folder = join(dataRoot, "content/blobs/sha256");
  const there = new Set(names(folder));
  const needed = new Set<string>();
  const known = new Set<string>();
  for (const image of images.values()) {
    for (const digest of [image.id as string as Digest, ...(image.documents ?? [])])
      needed.add(hexOf(digest));
    for (const { blobDigest } of image.layers) if (blobDigest !== undefined) known.add(hexOf(blobDigest));
  }
  const problems = [...needed]
    .filter((hex) => !there.has(hex))
    .map((hex) => `blob ${hex} is needed and not there`);
  for (const hex of there) {
    if (!needed.has(hex) && !known.has(hex)) problems.push(`blob ${hex} is of no use to any image`);
    const hash = createHash("sha256");
    await pipeline(createReadStream(join(folder, hex)), hash);
    if (hash.digest("hex") !== hex) problems.push(`blob ${hex} does not have its digest`);
  }
  return problems;
}

/** Work that was under way when a daemon died must have been finished or undone by the next one. */
function checkLeftovers(dataRoot: string): string[] {
  return ["overlay2/tmp", "overlay2/trash", "volumes/.trash", "tmp"].flatMap((folder) =>
    names(dataRoot, folder).map((name) => `${folder}/${name} is left over`),
  );
}
