import type { ChainId, DiffId, Digest, ImageId } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import { KeyedLock } from "#base/lock.ts";
import type { Log } from "#base/log.ts";
import type { ContentStore } from "#content/content-store.ts";
import type { LayerKey, Snapshotter } from "#snapshot/snapshotter.ts";
import type { Database, Statement } from "#state/database.ts";
import {
  canonicalString,
  familiarString,
  parseAnyReference,
  parseReference,
  type Reference,
  repositoryOf,
  withDefaultTag,
  withDigest,
} from "#wire/reference.ts";
import { ByteKeeper, type ByteRoots } from "./byte-keeper.ts";
import type { Image, ImageLayer, ImageStore } from "./image.ts";

export interface ImageStoreDeps {
  readonly database: Database;
  readonly content: ContentStore;
  readonly snapshotter: Snapshotter;
  readonly log: Log;
  /** Layers that must stay although no image has them: the build cache's. */
  readonly keptLayers?: () => Iterable<LayerKey>;
}

/** A name to be set on an image. `digest`: the manifest it was pulled by. */
export interface NewName {
  readonly reference: Reference;
  readonly digest?: Digest;
}

interface ImageRow extends Record<string, string | null> {
  readonly id: string;
  readonly parent: string | null;
  readonly manifest_digest: string | null;
  readonly document: string;
}

interface NameRow extends Record<string, string | null> {
  readonly name: string;
  readonly image_id: string;
}

/** A document that a newer or damaged database might hold is refused by name, not half understood. */
function imageOf(row: ImageRow): Image {
  let document: Omit<Image, "id">;
  try {
    document = JSON.parse(row.document) as Omit<Image, "id">;
  } catch (cause) {
    throw new EngineError("system", `image ${row.id}: damaged row`, { code: "damaged-row", cause });
  }
  return { ...document, id: row.id as ImageId };
}

function putStatement(image: Image): Statement {
  const { id, ...document } = image;
  return {
    sql: "INSERT OR REPLACE INTO image (id, parent, manifest_digest, document) VALUES (?, ?, ?, ?)",
    params: [id, image.parent ?? null, image.manifestDigest ?? null, JSON.stringify(document)],
  };
}

/**
 * The images of a daemon: rows in SQLite, read once and then answered from memory. Rows are the truth of what is used;
 * bytes without a row are garbage that `collect` removes.
 */
export class LocalImageStore implements ImageStore {
  readonly #database: Database;
  readonly #keptLayers: () => Iterable<LayerKey>;
  readonly #images = new Map<ImageId, Image>();
  /** Canonical name → image. */
  readonly #names = new Map<string, ImageId>();
  readonly #namesOf = new Map<ImageId, Map<string, Reference>>();
  /** Rows change one call at a time: what a removal lists is what it removes. */
  readonly #changes = new KeyedLock();
  /** Bytes in use by images being made; removes what nothing uses. */
  readonly bytes: ByteKeeper;

  private constructor(deps: ImageStoreDeps) {
    this.#database = deps.database;
    this.#keptLayers = deps.keptLayers ?? (() => []);
    this.bytes = new ByteKeeper(deps, () => this.#roots());
  }

  static async open(deps: ImageStoreDeps): Promise<LocalImageStore> {
    const store = new LocalImageStore(deps);
    const images = await deps.database.all<ImageRow>(
      "SELECT id, parent, manifest_digest, document FROM image",
    );
    for (const row of images) store.#images.set(row.id as ImageId, imageOf(row));
    for (const row of await deps.database.all<NameRow>("SELECT name, image_id FROM reference")) {
      const id = row.image_id as ImageId;
      if (store.#images.has(id)) store.#setName(parseReference(row.name), id);
      else deps.log.warn("name without an image", { name: row.name });
    }
    return store;
  }

  #setName(reference: Reference, id: ImageId): void {
    const name = canonicalString(reference);
    this.#dropName(name);
    this.#names.set(name, id);
    const names = this.#namesOf.get(id) ?? new Map<string, Reference>();
    names.set(name, reference);
    this.#namesOf.set(id, names);
  }

  #dropName(name: string): void {
    const id = this.#names.get(name);
    if (id === undefined) return;
    this.#names.delete(name);
    this.#namesOf.get(id)?.delete(name);
  }

