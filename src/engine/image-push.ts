/** Use case: push. Layers and the config side by side, then the manifest under its tag: a tag never points at less. */
import { Readable } from "node:stream";
import { type Digest, digestOf } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { Semaphore } from "#base/lock.ts";
import type { Hold } from "#image/byte-keeper.ts";
import type { Image, ImageLayer } from "#image/image.ts";
import { formatPlatform, platformSatisfies } from "#image/platform.ts";
import type { Credentials } from "#registry/credentials.ts";
import type { PushBlob } from "#registry/push-repository.ts";
import type { Descriptor, Platform } from "#wire/oci-image.ts";
import {
  canonicalName,
  familiarName,
  familiarString,
  isNameOnly,
  parseReference,
  type Reference,
  repositoryOf,
  withDigest,
  withTag,
} from "#wire/reference.ts";
import { type ImageContext, imageEvent, type Report } from "./image-context.ts";
import { holdImage } from "./image-make.ts";
import { type ImageManifest, knownManifest, newManifest } from "./image-manifest.ts";
import { type PushJob, type SentLayer, sendLayers } from "./image-push-layers.ts";

export interface PushRequest {
  /** A repository, or a name with its tag. */
  readonly name: string;
  /** Empty with a bare repository: every tag of it. */
  readonly tag: string;
  readonly credentials?: Credentials;
  readonly platform?: Platform;
}

/** Other repositories that a token is asked for: each costs the token server a decision. */
const mountSourcesMax = 3;

/** Pushes one tag, or all of a repository. What fails after the first line is the stream's last. */
export async function pushImage(
  ctx: ImageContext,
  request: PushRequest,
  report: Report,
  signal: AbortSignal,
): Promise<void> {
  const reference = targetOf(request);
  report({ kind: "status", status: `The push refers to repository [${canonicalName(reference)}]` });
  const targets = targetsOf(ctx, reference);
  if (targets.length === 0) {
    const message = `An image does not exist locally with the tag: ${familiarName(reference)}`;
    throw new EngineError("notFound", message, { code: "no-such-image" });
  }
  const images = targets.map((target) => ({ target, image: ctx.images.resolve(familiarString(target)) }));
  const sources = mountSources(
    ctx,
    reference,
    images.map(({ image }) => image),
  );
  const repository = ctx.registry.pushRepository(reference, request.credentials, [
    ...new Set(sources.values()),
  ]);
  await repository.connect(signal);
  const slots = new Semaphore(ctx.uploadsAtOnce);
  for (const { target, image } of images) {
    checkPlatform(target, image, request.platform);
    await new Push({ ctx, repository, report, signal, slots, sources }).run(target, image);
  }
}

function targetOf({ name, tag }: PushRequest): Reference {
  const reference = parseReference(name);
  if (reference.digest !== undefined) {
    throw new EngineError("invalid", "cannot push a digest reference", { code: "bad-reference" });
  }
  return tag === "" ? reference : withTag(reference, tag);
}

function targetsOf(ctx: ImageContext, reference: Reference): Reference[] {
  if (!isNameOnly(reference)) return ctx.images.idOf(reference) === undefined ? [] : [reference];
  return ctx.images
    .list()
    .flatMap(({ id }) => ctx.images.namesOf(id))
    .filter((name) => name.digest === undefined && canonicalName(name) === canonicalName(reference))
    .sort((left, right) => ((left.tag ?? "") < (right.tag ?? "") ? -1 : 1));
}

function checkPlatform(target: Reference, image: Image, wanted: Platform | undefined): void {
  if (wanted === undefined) return;
  const { os, architecture, variant } = image.config;
  if (platformSatisfies({ os, architecture, ...(variant === undefined ? {} : { variant }) }, wanted)) return;
  const message = `image with reference ${familiarString(target)} was found but does not provide the specified platform (${formatPlatform(wanted)})`;
  throw new EngineError("notFound", message, { code: "no-platform" });
}

/**
 * Where else in the registry a layer lies, by its blob: in repositories that an image with this very blob was pulled from or
 * pushed to, which its names by digest tell.
 */
function mountSources(ctx: ImageContext, target: Reference, images: readonly Image[]): Map<Digest, string> {
  const wanted = new Set(images.flatMap(({ layers }) => layers.map(({ blobDigest }) => blobDigest)));
  const sources = new Map<Digest, string>();
  const repositories = new Set<string>();
  for (const image of ctx.images.list()) {
    const elsewhere = ctx.images
      .namesOf(image.id)
      .find(
        ({ domain, path, digest }) =>
          digest !== undefined && domain === target.domain && path !== target.path,
      );
    if (elsewhere === undefined) continue;
    if (!repositories.has(elsewhere.path) && repositories.size >= mountSourcesMax) continue;
    for (const { blobDigest } of image.layers) {
      if (blobDigest === undefined || !wanted.has(blobDigest) || sources.has(blobDigest)) continue;
      sources.set(blobDigest, elsewhere.path);
      repositories.add(elsewhere.path);
    }
  }
  return sources;
}

