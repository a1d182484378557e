import { chainIds, type Digest, type ImageId, isDigest } from "#base/digest.ts";
import { EngineError, messageOf } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import type { Hold } from "#image/byte-keeper.ts";
import type { Image } from "#image/image.ts";
import type { NewName } from "#image/image-store.ts";
import {
  choosePlatform,
  formatPlatform,
  hostPlatform,
  normalizePlatform,
  parsePlatformText,
  platformSatisfies,
} from "#image/platform.ts";
import type { WantedLayer } from "#image/unpack.ts";
import { checkLayersMatch, type ParsedManifest, parseImageConfig, parseManifest } from "#image/validate.ts";
import type { Credentials } from "#registry/credentials.ts";
import { RegistryError } from "#registry/registry-error.ts";
import type { RemoteManifest, RemoteRepository } from "#registry/remote-repository.ts";
import type { ImageConfig, Manifest, Platform } from "#wire/oci-image.ts";
import {
  familiarName,
  familiarString,
  isNameOnly,
  parseReference,
  type Reference,
  repositoryOf,
  withDefaultTag,
  withDigest,
  withTag,
} from "#wire/reference.ts";
import { type ImageContext, imageEvent, type Report } from "./image-context.ts";
import { withKnownBlob } from "./image-make.ts";
import { layerReporter } from "./image-progress.ts";

export interface PullRequest {
  /** `fromImage`: a name, with or without tag; a colon at its end (`pull -a`) is dropped. */
  readonly fromImage: string;
  /** A tag or a digest; empty with a bare name: all tags. */
  readonly tag: string;
  /** Empty: the host's. */
  readonly platform: string;
  readonly credentials?: Credentials;
}

/** Docker's reading of `fromImage` and `tag`. Without either, the reference is a name alone. */
export function pullTarget(fromImage: string, tag: string): Reference {
  const reference = parseReference(fromImage.replace(/:$/, ""));
  if (tag === "") return reference;
  if (isDigest(tag)) return withDigest(reference, tag as Digest);
  return withTag(reference, tag);
}

/**
 * Pulls one image, or all tags of a repository. Nothing is reported before the registry has shown the manifest: until
 * then a failure is the request's own. Throws Docker's errors; a pull that fails leaves nothing but resumable partials.
 */
export async function pullImage(
  ctx: ImageContext,
  request: PullRequest,
  report: Report,
  signal: AbortSignal,
): Promise<void> {
  const reference = pullTarget(request.fromImage, request.tag);
  const platform = request.platform === "" ? hostPlatform() : parsePlatformText(request.platform);
  const repository = ctx.registry.repository(reference, request.credentials);
  const job: PullJob = { ctx, repository, platform, report, signal };
  let updated = false;
  let image: Image | undefined;
  for (const target of await targetsOf(reference, repository, signal)) {
    const pulled = await pullOne(job, target);
    updated = pulled.updated || updated;
    image = pulled.image;
  }
  if (request.platform !== "" && image !== undefined) warnOfPlatform(job, reference, image);
  const what = familiarString(reference);
  const status = updated ? `Downloaded newer image for ${what}` : `Image is up to date for ${what}`;
  report({ kind: "status", status: `Status: ${status}` });
  imageEvent(ctx, "pull", what, familiarName(reference), image);
}

interface PullJob {
  readonly ctx: ImageContext;
  readonly repository: RemoteRepository;
  readonly platform: Platform;
  readonly report: Report;
  readonly signal: AbortSignal;
}

async function targetsOf(
  reference: Reference,
  repository: RemoteRepository,
  signal: AbortSignal,
): Promise<Reference[]> {
  if (!isNameOnly(reference)) return [reference];
  try {
    const tags = await repository.tags(signal);
    if (tags.length === 0) {
      throw new EngineError("notFound", `no tags in repository ${familiarName(reference)}`);
    }
    return tags.map((tag) => withTag(reference, tag));
  } catch (error) {
    throw translate(error, reference);
  }
}

