/** Use case: push. Layers side by side, then the config, then the manifest under its tag: a tag never points at less. */
import { createReadStream } from "node:fs";
import { Readable } from "node:stream";
import { type Digest, digestOf } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import { shortId } from "#base/ids.ts";
import { limits } from "#base/limits.ts";
import { Semaphore } from "#base/lock.ts";
import type { Hold } from "#image/byte-keeper.ts";
import type { Image, ImageLayer } from "#image/image.ts";
import { formatPlatform, platformSatisfies } from "#image/platform.ts";
import type { Credentials } from "#registry/credentials.ts";
import type { PushBlob, PushOutcome, PushRepository } from "#registry/push-repository.ts";
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
import { type ImageManifest, keptManifest, newManifest, ociLayerType } from "./image-manifest.ts";

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
const barIntervalMs = 100;

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

interface PushJob {
  readonly ctx: ImageContext;
  readonly repository: PushRepository;
  readonly report: Report;
  readonly signal: AbortSignal;
  readonly slots: Semaphore;
  readonly sources: ReadonlyMap<Digest, string>;
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
    const kept = await this.#manifestToKeep(image);
    const layers = await this.#layers(image, kept, hold);
    const { manifest, bytes, mediaType } = kept ?? (await newManifest(ctx, image, layers));
    await repository.blob(await this.#config(image, manifest.config), { signal });
    const digest = await repository.manifest(target.tag!, bytes, mediaType, signal);
    await this.#remember(target, image, { manifest, bytes, mediaType }, kept === undefined, hold);
    report({ kind: "status", status: `${target.tag}: digest: ${digest} size: ${bytes.length}` });
    report({ kind: "aux", aux: { Tag: target.tag, Digest: digest, Size: bytes.length } });
    imageEvent(ctx, "push", familiarString(target), familiarName(target), image);
  }

  /**
   * A manifest from an archive whose layers are not compressed is not what a registry should hold; one that came from a
   * registry goes back as it is.
   */
  async #manifestToKeep(image: Image): Promise<ImageManifest | undefined> {
    const { ctx } = this.#job;
    const kept = await keptManifest(ctx, image);
    const isPlain = kept?.manifest.layers.some(({ mediaType }) => mediaType.endsWith(".tar")) === true;
    return isPlain && ctx.images.digestsOf(image.id).length === 0 ? undefined : kept;
  }

  /** All layers, several at a time; the first failure stops the others. */
  async #layers(image: Image, kept: ImageManifest | undefined, hold: Hold): Promise<Descriptor[]> {
    const { report } = this.#job;
    const stop = new AbortController();
    const signal = AbortSignal.any([this.#job.signal, stop.signal]);
    const done = new Map<string, Promise<Descriptor>>();
    // Docker tells them top first.
    for (const { diffId } of image.layers.toReversed()) {
      report({ kind: "progress", id: shortId(diffId), action: "Preparing" });
    }
    const all = image.layers.map((layer, index) => {
      const known = done.get(layer.diffId);
      if (known !== undefined) return known;
      const work = this.#layer(layer, kept?.manifest.layers[index], hold, signal);
      done.set(layer.diffId, work);
      return work;
    });
    try {
      return await Promise.all(all);
    } catch (error) {
      stop.abort(new EngineError("cancelled", "context canceled"));
      throw error;
    } finally {
      await Promise.allSettled(all);
    }
  }

  async #layer(
    layer: ImageLayer,
    kept: Descriptor | undefined,
    hold: Hold,
    signal: AbortSignal,
  ): Promise<Descriptor> {
    const { ctx, repository, slots, sources } = this.#job;
    const id = shortId(layer.diffId);
    const tell = (action: string): void => this.#job.report({ kind: "progress", id, action });
    let slot = slots.tryAcquire();
    if (slot === undefined) {
      tell("Waiting");
      slot = await slots.acquire();
    }
    using _slot = slot;
    signal.throwIfAborted();
    const descriptor = kept ?? (await this.#packed(layer, hold, signal));
    const { digest, size } = descriptor;
    const from = sources.get(digest);
    const blob: PushBlob = {
      digest,
      sizeBytes: size,
      open: (start) => createReadStream(ctx.content.pathOf(digest), { start, highWaterMark: 256 * 1024 }),
    };
    const outcome = await repository.blob(blob, {
      signal,
      ...(from === undefined ? {} : { mountFrom: [from] }),
      onProgress: this.#bar(id, size),
      onRetry: (seconds) => tell(`Retrying in ${seconds} second${seconds === 1 ? "" : "s"}`),
    });
    tell(textOf(outcome));
    return descriptor;
  }

  async #packed(layer: ImageLayer, hold: Hold, signal: AbortSignal): Promise<Descriptor> {
    const { digest, sizeBytes, mediaType } = await this.#job.ctx.packer.pack(layer, hold, signal);
    return { mediaType: ociLayerType(mediaType), digest, size: sizeBytes };
  }

  #bar(id: string, total: number): (sentBytes: number) => void {
    let shownAt = 0;
    return (current) => {
      const now = performance.now();
      if (now - shownAt < barIntervalMs && current < total) return;
      shownAt = now;
      this.#job.report({ kind: "progress", id, action: "Pushing", detail: { current, total } });
    };
  }

  async #config(image: Image, { digest, size }: Descriptor): Promise<PushBlob> {
    const bytes = await this.#job.ctx.content.read(image.id as string as Digest, limits.imageConfigBytesMax);
    return {
      digest,
      sizeBytes: size,
      open: (start) => Readable.from([bytes.subarray(start)], { objectMode: false }),
    };
  }

  /** What was made for this push serves the next, with equal digests; the name by digest is Docker's `RepoDigests`. */
  async #remember(
    target: Reference,
    image: Image,
    { manifest, bytes }: ImageManifest,
    isNew: boolean,
    hold: Hold,
  ): Promise<void> {
    const { ctx } = this.#job;
    const digest = digestOf(bytes);
    if (isNew) {
      hold.blob(digest);
      await ctx.content.put(bytes, { durable: false });
      await ctx.content.sync();
    }
    const name = { reference: withDigest(repositoryOf(target), digest), digest };
    await ctx.images.update(image.id, [name], (now) =>
      isNew ? withPacked(now, manifest.layers, digest) : now,
    );
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

function textOf(outcome: PushOutcome): string {
  if (outcome.kind === "exists") return "Layer already exists";
  return outcome.kind === "mounted" ? `Mounted from ${outcome.from}` : "Pushed";
}