/** One image on its way to one tag. */
class Push {
  readonly #job: PushJob;

  constructor(job: PushJob) {
    this.#job = job;
  }

  async run(target: Reference, image: Image): Promise<void> {
    const { ctx, repository, report, signal } = this.#job;
    await using hold = ctx.images.bytes.hold();
    await holdImage(ctx, image, hold);
    const kept = await this.#manifestToKeep(image, hold);
    const document = await this.#send(image, kept, hold);
    const { manifest, bytes, mediaType } = document;
    const digest = await repository.manifest(target.tag!, bytes, mediaType, signal);
    const name = { reference: withDigest(repositoryOf(target), digestOf(bytes)), digest: digestOf(bytes) };
    await ctx.images.update(image.id, [name], (now) =>
      kept === undefined ? withPacked(now, manifest.layers, name.digest) : now,
    );
    report({ kind: "status", status: `${target.tag}: digest: ${digest} size: ${bytes.length}` });
    report({ kind: "aux", aux: { Tag: target.tag, Digest: digest, Size: bytes.length } });
    imageEvent(ctx, "push", familiarString(target), familiarName(target), image);
  }

  /**
   * A manifest from an archive whose layers are not compressed is not what a registry should hold; one that came from a
   * registry goes back as it is.
   */
  async #manifestToKeep(image: Image, hold: Hold): Promise<ImageManifest | undefined> {
    const { ctx } = this.#job;
    const known = await knownManifest(ctx, image);
    if (known === undefined) return undefined;
    const { layers } = known.manifest;
    const isPlain = layers.some(({ mediaType }) => mediaType.endsWith(".tar"));
    if (isPlain && ctx.images.digestsOf(image.id).length === 0) return undefined;
    const found = await Promise.all(
      layers.map(({ digest }, index) => this.#canKeep(image.layers[index]!, digest, hold)),
    );
    return found.every(Boolean) ? known : undefined;
  }

  /**
   * Whether a layer can be had as the manifest names it. One that was here before the image came was not fetched: then the
   * registry may have it, or packing gives the same bytes again, as it does where the layer was first pushed from here.
   */
  async #canKeep(layer: ImageLayer, digest: Digest, hold: Hold): Promise<boolean> {
    const { ctx, repository, signal } = this.#job;
    if (await ctx.content.has(digest)) return true;
    if (await repository.hasBlob(digest, signal)) return true;
    return (await ctx.packer.pack(layer, hold, signal)).digest === digest;
  }

  /** Brings all that the manifest will name into the repository; the first failure stops the rest. */
  async #send(image: Image, kept: ImageManifest | undefined, hold: Hold): Promise<ImageManifest> {
    const { repository } = this.#job;
    const stop = new AbortController();
    const signal = AbortSignal.any([this.#job.signal, stop.signal]);
    const layers = sendLayers({ ...this.#job, signal }, image, kept, hold);
    const document = kept === undefined ? this.#newManifest(image, layers, hold) : Promise.resolve(kept);
    const config = this.#config(image, kept).then((blob) => repository.blob(blob, { signal }));
    const all = [document, config, ...layers.map(({ sent }) => sent)] as const;
    try {
      await Promise.all(all);
      return await document;
    } catch (error) {
      stop.abort(new EngineError("cancelled", "context canceled"));
      throw error;
    } finally {
      await Promise.allSettled(all);
    }
  }

  /**
   * A manifest of the layers as they were packed. It and they are flushed while they are still sent: what was made for this
   * push serves the next, with equal digests.
   */
  async #newManifest(image: Image, layers: readonly SentLayer[], hold: Hold): Promise<ImageManifest> {
    const { ctx } = this.#job;
    const made = await newManifest(ctx, image, await Promise.all(layers.map(({ described }) => described)));
    hold.blob(digestOf(made.bytes));
    await ctx.content.put(made.bytes, { durable: false });
    await ctx.content.sync();
    return made;
  }

  async #config(image: Image, kept: ImageManifest | undefined): Promise<PushBlob> {
    const bytes = await this.#job.ctx.content.read(image.id as string as Digest, limits.imageConfigBytesMax);
    const { digest, size } = kept?.manifest.config ?? {
      digest: image.id as string as Digest,
      size: bytes.length,
    };
    return {
      digest,
      sizeBytes: size,
      open: (start) => Readable.from([bytes.subarray(start)], { objectMode: false }),
    };
  }
}

function withPacked(image: Image, layers: readonly Descriptor[], manifestDigest: Digest): Image {
  return {
    ...image,
    manifestDigest,
    documents: [...new Set([...(image.documents ?? []), manifestDigest])],
    layers: image.layers.map((layer, index) => {
      const { digest, size, mediaType } = layers[index]!;
      return { ...layer, blobDigest: digest, blobSizeBytes: size, mediaType };
    }),
  };
}
