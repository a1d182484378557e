import { existsSync, readdirSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import type { Route } from "#api/route.ts";
import { archiveRoutes } from "#api/routes-archive.ts";
import { buildRoutes } from "#api/routes-build.ts";
import { containerRoutes } from "#api/routes-container.ts";
import { execRoutes } from "#api/routes-exec.ts";
import { imageRoutes } from "#api/routes-image.ts";
import { imageTransferRoutes } from "#api/routes-image-transfer.ts";
import { networkRoutes } from "#api/routes-network.ts";
import { registryRoutes } from "#api/routes-registry.ts";
import { systemRoutes } from "#api/routes-system.ts";
import { volumeRoutes } from "#api/routes-volume.ts";
import { systemClock } from "#base/clock.ts";
import type { ImageId } from "#base/digest.ts";
import type { Log } from "#base/log.ts";
import type { BuildCache } from "#builder/build-cache.ts";
import { createDiskStore } from "#content/disk-store.ts";
import { type BuildEngine, cachedLayers, createBuildEngine, openBuildCache } from "#engine/build.ts";
import { type ContainerEngine, createContainerEngine } from "#engine/container-engine.ts";
import { EventBus } from "#engine/events.ts";
import type { ImageUser } from "#engine/image-context.ts";
import { createImageService, type ImageService, type TransferSettings } from "#engine/images.ts";
import { createNetworkEngine } from "#engine/networks.ts";
import { createSystemEngine, type SystemEngine } from "#engine/system.ts";
import { createVolumeEngine, type VolumeEngine } from "#engine/volumes.ts";
import { createNetworkManager } from "#network/manager.ts";
import type { NetworkManager } from "#network/network.ts";
import { createOciRuntime } from "#runtime/oci-runtime.ts";
import type { Runtime } from "#runtime/runtime.ts";
import { createShimHost } from "#runtime/shim-host.ts";
import { openLayerPools } from "#snapshot/layer-pools.ts";
import { createOverlaySnapshotter } from "#snapshot/overlay.ts";
import type { Snapshotter } from "#snapshot/snapshotter.ts";
import type { Database } from "#state/database.ts";
import { openDatabase } from "#state/sqlite-database.ts";
import { createVolumeStore } from "#volume/local.ts";
import type { VolumeStore } from "#volume/volume.ts";
import type { DaemonConfig } from "./config.ts";
import { filesystemName, persistentId } from "./identity.ts";
import { reloadAttributes } from "./reload.ts";

export interface Daemon extends AsyncDisposable {
  readonly routes: readonly Route[];
  readonly cgroupDriver: string;
  /** Takes over what may change while it runs, all or nothing. Throws `EngineError` for what does not work. */
  reconfigure(config: DaemonConfig): Promise<void>;
}

/** What the daemon says of itself, as it is now. */
interface Self {
  config: DaemonConfig;
  readonly daemonId: string;
  readonly warnings: () => readonly string[];
}

interface Stores {
  readonly database: Database;
  readonly snapshotter: Snapshotter;
  readonly volumes: VolumeStore;
  readonly images: ImageService;
  readonly buildCache: BuildCache;
}

/** The layers that do the work, from the state up. */
interface Foundation extends Stores {
  readonly events: EventBus;
  readonly runtime: Runtime;
  readonly networks: NetworkManager;
}

// From the sources two folders up, from the bundle (dist/) one.
const nativeBinary =
  ["../../native/build/skiff-native", "../native/build/skiff-native"]
    .map((path) => join(import.meta.dirname, path))
    .find(existsSync) ?? "/nonexistent/skiff-native";
const clock = systemClock;
/** Below each cgroup hierarchy: outside of whatever unit the daemon itself runs in. */
const launcherCgroup = "/skiff-shims";

/**
 * Makes every part of the daemon, once, in the order of their needs, and takes over what an earlier daemon left running.
 * Disposal goes the other way and leaves containers alone. Rejects with what is wrong in one line.
 */
export async function compose(
  config: DaemonConfig,
  log: Log,
  warnings: () => readonly string[] = () => [],
): Promise<Daemon> {
  await using parts = new AsyncDisposableStack();
  const users = new ImageUsers();
  const foundation = await layFoundation(config, log, parts, users);
  const { database, events, snapshotter, volumes, images, runtime, networks } = foundation;
  const copyPools = parts.use(openLayerPools({ work: { size: copyThreadsMax } }));
  const containers = parts.use(
    await createContainerEngine({
      dataRoot: config.dataRoot,
      execRoot: config.execRoot,
      database,
      images: images.store,
      snapshotter,
      volumes,
      networks,
      runtime,
      copyPools,
      events,
      clock,
      log,
      defaults: containerDefaults(config),
    }),
  );
  users.ask(containers);
  parts.use(forgetUnusedImages(events, images, log));
  const builds = createBuildEngine({
    cache: foundation.buildCache,
    images,
    containers,
    dataRoot: config.dataRoot,
    execRoot: config.execRoot,
    removeTree: (directory, name) =>
      copyPools.work.run<"remove">({ kind: "remove", directory, name, live: true }),
    clock,
    log,
  });
  const volumeEngine = createVolumeEngine({
    volumes,
    events,
    containersUsing: (name) => containers.usersOfVolume(name),
  });
  const networkEngine = createNetworkEngine({ networks, runningContainers: () => containers.connected() });
  const self: Self = { config, warnings, daemonId: await persistentId(database) };
  const system = composeSystem(self, foundation, containers, volumeEngine, builds);
  if (config.registry !== undefined) {
    const { serveBesides } = await import("./registry-embed.ts");
    parts.use(await serveBesides(config.registry, log));
  }
  const owned = parts.move();
  return {
    routes: [
      ...systemRoutes(system),
      ...containerRoutes(containers),
      ...archiveRoutes(containers),
      ...execRoutes(containers),
      ...buildRoutes(builds),
      ...imageRoutes(images),
      ...imageTransferRoutes(images, containers),
      ...registryRoutes(images),
      ...volumeRoutes(volumeEngine),
      ...networkRoutes(networkEngine),
    ],
    cgroupDriver: runtime.cgroupDriver,
    reconfigure: async (next) => {
      await runtime.useRuntimes(runtimesOf(next), next.defaultRuntime);
      images.reconfigure(transfersOf(next));
      self.config = next;
      events.publish("daemon", "reload", self.daemonId, reloadAttributes(next, runtime));
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function runtimesOf({ runtimes }: DaemonConfig): { name: string; path: string; args: readonly string[] }[] {
  return [...runtimes].map(([name, { path, args }]) => ({ name, path, args }));
}

function transfersOf(config: DaemonConfig): TransferSettings {
  const { registryMirrors, insecureRegistries } = config;
  const { maxConcurrentDownloads, maxConcurrentUploads, maxDownloadAttempts } = config;
  return {
    mirrors: registryMirrors,
    insecureRegistries,
    maxConcurrentDownloads,
    maxConcurrentUploads,
    maxDownloadAttempts,
  };
}

/** Paths in containers that are looked at, and cache mounts that are removed, at a time. More wait. */
const copyThreadsMax = 8;

/** Three chains that need nothing of each other are made side by side: most of a start is waiting for helpers. */
async function layFoundation(
  config: DaemonConfig,
  log: Log,
  parts: AsyncDisposableStack,
  users: ImageUsers,
): Promise<Foundation> {
  const events = new EventBus(clock);
  const [stores, networks, runtime] = await sideBySide(parts, [
    (own) => composeStores(config, log, own, users, events),
    (own) => composeNetworks(config, log, own),
    (own) => composeRuntime(config, log, own),
  ]);
  return { ...stores, events, runtime, networks };
}

/**
 * Runs the chains at once. Each has a stack of its own in `parts`, so that disposal knows an order; a failure is thrown
 * only when every chain has come to its end, and then nothing half made is left out.
 */
async function sideBySide<Made extends readonly unknown[]>(
  parts: AsyncDisposableStack,
  chains: { readonly [K in keyof Made]: (own: AsyncDisposableStack) => Promise<Made[K]> },
): Promise<Made> {
  const outcomes = await Promise.allSettled(
    chains.map((chain) => chain(parts.use(new AsyncDisposableStack()))),
  );
  const failure = outcomes.find((outcome) => outcome.status === "rejected");
  if (failure !== undefined) throw failure.reason;
  return outcomes.map((outcome) => (outcome as PromiseFulfilledResult<unknown>).value) as unknown as Made;
}

async function composeStores(
  config: DaemonConfig,
  log: Log,
  parts: AsyncDisposableStack,
  users: ImageUsers,
  events: EventBus,
): Promise<Stores> {
  const { dataRoot } = config;
  const stateDirs = join(dataRoot, "containers");
  const inUse = existsSync(stateDirs) && readdirSync(stateDirs).length > 0;
  const database = parts.use(await openDatabase(join(dataRoot, "state.db"), { log, mustExist: inUse }));
  await users.load(database);

  const pools = parts.use(openLayerPools());
  const content = await createDiskStore({
    root: join(dataRoot, "content"),
    log,
    syncFileSystem: async (directory) => {
      await pools.work.run<"sync">({ kind: "sync", directory });
    },
  });
  const snapshotter = await createOverlaySnapshotter({
    root: join(dataRoot, "overlay2"),
    database,
    log,
    pools,
  });
  const volumes = parts.use(
    await createVolumeStore({ root: join(dataRoot, "volumes"), database, clock, log }),
  );
  const buildCache = await openBuildCache(database, clock, log);
  const images = parts.use(
    await createImageService({
      database,
      content,
      snapshotter,
      events,
      clock,
      log,
      temporaryDir: join(dataRoot, "tmp"),
      config: {
        ...transfersOf(config),
      },
      containersUsing: (id) => users.of(id),
      keptLayers: () => cachedLayers(buildCache),
    }),
  );
  return { database, snapshotter, volumes, images, buildCache };
}

async function composeNetworks(
  config: DaemonConfig,
  log: Log,
  parts: AsyncDisposableStack,
): Promise<NetworkManager> {
  return parts.use(
    await createNetworkManager({
      dataRoot: config.dataRoot,
      binaryPath: nativeBinary,
      bip: config.bip,
      poolSize: config.networkPoolSize,
      ...(config.addressPools.length === 0 ? {} : { addressPools: config.addressPools }),
      manageHostFirewall: config.iptables,
      log,
    }),
  );
}

async function composeRuntime(config: DaemonConfig, log: Log, parts: AsyncDisposableStack): Promise<Runtime> {
  const { execRoot } = config;
  const shimHost = parts.use(
    await createShimHost({ binaryPath: nativeBinary, execRoot, launcherCgroup, log }),
  );
  const runtime = await createOciRuntime({
    shimHost,
    execRoot,
    scaffoldParent: join(config.dataRoot, "scaffold"),
    ...(config.cgroupDriver === undefined ? {} : { cgroupDriver: config.cgroupDriver }),
    ...(config.cgroupParent === undefined ? {} : { cgroupParent: config.cgroupParent }),
    runtimes: runtimesOf(config),
    ...(config.defaultRuntime === undefined ? {} : { defaultRuntime: config.defaultRuntime }),
    defaultUlimits: config.defaultUlimits,
    noNewPrivileges: config.noNewPrivileges,
    log,
    nativeBinary,
  });
  return parts.use(runtime);
}

function containerDefaults(config: DaemonConfig): object {
  return {
    dns: config.dns,
    dnsOptions: config.dnsOptions,
    dnsSearch: config.dnsSearch,
    shmSizeBytes: config.defaultShmSizeBytes,
    ulimits: config.defaultUlimits,
    logDriver: config.logDriver,
    logOptions: Object.fromEntries(config.logOptions),
    init: config.init,
    hostname: hostname(),
    noNewPrivileges: config.noNewPrivileges,
  };
}

function composeSystem(
  self: Self,
  { events, images, runtime, networks }: Foundation,
  containers: ContainerEngine,
  volumes: VolumeEngine,
  builds: BuildEngine,
): SystemEngine {
  return createSystemEngine({
    facts: {
      settings: () => ({ ...self.config, daemonId: self.daemonId }),
      warnings: self.warnings,
      clock,
      runtime,
      networks,
      backingFilesystem: filesystemName(self.config.dataRoot),
      containerCounts: () => containers.counts(),
      imageCount: () => images.store.list().length,
    },
    events,
    volumes,
    images,
    imageUsers: (id) => containers.usersOfImage(id).length,
    containerList: () => containers.list({ all: true, limit: 0, size: true, filters: new Map() }),
    buildCache: () => builds.usage(),
    layersBytes: () => images.storedBytes(),
  });
}

/**
 * Who uses an image. Images are opened before containers, which are made from them: until the container engine is there
 * its rows answer, so that nothing is taken for unused.
 */
class ImageUsers {
  readonly #rows = new Map<string, ImageUser[]>();
  #containers: ContainerEngine | undefined;

  async load(database: Database): Promise<void> {
    for (const row of await database.all<{ id: string; image_id: string }>(
      "SELECT id, image_id FROM container",
    )) {
      this.#rows.set(row.image_id, [...(this.#rows.get(row.image_id) ?? []), { id: row.id, running: true }]);
    }
  }

  ask(containers: ContainerEngine): void {
    this.#containers = containers;
    this.#rows.clear();
  }

  of(id: ImageId): readonly ImageUser[] {
    if (this.#containers === undefined) return this.#rows.get(id) ?? [];
    return this.#containers.usersOfImage(id).map((user) => ({ id: user.id, running: user.running }));
  }
}

/** An image that was removed while containers used it goes with the last of them. */
function forgetUnusedImages(events: EventBus, images: ImageService, log: Log): Disposable {
  const reader = events.subscribe();
  const follow = async (): Promise<void> => {
    for await (const { type, action } of reader) {
      if (type !== "container" || action !== "destroy") continue;
      for (const image of images.store.listAll()) {
        if (image.removed === true) await images.containerRemoved(image.id);
      }
    }
  };
  follow().catch((error: unknown) => log.error("removing images that nothing uses any more", { error }));
  return reader;
}
