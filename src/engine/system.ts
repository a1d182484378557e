import { release } from "node:os";
import { engineVersion, skiffVersion } from "#base/version.ts";
import type { EngineEvent, EventBus } from "./events.ts";
import { checkWindow, type EventQuery, readEvents } from "./system-events.ts";
import { goArchitecture, type SystemFacts, systemInfo } from "./system-info.ts";
import type { VolumeEngine } from "./volumes.ts";

export interface SystemEngineDeps {
  readonly facts: SystemFacts;
  readonly events: EventBus;
  readonly volumes: VolumeEngine;
  /** Bodies as the list endpoints give them. */
  readonly imageSummaries: () => Promise<readonly object[]>;
  readonly containerSummaries: () => Promise<readonly object[]>;
  /** Bytes of all unpacked layers, a shared one once. */
  readonly layersBytes: () => number;
}

export interface DiskUsage {
  readonly layersBytes: number;
  readonly images: readonly object[];
  readonly containers: readonly object[];
  readonly volumes: Awaited<ReturnType<VolumeEngine["usage"]>>;
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
      const [images, containers, volumes] = await Promise.all([
        wanted.has("image") ? deps.imageSummaries() : undefined,
        wanted.has("container") ? deps.containerSummaries() : undefined,
        wanted.has("volume") ? deps.volumes.usage() : undefined,
      ]);
      return {
        ...(images === undefined ? {} : { images, layersBytes: deps.layersBytes() }),
        ...(containers === undefined ? {} : { containers }),
        ...(volumes === undefined ? {} : { volumes }),
      };
    },
  };
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