async function pullOne(job: PullJob, target: Reference): Promise<{ updated: boolean; image: Image }> {
  const { ctx, repository, report, signal } = job;
  const name = target.digest ?? target.tag ?? "";
  let top: RemoteManifest;
  try {
    top = await repository.manifest(name, signal);
  } catch (error) {
    throw translate(error, target);
  }
  const parsed = readTop(top);
  report({ kind: "status", status: `Pulling from ${target.path}`, id: name });
  const found = await singleManifest(job, top, parsed, target);
  await using hold = ctx.images.bytes.hold();
  const image = await assemble(job, found, hold);
  report({ kind: "status", status: `Digest: ${top.digest}` });
  const names = namesFor(target, top.digest);
  const updated = ctx.images.idOf(names.at(-1)!.reference) !== image.id;
  await ctx.images.put(image, names);
  return { updated, image };
}

/** A pull by tag sets the tag and the digest; a pull by digest only that. */
function namesFor(target: Reference, digest: Digest): NewName[] {
  const byDigest = { reference: withDigest(repositoryOf(target), digest), digest };
  if (target.digest !== undefined) return [byDigest];
  return [byDigest, { reference: withDefaultTag(target), digest }];
}

interface FoundManifest {
  readonly manifest: Manifest;
  readonly digest: Digest;
  /** The manifest, and the index it was chosen from. */
  readonly documents: readonly Buffer[];
}

/** What is no manifest is the registry's fault, not the request's: Docker answers 500 before the first line of progress. */
function readTop(top: RemoteManifest): ParsedManifest {
  try {
    return parseManifest(top.bytes, top.mediaType);
  } catch (error) {
    throw new EngineError("system", messageOf(error), { code: "bad-document", cause: error });
  }
}

async function singleManifest(
  job: PullJob,
  top: RemoteManifest,
  parsed: ParsedManifest,
  target: Reference,
): Promise<FoundManifest> {
  if (parsed.kind === "manifest") {
    return { manifest: parsed.manifest, digest: top.digest, documents: [top.bytes] };
  }
  const chosen = choosePlatform(parsed.index.manifests, job.platform);
  let single: RemoteManifest;
  try {
    single = await job.repository.manifest(chosen.digest, job.signal);
  } catch (error) {
    throw translate(error, withDigest(target, chosen.digest));
  }
  if (single.bytes.length !== chosen.size) {
    throw new EngineError("invalid", `manifest ${chosen.digest} is not as long as its index says`, {
      code: "bad-document",
    });
  }
  const inner = parseManifest(single.bytes, single.mediaType);
  if (inner.kind !== "manifest" || (chosen.mediaType !== "" && chosen.mediaType !== inner.mediaType)) {
    throw new EngineError("invalid", `manifest ${chosen.digest} is not what its index says`, {
      code: "bad-document",
    });
  }
  return { manifest: inner.manifest, digest: single.digest, documents: [top.bytes, single.bytes] };
}

