/** What every use case of the container engine works with: made once by `createContainerEngine`. */
import type { Clock } from "#base/clock.ts";
import type { KeyedLock } from "#base/lock.ts";
import type { Log } from "#base/log.ts";
import type { ImageStore } from "#image/image.ts";
import type { NetworkManager } from "#network/network.ts";
import type { LogReaders } from "#runtime/log-readers.ts";
import type { Runtime, Sandbox } from "#runtime/runtime.ts";
import type { LayerPools } from "#snapshot/layer-pools.ts";
import type { Snapshotter } from "#snapshot/snapshotter.ts";
import type { Database } from "#state/database.ts";
import type { VolumeStore } from "#volume/volume.ts";
import type { Container } from "./container.ts";
import type { ContainerTable } from "./container-table.ts";
import type { EventBus } from "./events.ts";

export interface ContainerDefaults {
  readonly dns: readonly string[];
  readonly dnsOptions: readonly string[];
  readonly dnsSearch: readonly string[];
  readonly shmSizeBytes: number;
  readonly ulimits: readonly { readonly name: string; readonly soft: number; readonly hard: number }[];
  readonly logDriver: "json-file" | "none";
  readonly logOptions: Readonly<Record<string, string>>;
  readonly init: boolean;
  /** The host's name, for host networking. */
  readonly hostname: string;
  readonly noNewPrivileges: boolean;
  /** Gateway that `host-gateway` in ExtraHosts stands for; "": the default bridge's address. */
  readonly hostGateway: string;
}

export interface ContainerEngineDeps {
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly database: Database;
  readonly images: ImageStore;
  readonly snapshotter: Snapshotter;
  readonly volumes: VolumeStore;
  readonly networks: NetworkManager;
  readonly runtime: Runtime;
  /** Threads for copies alone: what a container has mounted may hang, and holds up no other work. */
  readonly copyPools: LayerPools;
  readonly events: EventBus;
  readonly clock: Clock;
  readonly log: Log;
  readonly defaults?: Partial<ContainerDefaults>;
}

export interface ContainerContext extends Omit<ContainerEngineDeps, "defaults"> {
  readonly defaults: ContainerDefaults;
  readonly table: ContainerTable;
  readonly locks: KeyedLock;
  /** Work that nobody waits for; `close` does. Failures are logged. */
  background(what: string, work: Promise<unknown>): void;
  /** The same for what ends when a process does: `close` does not wait for it. */
  watch(what: string, work: Promise<unknown>): void;
  /** Takes over a started container: waits for its exit, runs its health checks. */
  onStarted(container: Container, sandbox: Sandbox): void;
  /** Forced removal with anonymous volumes, for containers that remove themselves. */
  removeContainer(container: Container): Promise<void>;
  readonly logReaders: LogReaders;
  /** Containers that hold a sandbox made ahead. */
  readonly early: Set<Container>;
  /** Set when the daemon stops: nothing is restarted any more. */
  closing: boolean;
}

/** `<data-root>/containers/<64 hex>`: Jenkins and others look for this shape in mountinfo (COMPAT 26). */
export function stateDirOf(ctx: Pick<ContainerContext, "dataRoot">, id: string): string {
  return `${ctx.dataRoot}/containers/${id}`;
}

export function runDirOf(ctx: Pick<ContainerContext, "execRoot">, id: string): string {
  return `${ctx.execRoot}/containers/${id}`;
}

export function logPathOf(ctx: Pick<ContainerContext, "dataRoot">, id: string): string {
  return `${stateDirOf(ctx, id)}/${id}-json.log`;
}

/** A container event with Docker's attributes: every label, the image as it was named, the name. */
export function containerEvent(
  ctx: Pick<ContainerContext, "events">,
  container: Container,
  action: string,
  extra: Readonly<Record<string, string>> = {},
): void {
  ctx.events.publish("container", action, container.id, {
    ...container.document.config.Labels,
    ...extra,
    image: container.document.imageReference,
    name: container.name,
  });
}
