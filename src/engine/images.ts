import type { Readable } from "node:stream";
import type { Clock } from "#base/clock.ts";
import type { ImageId } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import type { Log } from "#base/log.ts";
import { skiffVersion } from "#base/version.ts";
import type { ContentStore } from "#content/content-store.ts";
import type { Image } from "#image/image.ts";
import { LocalImageStore } from "#image/image-store.ts";
import { LayerPacker } from "#image/layer-pack.ts";
import { LayerPuller } from "#image/layer-pull.ts";
import { RegistryClient, type RegistryConfig } from "#registry/client.ts";
import { decodeRegistryAuth } from "#registry/credentials.ts";
import type { SearchResult } from "#registry/search.ts";
import { defaultTiming } from "#registry/timing.ts";
import type { LayerKey, Snapshotter } from "#snapshot/snapshotter.ts";
import type { Database } from "#state/database.ts";
import { familiarString, parseReference, withDefaultTag, withTag } from "#wire/reference.ts";
import {
  type DistributionDetails,
  inspectDistribution,
  type LoginRequest,
  loginToRegistry,
  searchImages,
} from "./auth.ts";
import { type CommitRequest, type CommitSource, commitContainer } from "./container-commit.ts";
import type { EventBus } from "./events.ts";
import { type ImageContext, type ImageUser, imageEvent, type Report } from "./image-context.ts";
import { type ImportRequest, importImage } from "./image-import.ts";
import { type HistoryLine, type ImageDetails, imageHistory, inspectImage } from "./image-inspect.ts";
import { type ImageSummary, type ListOptions, listImages, pruneSelection } from "./image-list.ts";
import { type LoadRequest, loadImages } from "./image-load.ts";
import { pullImage } from "./image-pull.ts";
import { type PushRequest, pushImage } from "./image-push.ts";
import {
  type PruneResult,
  pruneImages,
  type RemovalRecord,
  type RemoveOptions,
  removeImage,
  storedBytes,
} from "./image-remove.ts";
import { saveImages } from "./image-save.ts";
import { removeTemporaries } from "./temporary-files.ts";

export interface ImageServiceDeps {
  readonly database: Database;
  readonly content: ContentStore;
  readonly snapshotter: Snapshotter;
  readonly events: EventBus;
  readonly clock: Clock;
  readonly log: Log;
  /** Made when needed, on the data root's file system. */
  readonly temporaryDir: string;
  readonly config: Omit<RegistryConfig, "userAgent"> & Partial<TransferSettings>;
  /** Containers whose rows name the image; asked whenever one is to be removed. */
  readonly containersUsing: (id: ImageId) => readonly ImageUser[];
  /** Layers that the build cache holds. */
  readonly keptLayers?: () => Iterable<LayerKey>;
}

/** What dockerd can be told anew while it runs. */
export interface TransferSettings {
  readonly mirrors: readonly string[];
  readonly insecureRegistries: readonly string[];
  readonly maxConcurrentDownloads: number;
  readonly maxConcurrentUploads: number;
  readonly maxDownloadAttempts: number;
}

/** As dockerd's `--max-concurrent-uploads`. */
const concurrentUploads = 5;

export interface PullCall {
  readonly fromImage: string;
  readonly tag: string;
  readonly platform: string;
  /** `X-Registry-Auth` as it came; what cannot be read counts as none, as in Docker. */
  readonly registryAuth: string | undefined;
}

export interface PushCall extends Omit<PushRequest, "credentials"> {
  readonly registryAuth: string | undefined;
}

/** The image use cases of the engine. `store` is what containers resolve their images with. */
export interface ImageService extends AsyncDisposable {
  readonly store: LocalImageStore;
  /** For use cases beside these: builds. */
  readonly context: ImageContext;
  pull(call: PullCall, report: Report, signal: AbortSignal): Promise<void>;
  import(request: ImportRequest, report: Report, signal: AbortSignal): Promise<void>;
  push(call: PushCall, report: Report, signal: AbortSignal): Promise<void>;
  login(request: LoginRequest, signal: AbortSignal): Promise<string>;
  search(
    request: { term: string; limit: number; filters: string | undefined },
    signal: AbortSignal,
  ): Promise<SearchResult[]>;
  distribution(
    name: string,
    registryAuth: string | undefined,
    signal: AbortSignal,
  ): Promise<DistributionDetails>;
  save(names: readonly string[], signal: AbortSignal): Promise<Readable>;
  load(request: LoadRequest, report: Report, signal: AbortSignal): Promise<void>;
  commit(source: CommitSource, request: CommitRequest, signal: AbortSignal): Promise<Image>;
  list(options: ListOptions): ImageSummary[];
  inspect(name: string): ImageDetails;
  history(name: string): HistoryLine[];
  tag(name: string, repository: string, tag: string): Promise<void>;
  remove(name: string, options: RemoveOptions): Promise<RemovalRecord[]>;
  prune(filters: string | undefined): Promise<PruneResult>;
  /** Bytes of all layers of images on the disk, unpacked and compressed, a shared one once. */
  storedBytes(): number;
  /** Keeps an image until its container's row exists; the release takes care of an image removed meanwhile. */
  lease(id: ImageId): AsyncDisposable;
  /** To be called once a container's row is gone: an image that was kept for it alone goes too. */
  containerRemoved(id: ImageId): Promise<void>;
  /** For transfers that begin from now on. */
  reconfigure(settings: TransferSettings): void;
}

