/** Use case: commit. A container's changes become a layer, its config an image's. */
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { engineVersion } from "#base/version.ts";
import type { Hold } from "#image/byte-keeper.ts";
import { applyChanges } from "#image/config-changes.ts";
import type { Image } from "#image/image.ts";
import type { AppliedLayer } from "#snapshot/snapshotter.ts";
import type { ContainerConfig } from "#wire/container-schema.ts";
import type { HistoryEntry, ImageConfig, ImageRunConfig } from "#wire/oci-image.ts";
import { familiarString, parseReference, type Reference, withDefaultTag, withTag } from "#wire/reference.ts";
import type { Container } from "./container.ts";
import { mergeImageConfig } from "./container-config.ts";
import { type ContainerContext, containerEvent } from "./container-context.ts";
import { pauseContainer, unpauseContainer } from "./container-pause.ts";
import type { ImageContext } from "./image-context.ts";
import { holdImage, makeImage } from "./image-make.ts";
import type { ImportedLayer } from "./layer-import.ts";

export interface CommitRequest {
  /** Empty: the image gets no name. */
  readonly repository: string;
  readonly tag: string;
  readonly comment: string;
  readonly author: string;
  readonly changes: readonly string[];
  /** What the request's body says; the container's own config fills in what it leaves out. */
  readonly config: ContainerConfig;
}

/** A container as a commit sees it: nothing changes in it until it is disposed of, if that was asked for. */
export interface CommitSource extends AsyncDisposable {
  readonly container: Container;
  isUnchanged(): Promise<boolean>;
  /** The changes as a layer, over the one that its image's layers make; undefined where there are none. */
  derive(signal: AbortSignal): Promise<AppliedLayer | undefined>;
  /** Tells the container's event. */
  committed(details: { readonly comment: string; readonly imageID: string; readonly imageRef: string }): void;
}

/** Freezes the container, where it runs and `pause` says so. Throws `conflict` for one that is going. */
export async function commitSource(
  ctx: ContainerContext,
  container: Container,
  pause: boolean,
): Promise<CommitSource> {
  const { status } = container.state;
  const refuse = (why: string): EngineError =>
    new EngineError("conflict", `You cannot commit container ${container.id} which is ${why}`, {
      code: "wrong-state",
    });
  if (status === "dead") throw refuse("Dead");
  if (container.removing || status === "removing") throw refuse("being removed");
  const paused = pause && status === "running" && (await tryPause(ctx, container));
  const layers = ctx.images.get(container.document.imageId)?.layers ?? [];
  const stack = layers.map(({ key }) => key);
  return {
    container,
    isUnchanged: async () => (await ctx.snapshotter.changes(container.id, stack)).length === 0,
    derive: (signal) => {
      const directory = ctx.snapshotter.writableOf(container.id).upperDir;
      const belowChain = layers.at(-1)?.chainId;
      return ctx.snapshotter.derive({
        source: { kind: "upper", directory, omit: [] },
        stack,
        belowChain,
        signal,
      });
    },
    committed: (details) => containerEvent(ctx, container, "commit", details),
    [Symbol.asyncDispose]: async () => {
      // Somebody else may have let it go on, or killed it.
      if (paused && container.state.status === "paused") await unpauseContainer(ctx, container);
    },
  };
}

/** A container that ends while it is to be frozen needs no freezing any more. */
async function tryPause(ctx: ContainerContext, container: Container): Promise<boolean> {
  try {
    await pauseContainer(ctx, container);
    return true;
  } catch (error) {
    if (error instanceof EngineError && error.kind === "conflict") return false;
    throw error;
  }
}

function targetOf(request: CommitRequest): Reference | undefined {
  if (request.repository === "") return undefined;
  const reference = parseReference(request.repository);
  if (reference.digest !== undefined) {
    throw new EngineError("invalid", "refusing to create a tag with a digest reference", {
      code: "bad-reference",
    });
  }
  return request.tag === "" ? withDefaultTag(reference) : withTag(reference, request.tag);
}

