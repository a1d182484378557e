import type { Clock } from "#base/clock.ts";
import type { Log } from "#base/log.ts";
import type { LocalImageStore } from "#image/image-store.ts";
import type { TreeSource } from "#snapshot/copy-spec.ts";
import type { Snapshotter } from "#snapshot/snapshotter.ts";
import type { Platform } from "#wire/oci-image.ts";
import type { BuildCache } from "./build-cache.ts";
import type { Dockerfile } from "./instructions.ts";
import type { StepExecutor } from "./step-executor.ts";

/** What a build works with. */
export interface BuildDeps {
  readonly executor: StepExecutor;
  readonly cache: BuildCache;
  readonly images: LocalImageStore;
  readonly snapshotter: Snapshotter;
  readonly clock: Clock;
  readonly log: Log;
}

export interface BuildRequest {
  readonly dockerfile: Dockerfile;
  /** Undefined: a Dockerfile without a context. */
  readonly context: TreeSource | undefined;
  readonly args: ReadonlyMap<string, string | undefined>;
  readonly labels: Readonly<Record<string, string>>;
  readonly target: string;
  readonly useCache: boolean;
  readonly pull: boolean;
  readonly platform: Platform | undefined;
  /** Containers of steps that went well are removed. */
  readonly remove: boolean;
  /** Those of a failed step too. */
  readonly forceRemove: boolean;
  /** What the caller lets a Dockerfile ask for. */
  readonly entitlements: ReadonlySet<string>;
  /** Steps that name no network have the host's already. */
  readonly hostNetwork: boolean;
  /** References of images whose layers and history count as cached steps; those that are not here are passed over. */
  readonly cacheFrom: readonly string[];
  /** One layer of all that were built. */
  readonly squash: boolean;
  /** An empty directory for what the build needs on the disk meanwhile; the caller removes it. */
  readonly temporaryDir: string;
}

/** Nanoseconds since the epoch of SOURCE_DATE_EPOCH, or undefined. */
export function sourceDateNs(request: Pick<BuildRequest, "args">): bigint | undefined {
  const text = request.args.get("SOURCE_DATE_EPOCH");
  return text !== undefined && /^\d{1,11}$/.test(text) ? BigInt(text) * 1_000_000_000n : undefined;
}