/** Opens the images of a data root. Removes what a crash left of pulls and removals. */
export async function createImageService(deps: ImageServiceDeps): Promise<ImageService> {
  const { content, snapshotter, events, clock, log, temporaryDir, containersUsing } = deps;
  removeTemporaries(temporaryDir, log);
  const images = await LocalImageStore.open(deps);
  const timing = { ...(deps.config.timing ?? defaultTiming) };
  timing.attemptsMax = deps.config.maxDownloadAttempts ?? timing.attemptsMax;
  const registryConfig = { ...deps.config, timing, userAgent: `skiff/${skiffVersion}` };
  const registry = new RegistryClient(registryConfig);
  const puller = new LayerPuller({
    content,
    snapshotter,
    keeper: images.bytes,
    maxConcurrentDownloads: deps.config.maxConcurrentDownloads ?? limits.concurrentDownloads,
  });
  const ctx: ImageContext = {
    images,
    content,
    snapshotter,
    registry,
    puller,
    packer: new LayerPacker({ content, snapshotter, images, temporaryDir }),
    events,
    clock,
    log,
    temporaryDir,
    containersUsing,
    leases: new Map(),
    uploadsAtOnce: deps.config.maxConcurrentUploads ?? concurrentUploads,
  };
  for (const image of images.listAll()) await forgetIfUnused(ctx, image);
  const gone = await images.bytes.collect();
  if (gone.layers + gone.blobs > 0) log.info("removed leftovers of images", gone);
  return serviceOf(ctx, (settings) => {
    // The client looks at these whenever it is asked for a repository or begins an attempt.
    registryConfig.mirrors = settings.mirrors;
    registryConfig.insecureRegistries = settings.insecureRegistries;
    timing.attemptsMax = settings.maxDownloadAttempts;
    ctx.puller.setConcurrency(settings.maxConcurrentDownloads);
    ctx.uploadsAtOnce = settings.maxConcurrentUploads;
  });
}

async function forgetIfUnused(ctx: ImageContext, image: Image | undefined): Promise<void> {
  if (image?.removed !== true) return;
  if ((ctx.leases.get(image.id) ?? 0) > 0 || ctx.containersUsing(image.id).length > 0) return;
  await ctx.images.forget(image.id);
}

function serviceOf(ctx: ImageContext, reconfigure: ImageService["reconfigure"]): ImageService {
  return {
    reconfigure,
    store: ctx.images,
    context: ctx,
    pull: async ({ registryAuth, ...call }, report, signal) => {
      const credentials = credentialsOf(registryAuth);
      const request = credentials === undefined ? call : { ...call, credentials };
      await pullImage(ctx, request, report, signal);
    },
    import: (request, report, signal) => importImage(ctx, request, report, signal),
    push: async ({ registryAuth, ...call }, report, signal) => {
      const credentials = credentialsOf(registryAuth);
      const request = credentials === undefined ? call : { ...call, credentials };
      await pushImage(ctx, request, report, signal);
    },
    login: (request, signal) => loginToRegistry(ctx, request, signal),
    search: (request, signal) => searchImages(ctx, request, signal),
    distribution: (name, registryAuth, signal) =>
      inspectDistribution(ctx, name, credentialsOf(registryAuth), signal),
    save: (names, signal) => saveImages(ctx, names, signal),
    load: (request, report, signal) => loadImages(ctx, request, report, signal),
    commit: (source, request, signal) => commitContainer(ctx, source, request, signal),
    list: (options) => listImages(ctx, options),
    inspect: (name) => inspectImage(ctx, name),
    history: (name) => imageHistory(ctx, name),
    tag: (name, repository, tag) => tagImage(ctx, name, repository, tag),
    remove: (name, options) => removeImage(ctx, name, options),
    prune: (filters) => pruneImages(ctx, pruneSelection(ctx, filters)),
    storedBytes: () => storedBytes(ctx),
    lease: (id) => leaseImage(ctx, id),
    containerRemoved: (id) => forgetIfUnused(ctx, ctx.images.get(id)),
    [Symbol.asyncDispose]: () => ctx.registry[Symbol.asyncDispose](),
  };
}

function credentialsOf(header: string | undefined): ReturnType<typeof decodeRegistryAuth> {
  try {
    return decodeRegistryAuth(header);
  } catch {
    return undefined;
  }
}

function leaseImage(ctx: ImageContext, id: ImageId): AsyncDisposable {
  ctx.leases.set(id, (ctx.leases.get(id) ?? 0) + 1);
  let held = true;
  return {
    [Symbol.asyncDispose]: async () => {
      if (!held) return;
      held = false;
      const left = (ctx.leases.get(id) ?? 1) - 1;
      if (left === 0) ctx.leases.delete(id);
      else ctx.leases.set(id, left);
      await forgetIfUnused(ctx, ctx.images.get(id));
    },
  };
}

async function tagImage(ctx: ImageContext, name: string, repository: string, tag: string): Promise<void> {
  const image = ctx.images.resolve(name);
  const reference = parseReference(repository);
  if (reference.digest !== undefined) {
    throw new EngineError("invalid", "refusing to create a tag with a digest reference", {
      code: "bad-reference",
    });
  }
  const target = tag === "" ? withDefaultTag(reference) : withTag(reference, tag);
  await ctx.images.tag(image.id, target, String(ctx.clock.nowNs()));
  imageEvent(ctx, "tag", image.id, familiarString(target), image);
}
