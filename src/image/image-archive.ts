/**
 * Archives of images, as `docker save`, skopeo, podman, buildah and umoci write them: Docker's own layout
 * (`manifest.json`, image spec v1.2), and the OCI layout (`oci-layout`, `index.json`, `blobs/`). Both may be in one.
 */
import { type Digest, digestOf, parseDigest } from "#base/digest.ts";
import { EngineError, messageOf } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import type { BundleMember } from "#snapshot/snapshotter.ts";
import {
  type Descriptor,
  type ImageConfig,
  type Manifest,
  mediaTypes,
  type Platform,
} from "#wire/oci-image.ts";
import { familiarString, parseReference, type Reference } from "#wire/reference.ts";
import { choosePlatform } from "./platform.ts";
import { parseStrictJson } from "./strict-json.ts";
import { checkLayersMatch, parseImageConfig, parseManifest } from "./validate.ts";

/** One image of an archive, all of whose bytes are there. */
export interface ArchivedImage {
  readonly config: ImageConfig;
  readonly configBytes: Buffer;
  /** Bottom first; digests are those of the archive's bytes. */
  readonly layers: readonly { readonly descriptor: Descriptor; readonly file: string }[];
  /** The manifest it was found by, and the indexes above it; none in Docker's own layout. */
  readonly documents: readonly Buffer[];
  readonly manifestDigest?: Digest;
  readonly names: readonly Reference[];
}

type File = Extract<BundleMember, { kind: "file" }>;
/** Reads a small member whole. */
export type ReadMember = (path: string) => Promise<Buffer>;

/** Images of one archive: more would be a mirror's work. */
const imagesMax = 1000;
/** Of all indexes, manifests and configs that are read, each as often as it is named: they are held in memory and parsed. */
const documentBytesMax = 64 * 1024 * 1024;
const linksMax = 8;

function bad(message: string): EngineError {
  return new EngineError("invalid", message, { code: "bad-archive" });
}

/** Finds the images of an archive that was taken apart. Throws `invalid` for what is none. */
export async function readImageArchive(
  members: readonly BundleMember[],
  read: ReadMember,
  platform: Platform,
): Promise<ArchivedImage[]> {
  return await new ArchiveReader(members, read, platform).images();
}

class ArchiveReader {
  readonly #members: ReadonlyMap<string, BundleMember>;
  readonly #read: ReadMember;
  readonly #platform: Platform;
  #documentBytes = 0;

  constructor(members: readonly BundleMember[], read: ReadMember, platform: Platform) {
    this.#members = new Map(members.map((member) => [member.path, member]));
    this.#read = read;
    this.#platform = platform;
  }

  async images(): Promise<ArchivedImage[]> {
    const isLayout = this.#members.has("index.json") && this.#members.has("oci-layout");
    const found = isLayout ? await this.#fromLayout() : [];
    if (this.#members.has("manifest.json")) await this.#addClassic(found);
    else if (!isLayout) throw bad("invalid archive: does not contain a manifest.json");
    return found;
  }

  /** The file behind a path; links are followed within the archive. */
  #file(path: string): File {
    let at = path;
    for (let hops = 0; hops <= linksMax; hops += 1) {
      const member = this.#members.get(at);
      if (member === undefined) break;
      if (member.kind === "file") return member;
      at = member.target;
    }
    throw bad(`archive has no file ${JSON.stringify(path.slice(0, 200))}`);
  }

  async #small(file: File, bytesMax: number, what: string): Promise<Buffer> {
    this.#documentBytes += file.sizeBytes;
    if (file.sizeBytes > bytesMax) throw bad(`${what} of the archive is too large`);
    if (this.#documentBytes > documentBytesMax) throw bad("the documents of the archive are too large");
    return await this.#read(file.file);
  }