  #roots(): ByteRoots {
    const layers = new Set<LayerKey>(this.#keptLayers());
    const blobs = new Set<Digest>();
    for (const image of this.#images.values()) {
      blobs.add(image.id as string as Digest);
      if (image.manifestDigest !== undefined) blobs.add(image.manifestDigest);
      for (const document of image.documents ?? []) blobs.add(document);
      for (const layer of image.layers) {
        layers.add(layer.key);
        if (layer.blobDigest !== undefined) blobs.add(layer.blobDigest);
      }
    }
    return { layers, blobs };
  }

  resolve(reference: string): Image {
    const image = this.find(reference);
    if (image !== undefined) return image;
    throw new EngineError("notFound", `No such image: ${missingText(reference)}`, { code: "no-such-image" });
  }

  /** As `resolve`, undefined when there is none. Throws `invalid` for what is no reference. */
  find(text: string): Image | undefined {
    const any = parseAnyReference(text);
    if (any.kind === "id") return this.#visible(any.digest as string as ImageId);
    const { digest } = any.reference;
    const named =
      digest === undefined ? withDefaultTag(any.reference) : withDigest(repositoryOf(any.reference), digest);
    const id = this.#names.get(canonicalString(named));
    if (id !== undefined) return this.#visible(id);
    return this.#byPrefix(text);
  }

