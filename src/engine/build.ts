/** Use case: build. The context is taken in, the Dockerfile read, the builder run, the result named. */
import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import { EngineError, messageOf } from "#base/errors.ts";
import { shortId } from "#base/ids.ts";
import type { Log } from "#base/log.ts";
import { buildDockerfile } from "#builder/build.ts";
import { BuildCache, type CacheStorage, cacheBytesMax } from "#builder/build-cache.ts";
import { parseDockerfile } from "#builder/parse.ts";
import { StepFailed } from "#builder/step-run.ts";
import type { Image } from "#image/image.ts";
import { parsePlatformText } from "#image/platform.ts";
import type { LayerKey } from "#snapshot/snapshotter.ts";
import type { Database } from "#state/database.ts";
import type { HostConfig } from "#wire/container-schema.ts";
import { familiarString, parseReference, type Reference, withDefaultTag } from "#wire/reference.ts";
import { CacheMounts, type RemoveTree } from "./build-cache-mounts.ts";
import { takeContext } from "./build-context.ts";
import { type CacheUsage, cacheUsage, type PruneCall, pruneBuildCache } from "./build-prune.ts";
import { BuildSessions } from "./build-session.ts";
import { buildTools } from "./build-tools.ts";
import type { ContainerEngine } from "./container-engine.ts";
import { imageEvent, type Report } from "./image-context.ts";
import type { ImageService } from "./images.ts";

export interface BuildParameters {
  readonly body: AsyncIterable<Uint8Array>;
  /** "" for the body; a URL is fetched. */
  readonly remote: string;
  readonly dockerfile: string;
  readonly tags: readonly string[];
  readonly args: ReadonlyMap<string, string | undefined>;
  readonly labels: Readonly<Record<string, string>>;
  readonly target: string;
  readonly platform: string;
  readonly useCache: boolean;
  readonly pull: boolean;
  readonly remove: boolean;
  readonly forceRemove: boolean;
  readonly quiet: boolean;
  readonly hostConfig: HostConfig;
  readonly authFor: (host: string) => string | undefined;
  readonly room: () => Promise<void>;
  readonly entitlements: ReadonlySet<string>;
  readonly cacheFrom: readonly string[];
  readonly squash: boolean;
  /** Id of the client's session, for secrets and agents. */
  readonly session: string | undefined;
}

export interface BuildEngine {
  /** Builds and reports; resolves with the image. Rejects with what went wrong, after everything is given back. */
  build(parameters: BuildParameters, report: Report, signal: AbortSignal): Promise<Image>;
  prune(call: PruneCall): Promise<{ readonly CachesDeleted: string[]; readonly SpaceReclaimed: number }>;
  /** Serves the session of a client beside its build, to the end of the stream. */
  session(stream: Duplex): Promise<void>;
  usage(): Promise<CacheUsage[]>;
}

export interface BuildEngineDeps {
  readonly cache: BuildCache;
  readonly images: ImageService;
  readonly containers: Pick<ContainerEngine, "buildStep">;
  readonly dataRoot: string;
  /** In memory on most hosts: secrets of running steps lie below it. */
  readonly execRoot: string;
  readonly removeTree: RemoveTree;
  readonly clock: Clock;
  readonly log: Log;
}

/** Opens the build cache; before images, whose layers it keeps. */
export async function openBuildCache(database: Database, clock: Clock, log: Log): Promise<BuildCache> {
  const storage: CacheStorage = {
    load: () => database.all<{ key: string; document: string }>("SELECT key, document FROM build_cache"),
    save: (key, document) =>
      database.commit(
        [
          {
            sql: "INSERT OR REPLACE INTO build_cache (key, document) VALUES (?, ?)",
            params: [key, document],
          },
        ],
        // Losing a record costs a step, no more.
        { durable: false },
      ),
    remove: (keys) =>
      database.commit(keys.map((key) => ({ sql: "DELETE FROM build_cache WHERE key = ?", params: [key] }))),
  };
  return await BuildCache.open(storage, clock, log);
}

/** Layers of the cache, for the keeper of bytes. */
export function cachedLayers(cache: BuildCache): Iterable<LayerKey> {
  return cache.layers();
}

export function createBuildEngine(deps: BuildEngineDeps): BuildEngine {
  const cacheMounts = new CacheMounts(join(deps.dataRoot, "build-cache"), deps.clock, deps.removeTree);
  const sessions = new BuildSessions(join(deps.execRoot, "build-secrets"));
  const shared = { ...deps, cacheMounts, sessions };
  return {
    build: (parameters, report, signal) => build(shared, parameters, report, signal),
    prune: (call) => pruneBuildCache(shared, call),
    session: (stream) => sessions.serve(stream),
    usage: () => cacheUsage(shared),
  };
}

type Shared = BuildEngineDeps & { readonly cacheMounts: CacheMounts; readonly sessions: BuildSessions };

