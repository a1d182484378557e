/** Use case: save. One tar with Docker's layout and the OCI layout over the same files, as Engine 25 and later write. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { Readable } from "node:stream";
import { paddingOf } from "#archive/tar-format.ts";
import { encodeHeader } from "#archive/tar-write.ts";
import type { ByteString } from "#base/byte-string.ts";
import { bytesOfText } from "#base/byte-string.ts";
import { type Digest, digestOf, digestOfHash, hexOf } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import type { Image, ImageLayer } from "#image/image.ts";
import { type Descriptor, mediaTypes } from "#wire/oci-image.ts";
import {
  canonicalName,
  canonicalString,
  familiarName,
  familiarString,
  isNameOnly,
  parseAnyReference,
  type Reference,
} from "#wire/reference.ts";
import { type ImageContext, imageEvent } from "./image-context.ts";
import { holdImage } from "./image-make.ts";
import { manifestOf } from "./image-manifest.ts";

interface SavedImage {
  readonly image: Image;
  readonly names: Reference[];
}

/**
 * An archive of images: names with a tag, names without one (all tags of the repository), ids (without names). A pulled
 * image keeps its manifest and its compressed layers, so that its digests are the same after a load. Throws `notFound`.
 */
export async function saveImages(
  ctx: ImageContext,
  texts: readonly string[],
  signal: AbortSignal,
): Promise<Readable> {
  const hold = ctx.images.bytes.hold();
  const chosen = choose(ctx, texts);
  try {
    for (const { image } of chosen) await holdImage(ctx, image, hold);
  } catch (error) {
    await hold[Symbol.asyncDispose]();
    throw error;
  }
  const archive = async function* (): AsyncGenerator<Uint8Array> {
    await using _hold = hold;
    yield* new ArchiveWriter(ctx, signal).images(chosen);
  };
  for (const { image } of chosen) imageEvent(ctx, "save", image.id, image.id, image);
  const stream = Readable.from(archive(), { objectMode: false, highWaterMark: 1 });
  // A generator that was never begun does not run its end either.
  stream.once("close", () => void hold[Symbol.asyncDispose]());
  return stream;
}

function choose(ctx: ImageContext, texts: readonly string[]): SavedImage[] {
  const chosen = new Map<string, SavedImage>();
  const add = (image: Image, name: Reference | undefined): void => {
    const entry = chosen.get(image.id) ?? { image, names: [] };
    chosen.set(image.id, entry);
    const known =
      name === undefined || entry.names.some((other) => canonicalString(other) === canonicalString(name));
    if (!known && name !== undefined && name.digest === undefined) entry.names.push(name);
  };
  for (const text of texts) {
    const any = parseAnyReference(text);
    const image = ctx.images.find(text);
    if (any.kind === "id") {
      if (image === undefined) throw missing(text);
      add(image, undefined);
      continue;
    }
    const { reference } = any;
    if (isNameOnly(reference)) {
      const all = ctx.images.list().flatMap((other) =>
        ctx.images
          .namesOf(other.id)
          .filter((name) => name.digest === undefined && canonicalName(name) === canonicalName(reference))
          .map((name) => ({ other, name })),
      );
      for (const { other, name } of all) add(other, name);
      if (all.length > 0) continue;
    }
    if (image === undefined) throw missing(text);
    // The start of an id looks like a name.
    const isName = ctx.images
      .namesOf(image.id)
      .some((name) => canonicalString(name) === canonicalString(reference));
    add(image, isName ? reference : undefined);
  }
  return [...chosen.values()];
}

function missing(text: string): EngineError {
  return new EngineError("notFound", `No such image: ${text}`, { code: "no-such-image" });
}

/** Classic readers want time stamps; equal images give equal archives. */
const mtimeNs = 0n;

interface ClassicEntry {
  readonly Config: string;
  readonly RepoTags: string[] | null;
  readonly Layers: string[];
  readonly LayerSources: Record<string, Descriptor>;
}

class ArchiveWriter {
  readonly #ctx: ImageContext;
  readonly #signal: AbortSignal;
  readonly #written = new Set<Digest>();
  readonly #classic: ClassicEntry[] = [];
  readonly #manifests: Descriptor[] = [];
  readonly #repositories: Record<string, Record<string, string>> = Object.create(null) as Record<
    string,
    Record<string, string>
  >;

  constructor(ctx: ImageContext, signal: AbortSignal) {
    this.#ctx = ctx;
    this.#signal = signal;
  }

