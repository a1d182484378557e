import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

/** The rows of a stopped daemon's database. */
interface Rows {
  readonly container: readonly {
    readonly id: string;
    readonly image_id: string;
    readonly document: string;
  }[];
  readonly image: readonly { readonly id: string; readonly document: string }[];
  readonly reference: readonly { readonly name: string; readonly image_id: string }[];
  readonly layer: readonly { readonly key: string }[];
  readonly volume: readonly { readonly name: string }[];
}

function names(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder).sort() : [];
}

function readRows(dataRoot: string): Rows {
  const database = new DatabaseSync(join(dataRoot, "state.db"), { readOnly: true });
  try {
    const all = (table: string) => database.prepare(`SELECT * FROM ${table}`).all();
    return {
      container: all("container"),
      image: all("image"),
      reference: all("reference"),
      layer: all("layer"),
      volume: all("volume"),
    } as unknown as Rows;
  } finally {
    database.close();
  }
}

interface ImageDocument {
  readonly manifestDigest?: string;
  readonly documents?: readonly string[];
  readonly layers: readonly { readonly key: string; readonly blobDigest?: string }[];
}

/** Both ways: what a list has and another lacks. */
function difference(what: string, there: Iterable<string>, meant: Iterable<string>): string[] {
  const present = new Set(there);
  const wanted = new Set(meant);
  return [
    ...[...present]
      .filter((entry) => !wanted.has(entry))
      .map((entry) => `${what} that nothing names: ${entry}`),
    ...[...wanted].filter((entry) => !present.has(entry)).map((entry) => `${what} missing: ${entry}`),
  ];
}

function checkBlobs(
  dataRoot: string,
  documents: readonly (ImageDocument & { readonly id: string })[],
): string[] {
  const folder = join(dataRoot, "content/blobs/sha256");
  const there = names(folder);
  const meant = documents.flatMap((image) => [
    image.id,
    ...(image.manifestDigest === undefined ? [] : [image.manifestDigest]),
    ...(image.documents ?? []),
    ...image.layers.flatMap(({ blobDigest }) => blobDigest ?? []),
  ]);
  const broken = there.filter(
    (hex) =>
      createHash("sha256")
        .update(readFileSync(join(folder, hex)))
        .digest("hex") !== hex,
  );
  return [
    ...difference(
      "blob",
      there,
      meant.map((digest) => digest.replace("sha256:", "")),
    ),
    ...broken.map((hex) => `blob whose bytes are others: ${hex}`),
  ];
}

/**
 * Rows against disk, of a daemon that is stopped: every row's files are there, every file has a row, every blob is what
 * its name says, nothing is half made. A volume's data and a container's log are the users' and not looked into.
 */
export function fsck({ dataRoot, execRoot }: { dataRoot: string; execRoot: string }): string[] {
  const rows = readRows(dataRoot);
  const images = rows.image.map(({ id, document }) => ({ ...(JSON.parse(document) as ImageDocument), id }));
  const imageIds = new Set(images.map(({ id }) => id));
  const ids = rows.container.map(({ id }) => id);
  const overlay = names(join(dataRoot, "overlay2")).filter((name) => name !== "tmp" && name !== "trash");
  const mounted = rows.container.flatMap(
    ({ document }) =>
      (JSON.parse(document) as { mounts: { kind: string; name?: string; anonymous?: boolean }[] }).mounts,
  );
  const volumeNames = rows.volume.map(({ name }) => name);
  return [
    ...difference("state folder", names(join(dataRoot, "containers")), ids),
    ...difference(
      "writable layer",
      overlay.filter((name) => name.startsWith("w-")),
      ids.map((id) => `w-${id}`),
    ),
    ...difference(
      "layer folder",
      overlay.filter((name) => !name.startsWith("w-")),
      rows.layer.map(({ key }) => key),
    ),
    ...difference(
      "layer row",
      rows.layer.map(({ key }) => key),
      images.flatMap(({ layers }) => layers.map(({ key }) => key)),
    ),
    ...rows.container.filter((row) => !imageIds.has(row.image_id)).map(({ id }) => `image of ${id} missing`),
    ...rows.reference
      .filter((row) => !imageIds.has(row.image_id))
      .map(({ name }) => `image of ${name} missing`),
    ...checkBlobs(dataRoot, images),
    ...difference(
      "volume folder",
      names(join(dataRoot, "volumes")).filter((name) => name !== ".trash"),
      volumeNames,
    ),
    ...mounted
      .filter(({ kind, name }) => kind === "volume" && !volumeNames.includes(name ?? ""))
      .map(({ name }) => `volume of a container missing: ${name}`),
    ...["overlay2/tmp", "overlay2/trash", "content/ingest", "volumes/.trash", "tmp"].flatMap((folder) =>
      names(join(dataRoot, folder)).map((name) => `half made: ${folder}/${name}`),
    ),
    ...difference("run folder", names(join(execRoot, "containers")), []),
  ];
}

/** Every path below the roots of a stopped daemon, and every row's key: two daemons without containers are alike in it. */
export function inventory({ dataRoot, execRoot }: { dataRoot: string; execRoot: string }): string[] {
  const walk = (folder: string, prefix: string): string[] =>
    readdirSync(folder, { withFileTypes: true }).flatMap((entry) => [
      `${prefix}/${entry.name}`,
      ...(entry.isDirectory() ? walk(join(folder, entry.name), `${prefix}/${entry.name}`) : []),
    ]);
  const rows = readRows(dataRoot);
  return [
    ...walk(dataRoot, "data"),
    ...walk(execRoot, "run"),
    ...rows.container.map(({ id }) => `row container ${id}`),
    ...rows.image.map(({ id }) => `row image ${id}`),
    ...rows.layer.map(({ key }) => `row layer ${key}`),
    ...rows.volume.map(({ name }) => `row volume ${name}`),
  ].sort();
}