async function build(
  deps: Shared,
  parameters: BuildParameters,
  report: Report,
  signal: AbortSignal,
): Promise<Image> {
  const ctx = deps.images.context;
  using secrets = deps.sessions.open(parameters.session);
  const tags = parameters.tags.map(tagOf);
  const platform = parameters.platform === "" ? undefined : parsePlatformText(parameters.platform);
  const temporaryDir = join(ctx.temporaryDir, `build-${randomBytes(8).toString("hex")}`);
  mkdirSync(temporaryDir, { recursive: true, mode: 0o700 });
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rm(temporaryDir, { recursive: true, force: true }));
  const name = parameters.dockerfile === "" ? "Dockerfile" : parameters.dockerfile.replace(/^\/+/, "");
  const taken = await takeContext(
    ctx,
    { ...parameters, dockerfile: name, directory: temporaryDir },
    report,
    signal,
  );
  const dockerfile = parseDockerfile(taken.text, name);
  const quiet = parameters.quiet ? new QuietOutput() : undefined;
  // What was held back is told when it explains a failure.
  undo.defer(() => quiet?.tellTo(report));
  const tell: Report = quiet === undefined ? report : (message) => quiet.hold(message);
  const executor = buildTools(
    { images: deps.images, containers: deps.containers, cacheMounts: deps.cacheMounts },
    { ...parameters, report: tell, secrets },
  );
  const { images, snapshotter } = ctx;
  const { args, labels, target, useCache, pull, remove, forceRemove } = parameters;
  const image = await buildDockerfile(
    { executor, cache: deps.cache, images, snapshotter, clock: deps.clock, log: deps.log },
    {
      dockerfile,
      context: taken.source,
      args,
      labels,
      target,
      useCache,
      pull,
      platform,
      remove,
      forceRemove,
      entitlements: parameters.entitlements,
      hostNetwork: parameters.hostConfig.NetworkMode === "host",
      cacheFrom: parameters.cacheFrom,
      squash: parameters.squash,
      temporaryDir,
    },
    (line) => {
      if (line.kind === "aux") tell({ kind: "aux", aux: { ID: line.id } });
      // Docker's classic builder shows the error stream in red.
      else tell({ kind: "stream", text: line.kind === "stderr" ? `\x1b[91m${line.text}\x1b[0m` : line.text });
    },
    signal,
  );
  await nameResult(deps, image, tags, tell);
  // The image is there and has its name, whatever becomes of the cache.
  await boundCache(deps).catch((error: unknown) => deps.log.warn("bounding the build cache", { error }));
  quiet?.drop();
  if (parameters.quiet) report({ kind: "stream", text: `${image.id}\n` });
  return image;
}

/** Output held back of a quiet build; the end of a failure's is what explains it. */
const quietBytesMax = 1024 * 1024;

/** Keeps the output of a quiet build, the oldest going first. */
class QuietOutput {
  #lines: Parameters<Report>[0][] = [];
  #bytes = 0;

  hold(message: Parameters<Report>[0]): void {
    this.#lines.push(message);
    this.#bytes += sizeOf(message);
    while (this.#bytes > quietBytesMax && this.#lines.length > 1) this.#bytes -= sizeOf(this.#lines.shift()!);
  }

  drop(): void {
    this.#lines = [];
  }

  tellTo(report: Report): void {
    for (const message of this.#lines) report(message);
  }
}

function sizeOf(message: Parameters<Report>[0]): number {
  return message.kind === "stream" ? message.text.length + 64 : 256;
}

/** The cache may hold so much: the longest unused goes when a build has made it more. */
async function boundCache(deps: Shared): Promise<void> {
  const { snapshotter } = deps.images.context;
  const bytes = [...deps.cache.layers()].reduce((sum, key) => sum + (snapshotter.sizeBytes(key) ?? 0), 0);
  if (bytes <= cacheBytesMax) return;
  await pruneBuildCache(deps, { all: false, keepBytes: cacheBytesMax, filters: undefined });
}

function tagOf(text: string): Reference {
  let reference: Reference;
  try {
    reference = parseReference(text);
  } catch (cause) {
    throw new EngineError("invalid", `invalid argument ${JSON.stringify(text)}: ${messageOf(cause)}`, {
      code: "bad-reference",
      cause,
    });
  }
  if (reference.digest !== undefined) {
    throw new EngineError("invalid", "build tag cannot contain a digest", { code: "bad-reference" });
  }
  return withDefaultTag(reference);
}

async function nameResult(
  deps: Shared,
  image: Image,
  tags: readonly Reference[],
  tell: Report,
): Promise<void> {
  const ctx = deps.images.context;
  tell({ kind: "stream", text: `Successfully built ${shortId(image.id)}\n` });
  for (const reference of tags) {
    await ctx.images.tag(image.id, reference, String(deps.clock.nowNs()));
    imageEvent(ctx, "tag", image.id, familiarString(reference), image);
    tell({ kind: "stream", text: `Successfully tagged ${familiarString(reference)}\n` });
  }
}

/** The exit code of a step that failed, for the error line: the docker CLI ends with it. */
export function exitCodeOf(error: unknown): number | undefined {
  return error instanceof StepFailed ? error.exitCode : undefined;
}