/** The image, all of its bytes there and durable. Its row is the caller's to write. */
async function assemble(job: PullJob, found: FoundManifest, hold: Hold): Promise<Image> {
  const { ctx, signal } = job;
  const id = found.manifest.config.digest as string as ImageId;
  const existing = await holdExisting(ctx, id, hold);
  hold.blob(found.manifest.config.digest);
  const configBytes = await configOf(job, found.manifest);
  const config = parseImageConfig(configBytes);
  checkLayersMatch(found.manifest, config);
  const wanted = wantedLayers(found.manifest, config);
  const documents: Digest[] = [];
  const store = async (): Promise<void> => {
    for (const bytes of found.documents) {
      const digest = await ctx.content.put(bytes, { durable: false });
      hold.blob(digest);
      documents.push(digest);
    }
    await ctx.content.put(configBytes, { durable: false });
  };
  if (existing !== undefined) {
    await store();
    await ctx.content.sync();
    const kept = new Set([...(existing.documents ?? []), ...documents]);
    const { removed: _removed, ...visible } = existing;
    return { ...visible, documents: [...kept], manifestDigest: existing.manifestDigest ?? found.digest };
  }
  const progress = layerReporter(job.report);
  const pulled = await ctx.puller.pull({
    layers: wanted,
    hold,
    signal,
    fetch: (descriptor, writer, options) => job.repository.blob(descriptor, writer, options),
    report: progress,
  });
  const layers = await Promise.all(pulled.layers.map((layer) => withKnownBlob(ctx, layer, hold)));
  await store();
  // The blobs first: on one file system the second flush then has little left to do.
  await ctx.content.sync();
  await ctx.snapshotter.seal(pulled.applied);
  if (signal.aborted) throw new EngineError("cancelled", "context canceled");
  return {
    id,
    config,
    layers,
    manifestDigest: found.digest,
    documents,
    lastTaggedNs: "",
    sizeBytes: layers.reduce((sum, layer) => sum + layer.sizeBytes, 0),
  };
}

/** An image that is here already, with everything of it held so that a removal beside us takes nothing away. */
async function holdExisting(ctx: ImageContext, id: ImageId, hold: Hold): Promise<Image | undefined> {
  using _gate = await ctx.images.bytes.gate();
  const image = ctx.images.get(id);
  if (image === undefined || !image.layers.every(({ key }) => ctx.snapshotter.has(key))) return undefined;
  for (const layer of image.layers) {
    hold.layer(layer.key);
    if (layer.blobDigest !== undefined) hold.blob(layer.blobDigest);
  }
  for (const document of image.documents ?? []) hold.blob(document);
  return image;
}

async function configOf(job: PullJob, manifest: Manifest): Promise<Buffer> {
  const { content } = job.ctx;
  const { digest } = manifest.config;
  if (await content.has(digest)) {
    try {
      return await content.read(digest, limits.imageConfigBytesMax);
    } catch (error) {
      job.ctx.log.warn("kept image config cannot be read, fetched again", { digest, error });
    }
  }
  return await job.repository.smallBlob(manifest.config, limits.imageConfigBytesMax, job.signal);
}

function wantedLayers(manifest: Manifest, config: ImageConfig): WantedLayer[] {
  const chains = chainIds(config.rootfs.diff_ids);
  return manifest.layers.map((descriptor, index) => ({
    descriptor,
    diffId: config.rootfs.diff_ids[index]!,
    chainId: chains[index]!,
  }));
}

function warnOfPlatform(job: PullJob, reference: Reference, image: Image): void {
  const { architecture, os, variant } = image.config;
  const actual = normalizePlatform({ architecture, os, ...(variant === undefined ? {} : { variant }) });
  if (platformSatisfies(actual, job.platform)) return;
  const wanted = formatPlatform(job.platform);
  const text = `image with reference ${familiarString(reference)} was found but its platform (${formatPlatform(actual)}) does not match the specified platform (${wanted})`;
  job.report({ kind: "status", status: `WARNING: ${text}` });
}

/** Docker's translation of what a registry says into what a user understands. */
function translate(error: unknown, reference: Reference): unknown {
  if (!(error instanceof RegistryError)) return error;
  const cause = messageOf(error);
  const notFound = (message: string): EngineError =>
    new EngineError("notFound", `${message}: ${cause}`, { code: error.code, cause: error });
  switch (error.registryCode) {
    case "DENIED": {
      const name = familiarName(reference);
      return notFound(
        `pull access denied for ${name}, repository does not exist or may require 'docker login'`,
      );
    }
    case "MANIFEST_UNKNOWN":
      return notFound(`manifest for ${familiarString(reference)} not found`);
    case "NAME_UNKNOWN":
      return notFound(`repository ${familiarName(reference)} not found`);
    default:
      return error;
  }
}