/** Makes an image of a container and names it. Returns the image. Throws `invalid` for more than 127 layers. */
export async function commitContainer(
  ctx: ImageContext,
  source: CommitSource,
  request: CommitRequest,
  signal: AbortSignal,
): Promise<Image> {
  const target = targetOf(request);
  const { document } = source.container;
  const own = runConfigOf(document.config);
  const config = applyChanges(runConfigOf(mergeImageConfig(request.config, own)), request.changes);
  const base = ctx.images.get(document.imageId);
  if (base === undefined) {
    throw new EngineError("notFound", `No such image: ${document.imageId}`, { code: "no-such-image" });
  }
  if (base.layers.length >= limits.layersPerImageMax && !(await source.isUnchanged())) {
    throw new EngineError("invalid", "max depth exceeded", { code: "too-many-layers" });
  }
  await using hold = ctx.images.bytes.hold();
  await holdImage(ctx, base, hold);
  const added = await layerOf(ctx, source, hold, signal);
  const image = await makeImage(ctx, {
    config: configOf(ctx, { base, request, added, config, container: source.container }),
    below: base.layers,
    ...(added === undefined ? {} : { added }),
    hold,
    ...(base.removed === true ? {} : { parent: base.id }),
  });
  await ctx.images.put(image, target === undefined ? [] : [{ reference: target }]);
  source.committed({
    comment: request.comment,
    imageID: image.id,
    imageRef: target === undefined ? "" : familiarString(target),
  });
  return image;
}

/** The container's changes as a layer that is held and not yet sealed. */
async function layerOf(
  ctx: ImageContext,
  source: CommitSource,
  hold: Hold,
  signal: AbortSignal,
): Promise<ImportedLayer | undefined> {
  const applied = await source.derive(signal);
  if (applied === undefined) return undefined;
  hold.layer(applied.key);
  ctx.images.bytes.applied(applied);
  return { applied, diffSizeBytes: applied.blobSizeBytes };
}

function configOf(
  ctx: ImageContext,
  parts: {
    readonly base: Image;
    readonly request: CommitRequest;
    readonly added: ImportedLayer | undefined;
    readonly config: ImageRunConfig;
    readonly container: Container;
  },
): ImageConfig {
  const { base, request, added, config, container } = parts;
  const created = ctx.clock.now();
  const entry: HistoryEntry = {
    created,
    ...(request.author === "" ? {} : { author: request.author }),
    created_by: (container.document.config.Cmd ?? []).join(" "),
    ...(request.comment === "" ? {} : { comment: request.comment }),
    ...(added === undefined ? { empty_layer: true } : {}),
  };
  const { architecture, os, variant } = base.config;
  const diffIds = base.config.rootfs.diff_ids;
  const image: ImageConfig & Record<string, unknown> = {
    architecture,
    ...(request.author === "" ? {} : { author: request.author }),
    ...(request.comment === "" ? {} : { comment: request.comment }),
    config,
    container: container.id,
    created,
    docker_version: engineVersion,
    history: [...(base.config.history ?? []), entry],
    os,
    ...(base.config["os.version"] === undefined ? {} : { "os.version": base.config["os.version"] }),
    rootfs: { type: "layers", diff_ids: added === undefined ? diffIds : [...diffIds, added.applied.diffId] },
    ...(variant === undefined ? {} : { variant }),
  };
  return image;
}

const imageKeys = [
  "User",
  "ExposedPorts",
  "Env",
  "Entrypoint",
  "Cmd",
  "Healthcheck",
  "ArgsEscaped",
  "Volumes",
  "WorkingDir",
  "OnBuild",
  "Labels",
  "StopSignal",
  "StopTimeout",
  "Shell",
] as const satisfies readonly (keyof ImageRunConfig)[];

/** The part of a container's config that an image has, without what is not set. */
export function runConfigOf(config: ContainerConfig): ImageRunConfig {
  const set = imageKeys.flatMap((key) => {
    const value: unknown = config[key];
    return value === null || value === undefined || value === "" || value === false
      ? []
      : [[key, value] as const];
  });
  return Object.fromEntries(set) as ImageRunConfig;
}