  async *images(chosen: readonly SavedImage[]): AsyncGenerator<Uint8Array> {
    yield header("blobs", "directory", 0);
    yield header("blobs/sha256", "directory", 0);
    for (const saved of chosen) yield* this.#image(saved);
    yield* small("index.json", {
      schemaVersion: 2,
      mediaType: mediaTypes.ociIndex,
      manifests: this.#manifests,
    });
    yield* small("manifest.json", this.#classic);
    yield* small("oci-layout", { imageLayoutVersion: "1.0.0" });
    if (Object.keys(this.#repositories).length > 0) yield* small("repositories", this.#repositories);
    yield Buffer.alloc(1024);
  }

  async *#image({ image, names }: SavedImage): AsyncGenerator<Uint8Array> {
    const { content } = this.#ctx;
    const { manifest, bytes, mediaType } = await manifestOf(this.#ctx, image, this.#signal);
    const configBytes = await content.read(image.id as string as Digest, limits.imageConfigBytesMax);
    yield* this.#bytes(configBytes);
    for (const [index, layer] of manifest.layers.entries()) yield* this.#layer(image.layers[index]!, layer);
    yield* this.#bytes(bytes);
    const descriptor: Descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length };
    const tags = names.filter(({ tag }) => tag !== undefined);
    if (tags.length === 0) this.#manifests.push(descriptor);
    for (const name of tags) {
      const annotations = {
        "io.containerd.image.name": canonicalString(name),
        "org.opencontainers.image.ref.name": name.tag!,
      };
      this.#manifests.push({ ...descriptor, annotations });
      const top = image.layers.at(-1)?.chainId;
      const repository = this.#repositories[familiarName(name)] ?? {};
      repository[name.tag!] = top === undefined ? hexOf(image.id) : hexOf(top);
      this.#repositories[familiarName(name)] = repository;
    }
    this.#classic.push({
      Config: blobPath(image.id as string as Digest),
      RepoTags: tags.length === 0 ? null : tags.map(familiarString),
      Layers: manifest.layers.map(({ digest }) => blobPath(digest)),
      LayerSources: Object.fromEntries(
        manifest.layers.map((layer, index) => [image.layers[index]!.diffId, plainDescriptor(layer)]),
      ),
    });
  }

  async *#bytes(bytes: Buffer): AsyncGenerator<Uint8Array> {
    const digest = digestOf(bytes);
    if (this.#written.has(digest)) return;
    this.#written.add(digest);
    yield header(blobPath(digest), "file", bytes.length);
    yield* padded([bytes], bytes.length);
  }

  /** A layer's compressed blob as it is kept, or the layer packed again. */
  async *#layer(layer: ImageLayer, { digest, size }: Descriptor): AsyncGenerator<Uint8Array> {
    if (this.#written.has(digest)) return;
    this.#written.add(digest);
    const { content, snapshotter } = this.#ctx;
    yield header(blobPath(digest), "file", size);
    if (await content.has(digest)) {
      yield* padded(createReadStream(content.pathOf(digest), { highWaterMark: 512 * 1024 }), size);
      return;
    }
    const hash = createHash("sha256");
    const tar = snapshotter.layerTar(layer.key, { signal: this.#signal });
    yield* padded(tar, size, (chunk) => hash.update(chunk));
    if (digestOfHash(hash) !== digest) throw damaged(layer);
  }
}

function damaged(layer: ImageLayer): EngineError {
  return new EngineError("system", `layer ${layer.diffId} is not what it was made of`, {
    code: "damaged-layer",
  });
}

function plainDescriptor({ mediaType, digest, size }: Descriptor): Descriptor {
  return { mediaType, digest, size };
}

function blobPath(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

function header(path: string, type: "file" | "directory", sizeBytes: number): Buffer {
  return encodeHeader({
    path: bytesOfText(path),
    type,
    mode: type === "file" ? 0o644 : 0o755,
    uid: 0,
    gid: 0,
    sizeBytes,
    mtimeNs,
    linkPath: "" as ByteString,
    deviceMajor: 0,
    deviceMinor: 0,
  });
}

function* small(path: string, document: object): Generator<Uint8Array> {
  const bytes = Buffer.from(`${JSON.stringify(document)}\n`);
  yield header(path, "file", bytes.length);
  yield bytes;
  yield Buffer.alloc(paddingOf(bytes.length));
}

/** Exactly as many bytes as the header says, then padding. */
async function* padded(
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  sizeBytes: number,
  see?: (chunk: Uint8Array) => void,
): AsyncGenerator<Uint8Array> {
  let written = 0;
  for await (const chunk of chunks) {
    written += chunk.length;
    if (written > sizeBytes) break;
    see?.(chunk);
    yield chunk;
  }
  if (written !== sizeBytes) {
    throw new EngineError("system", "a kept layer has another length than it should", {
      code: "damaged-layer",
    });
  }
  yield Buffer.alloc(paddingOf(sizeBytes));
}