  /** A blob of an OCI layout, of the digest and length that its descriptor says. */
  #blob(descriptor: Descriptor): File {
    const file = this.#file(`blobs/sha256/${descriptor.digest.slice("sha256:".length)}`);
    if (file.digest !== descriptor.digest)
      throw bad(`blob ${descriptor.digest} of the archive has other bytes`);
    if (file.sizeBytes !== descriptor.size)
      throw bad(`blob ${descriptor.digest} is not as long as it should be`);
    return file;
  }

  async #fromLayout(): Promise<ArchivedImage[]> {
    const bytes = await this.#small(this.#file("index.json"), limits.manifestBytesMax, "index");
    const top = parseManifest(bytes, mediaTypes.ociIndex);
    if (top.kind !== "index") throw bad("index.json of the archive is no index");
    const images = new Map<string, ArchivedImage>();
    if (top.index.manifests.length > imagesMax) throw bad(`archive has more than ${imagesMax} images`);
    for (const descriptor of top.index.manifests) {
      if (descriptor.platform?.os === "unknown") continue;
      const image = await this.#fromManifest(descriptor, []);
      const key = digestOf(image.configBytes);
      const known = images.get(key);
      const names = [...(known?.names ?? []), ...namesOf(descriptor)];
      images.set(key, { ...(known ?? image), names: unique(names) });
    }
    return [...images.values()];
  }

  async #fromManifest(descriptor: Descriptor, above: readonly Buffer[]): Promise<ArchivedImage> {
    const bytes = await this.#small(this.#blob(descriptor), limits.manifestBytesMax, "manifest");
    const parsed = parseManifest(bytes, descriptor.mediaType);
    const documents = [...above, bytes];
    if (parsed.kind === "index") {
      if (above.length > 0) throw bad("an index of the archive holds another");
      const inside = parsed.index.manifests.filter(({ digest }) =>
        this.#members.has(`blobs/sha256/${digest.slice("sha256:".length)}`),
      );
      return await this.#fromManifest(choosePlatform(inside, this.#platform), documents);
    }
    const { manifest } = parsed;
    const configBytes = await this.#small(this.#blob(manifest.config), limits.imageConfigBytesMax, "config");
    const config = parseImageConfig(configBytes);
    checkLayersMatch(manifest, config);
    const layers = manifest.layers.map((layer) => ({ descriptor: layer, file: this.#blob(layer).file }));
    return { config, configBytes, layers, documents, manifestDigest: digestOf(bytes), names: [] };
  }

  /** Images of `manifest.json`; for those that the layout has too, it only tells names. */
  async #addClassic(found: ArchivedImage[]): Promise<void> {
    const bytes = await this.#small(this.#file("manifest.json"), limits.manifestBytesMax, "manifest");
    const list = parseStrictJson(bytes, "manifest.json");
    if (!Array.isArray(list) || list.length > imagesMax)
      throw bad("manifest.json of the archive is no list of images");
    for (const entry of list) {
      const item = classicEntry(entry);
      const configBytes = await this.#small(this.#file(item.config), limits.imageConfigBytesMax, "config");
      const at = found.findIndex((image) => image.configBytes.equals(configBytes));
      if (at === -1) found.push(this.#classicImage(item, configBytes));
      else found[at] = { ...found[at]!, names: unique([...found[at]!.names, ...item.names]) };
    }
  }

  #classicImage(item: ClassicEntry, configBytes: Buffer): ArchivedImage {
    const config = parseImageConfig(configBytes);
    const layers = item.layers.map((path) => {
      const { digest, sizeBytes, file } = this.#file(path);
      const descriptor = { mediaType: mediaTypes.ociLayer, digest: parseDigest(digest), size: sizeBytes };
      return { descriptor, file };
    });
    const manifest: Manifest = {
      schemaVersion: 2,
      config: { mediaType: mediaTypes.ociConfig, digest: digestOf(configBytes), size: configBytes.length },
      layers: layers.map(({ descriptor }) => descriptor),
    };
    if (layers.length > limits.layersPerImageMax) throw bad("max depth exceeded");
    if (layers.length !== config.rootfs.diff_ids.length) {
      throw bad(
        `invalid manifest, layers length mismatch: expected ${layers.length}, got ${config.rootfs.diff_ids.length}`,
      );
    }
    checkLayersMatch(manifest, config);
    return { config, configBytes, layers, documents: [], names: item.names };
  }
}

interface ClassicEntry {
  readonly config: string;
  readonly names: readonly Reference[];
  readonly layers: readonly string[];
}

function classicEntry(value: unknown): ClassicEntry {
  const { Config, RepoTags, Layers } = (value ?? {}) as Readonly<Record<string, unknown>>;
  const texts = (list: unknown, what: string): string[] => {
    if (list === undefined || list === null) return [];
    if (!Array.isArray(list) || list.some((item) => typeof item !== "string")) {
      throw bad(`${what} in manifest.json of the archive is no list of texts`);
    }
    return list as string[];
  };
  if (typeof Config !== "string") throw bad("an image of manifest.json has no config");
  const layers = texts(Layers, "Layers");
  return {
    config: plainPath(Config),
    layers: layers.map(plainPath),
    names: texts(RepoTags, "RepoTags").map(tagged),
  };
}

/** Paths of `manifest.json` are names of members, nothing that is looked for elsewhere. */
function plainPath(path: string): string {
  return path.replace(/^(?:\.\/)+/, "");
}

function tagged(text: string): Reference {
  let reference: Reference;
  try {
    reference = parseReference(text);
  } catch (error) {
    throw bad(messageOf(error));
  }
  if (reference.digest !== undefined || reference.tag === undefined) {
    throw bad(`invalid tag ${JSON.stringify(text.slice(0, 300))}`);
  }
  return reference;
}

/**
 * Names that an entry of an index asks for: containerd's annotation, which Docker writes too, or the layout's own where it
 * holds a whole name. A bare tag there (umoci's way) names no image.
 */
function namesOf({ annotations }: Descriptor): Reference[] {
  const text =
    annotations?.["io.containerd.image.name"] ?? annotations?.["org.opencontainers.image.ref.name"];
  if (text === undefined || !/[:/]/.test(text)) return [];
  try {
    const reference = parseReference(text);
    return reference.digest === undefined && reference.tag !== undefined ? [reference] : [];
  } catch {
    return [];
  }
}

function unique(names: readonly Reference[]): Reference[] {
  return [...new Map(names.map((name) => [familiarString(name), name])).values()];
}