  #visible(id: ImageId): Image | undefined {
    const image = this.#images.get(id);
    return image?.removed === true ? undefined : image;
  }

  /** The one image whose id starts so; undefined when there are none or several, as Docker answers. */
  #byPrefix(text: string): Image | undefined {
    const prefix = text.startsWith("sha256:") ? text : `sha256:${text}`;
    if (!/^sha256:[0-9a-f]{1,64}$/.test(prefix)) return undefined;
    let found: Image | undefined;
    for (const image of this.#images.values()) {
      if (!image.id.startsWith(prefix) || image.removed === true) continue;
      if (found !== undefined) return undefined;
      found = image;
    }
    return found;
  }

  get(id: ImageId): Image | undefined {
    return this.#images.get(id);
  }

  list(): Image[] {
    return [...this.#images.values()].filter((image) => image.removed !== true);
  }

  /** Also those kept only for their containers. */
  listAll(): Image[] {
    return [...this.#images.values()];
  }

  /** The image a name points at. */
  idOf(reference: Reference): ImageId | undefined {
    return this.#names.get(canonicalString(reference));
  }

  /** Every name of an image, sorted by its canonical spelling as Docker lists them. */
  namesOf(id: ImageId): Reference[] {
    const names = [...(this.#namesOf.get(id) ?? [])];
    return names.sort(([left], [right]) => (left < right ? -1 : 1)).map(([, reference]) => reference);
  }

  tagsOf(id: ImageId): string[] {
    return this.namesOf(id)
      .filter(({ digest }) => digest === undefined)
      .map(familiarString);
  }

  digestsOf(id: ImageId): string[] {
    return this.namesOf(id)
      .filter(({ digest }) => digest !== undefined)
      .map(familiarString);
  }

  /** The compressed form of a layer that some image has, as the fields of `ImageLayer`; empty when there is none. */
  blobOf(diffId: DiffId): Pick<ImageLayer, "blobDigest" | "blobSizeBytes" | "mediaType" | "diffSizeBytes"> {
    for (const { layers } of this.#images.values()) {
      for (const layer of layers) {
        if (layer.diffId !== diffId || layer.blobDigest === undefined) continue;
        const { blobDigest, blobSizeBytes, mediaType, diffSizeBytes } = layer;
        return {
          blobDigest,
          ...(blobSizeBytes === undefined ? {} : { blobSizeBytes }),
          ...(mediaType === undefined ? {} : { mediaType }),
          ...(diffSizeBytes === undefined ? {} : { diffSizeBytes }),
        };
      }
    }
    return {};
  }

  childrenOf(id: ImageId): Image[] {
    return this.list().filter(({ parent }) => parent === id);
  }

  /**
   * Adds an image with its names in one durable commit. Its bytes must be durable by now (invariant 1 of the design) and
   * held. A name that pointed elsewhere moves.
   */
  async put(image: Image, names: readonly NewName[]): Promise<void> {
    using _turn = await this.#changes.acquire("rows");
    await this.#write(image, names);
  }

  async #write(image: Image, names: readonly NewName[], durable = true): Promise<void> {
    const statements = [putStatement(image), ...names.map((name) => nameStatement(name, image.id))];
    await this.#database.commit(statements, { durable });
    this.#images.set(image.id, image);
    for (const { reference } of names) this.#setName(reference, image.id);
  }

  /** Names an image that is there. Throws `notFound` when a removal was quicker. */
  async tag(id: ImageId, reference: Reference, lastTaggedNs: string): Promise<void> {
    using _turn = await this.#changes.acquire("rows");
    const image = this.#visible(id);
    if (image === undefined) {
      throw new EngineError("notFound", `No such image: ${id}`, { code: "no-such-image" });
    }
    // A name that it has already (a build of what is there): only the time is new, and losing that does no harm.
    const isNew = this.#names.get(canonicalString(reference)) !== id;
    await this.#write({ ...image, lastTaggedNs }, [{ reference }], isNew);
  }

  /**
   * Changes an image's row and adds names, in one durable commit. An image that was removed meanwhile is left alone. What
   * `change` names must be durable and held.
   */
  async update(id: ImageId, names: readonly NewName[], change: (image: Image) => Image): Promise<void> {
    using _turn = await this.#changes.acquire("rows");
    const image = this.#visible(id);
    if (image !== undefined) await this.#write(change(image), names);
  }

  /** Takes names away; those that are not there are passed over. */
  async untag(references: readonly Reference[]): Promise<void> {
    using _turn = await this.#changes.acquire("rows");
    const names = references.map(canonicalString).filter((name) => this.#names.has(name));
    if (names.length === 0) return;
    await this.#database.commit(names.map(dropNameStatement));
    for (const name of names) this.#dropName(name);
  }

  /**
   * Removes an image's row and names, then bytes that nothing uses any more. With `keepForContainers` the bytes and a
   * hidden row stay until `forget`. Returns the chains that went, top first: Docker's `Deleted:` lines.
   */
  async remove(id: ImageId, options: { keepForContainers: boolean }): Promise<ChainId[]> {
    const image = await this.#removeRows(id, options.keepForContainers);
    if (image === undefined || options.keepForContainers) return [];
    const chainsLeft = new Set<ChainId>();
    for (const other of this.#images.values())
      for (const layer of other.layers) chainsLeft.add(layer.chainId);
    await this.bytes.release(image);
    return image.layers
      .map(({ chainId }) => chainId)
      .filter((chain) => !chainsLeft.has(chain))
      .reverse();
  }

  async #removeRows(id: ImageId, keep: boolean): Promise<Image | undefined> {
    using _turn = await this.#changes.acquire("rows");
    const image = this.#images.get(id);
    if (image === undefined) return undefined;
    const names = [...(this.#namesOf.get(id)?.keys() ?? [])];
    const kept: Image = { ...image, removed: true };
    const row = keep ? putStatement(kept) : { sql: "DELETE FROM image WHERE id = ?", params: [id] };
    await this.#database.commit([row, ...names.map(dropNameStatement)]);
    for (const name of names) this.#dropName(name);
    this.#namesOf.delete(id);
    if (keep) this.#images.set(id, kept);
    else this.#images.delete(id);
    return image;
  }

  /** The last container of a hidden image is gone. */
  async forget(id: ImageId): Promise<void> {
    if (this.#images.get(id)?.removed === true) await this.remove(id, { keepForContainers: false });
  }
}

function nameStatement({ reference, digest }: NewName, id: ImageId): Statement {
  return {
    sql: "INSERT OR REPLACE INTO reference (name, image_id, digest) VALUES (?, ?, ?)",
    params: [canonicalString(reference), id, digest ?? reference.digest ?? null],
  };
}

function dropNameStatement(name: string): Statement {
  return { sql: "DELETE FROM reference WHERE name = ?", params: [name] };
}

/** How Docker spells the image it did not find: with `latest` where no tag was given. */
function missingText(text: string): string {
  const any = parseAnyReference(text);
  return any.kind === "id" ? any.digest : familiarString(withDefaultTag(any.reference));
}
