import { release } from "node:os";
import type { ImageId } from "#base/digest.ts";
import { engineVersion, skiffVersion } from "#base/version.ts";
import type { CacheUsage } from "./build-prune.ts";
import type { EngineEvent, EventBus } from "./events.ts";
import type { ImageSummary } from "./image-list.ts";
import type { ImageService } from "./images.ts";
import { checkWindow, type EventQuery, readEvents } from "./system-events.ts";
import { goArchitecture, type SystemFacts, systemInfo } from "./system-info.ts";
import type { VolumeEngine } from "./volumes.ts";

export interface SystemEngineDeps {
  readonly facts: SystemFacts;
  readonly events: EventBus;
  readonly volumes: VolumeEngine;
  readonly images: Pick<ImageService, "list">;
  /** Containers made from an image. */
  readonly imageUsers: (id: ImageId) => number;
  /** The list of all containers with their sizes, as JSON text. */
  readonly containerList: () => Promise<string>;
  /** Records of the build cache. */
  readonly buildCache: () => Promise<readonly CacheUsage[]>;
  /** Bytes of the layers of images on the disk, unpacked and compressed, a shared one once. */
  readonly layersBytes: () => number;
}

export interface DiskUsage {
  readonly layersBytes: number;
  readonly images: readonly (ImageSummary & { readonly users: number })[];
  /** JSON text of a list. */
  readonly containers: string;
  readonly volumes: Awaited<ReturnType<VolumeEngine["usage"]>>;
  readonly buildCache: readonly CacheUsage[];
}

export type DiskUsageObject = "container" | "image" | "volume" | "build-cache";

export interface SystemEngine {
  info(): object;
  version(api: { readonly max: string; readonly min: string }): object;
  events(query: EventQuery, signal: AbortSignal): AsyncIterable<EngineEvent>;
  diskUsage(wanted: ReadonlySet<DiskUsageObject>): Promise<Partial<DiskUsage>>;
}

export function createSystemEngine(deps: SystemEngineDeps): SystemEngine {
  return {
    info: () => systemInfo(deps.facts),
    version: (api) => versionBody(deps.facts, api),
    events: (query, signal) => {
      checkWindow(query.sinceNs, query.untilNs);
      return readEvents(deps.events, query, deps.facts.clock.nowNs(), signal);
    },
    diskUsage: async (wanted) => {
      const [images, containers, volumes, buildCache] = await Promise.all([
        wanted.has("image") ? imagesWithUsers(deps) : undefined,
        wanted.has("container") ? deps.containerList() : undefined,
        wanted.has("volume") ? deps.volumes.usage() : undefined,
        wanted.has("build-cache") ? deps.buildCache() : undefined,
      ]);
      return {
        ...(images === undefined ? {} : { images, layersBytes: deps.layersBytes() }),
        ...(containers === undefined ? {} : { containers }),
        ...(volumes === undefined ? {} : { volumes }),
        ...(buildCache === undefined ? {} : { buildCache }),
      };
    },
  };
}

function imagesWithUsers({ images, imageUsers }: SystemEngineDeps): DiskUsage["images"] {
  return images
    .list({ all: false, sharedSize: true, filters: undefined })
    .map((image) => ({ ...image, users: imageUsers(image.id) }));
}

/** The body of `GET /version`. Clients parse `Version`, `ApiVersion`, `MinAPIVersion` (COMPAT "Versions"). */
function versionBody(facts: SystemFacts, api: { readonly max: string; readonly min: string }): object {
  const shared = {
    GitCommit: `skiff-${skiffVersion}`,
    GoVersion: `node${process.versions.node}`,
    Os: "linux",
    Arch: goArchitecture(),
    KernelVersion: release(),
  };
  const runtime = facts.runtime.runtimes[0];
  const components = [
    {
      Name: "Engine",
      Version: engineVersion,
      Details: {
        ApiVersion: api.max,
        Arch: shared.Arch,
        BuildTime: "",
        Experimental: "false",
        GitCommit: shared.GitCommit,
        GoVersion: shared.GoVersion,
        KernelVersion: shared.KernelVersion,
        MinAPIVersion: api.min,
        Os: shared.Os,
      },
    },
    ...(runtime === undefined
      ? []
      : [{ Name: runtime.name, Version: runtime.version, Details: { GitCommit: "" } }]),
  ];
  return {
    Platform: { Name: `Skiff ${skiffVersion}` },
    Components: components,
    Version: engineVersion,
    ApiVersion: api.max,
    MinAPIVersion: api.min,
    ...shared,
    BuildTime: "",
  };
}
