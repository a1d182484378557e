import { randomUUID } from "node:crypto";
import { existsSync, readdirSync, statfsSync } from "node:fs";
import { join } from "node:path";
import type { Route } from "#api/route.ts";
import { networkRoutes } from "#api/routes-network.ts";
import { systemRoutes } from "#api/routes-system.ts";
import { volumeRoutes } from "#api/routes-volume.ts";
import { systemClock } from "#base/clock.ts";
import { EngineError } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import { createDiskStore } from "#content/disk-store.ts";
import { EventBus } from "#engine/events.ts";
import { createImageService } from "#engine/images.ts";
import { createNetworkEngine } from "#engine/networks.ts";
import { createSystemEngine } from "#engine/system.ts";
import { createVolumeEngine } from "#engine/volumes.ts";
import { createNetworkManager } from "#network/manager.ts";
import { createOciRuntime } from "#runtime/oci-runtime.ts";
import type { ShimHost } from "#runtime/shim.ts";
import { LayerWorkers } from "#snapshot/layer-workers.ts";
import { createOverlaySnapshotter } from "#snapshot/overlay.ts";
import type { Database } from "#state/database.ts";
import { openDatabase } from "#state/sqlite-database.ts";
import { createVolumeStore } from "#volume/local.ts";
import type { DaemonConfig } from "./config.ts";

export interface Daemon extends AsyncDisposable {
  readonly routes: readonly Route[];
}

const nativeBinary = join(import.meta.dirname, "../../native/build/skiff-native");

/**
 * Makes every part of the daemon, once, in the order of their needs, and takes over what an earlier daemon left running.
 * Disposal goes the other way and leaves containers alone. Rejects with what is wrong in one line.
 */
export async function compose(config: DaemonConfig, log: Log): Promise<Daemon> {
  await using parts = new AsyncDisposableStack();
  const { dataRoot, execRoot } = config;
  const clock = systemClock;
  const events = new EventBus(clock);
  const inUse =
    existsSync(join(dataRoot, "containers")) && readdirSync(join(dataRoot, "containers")).length > 0;
  const database = parts.use(await openDatabase(join(dataRoot, "state.db"), { log, mustExist: inUse }));
  const daemonId = await persistentId(database);
  const containersUsingVolume = (_name: string): string[] => [];

  const content = await createDiskStore({ root: join(dataRoot, "content"), log });
  const workers = parts.use(new LayerWorkers());
  const snapshotter = await createOverlaySnapshotter({
    root: join(dataRoot, "overlay2"),
    database,
    log,
    workers,
  });
  const volumes = parts.use(
    await createVolumeStore({ root: join(dataRoot, "volumes"), database, clock, log }),
  );
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
        mirrors: config.registryMirrors,
        insecureRegistries: config.insecureRegistries,
        maxConcurrentDownloads: config.maxConcurrentDownloads,
      },
      containersUsing: () => [],
    }),
  );
  const shimHost: ShimHost = {
    launch: () => Promise.reject(new EngineError("notImplemented", "containers are not wired yet")),
    recover: () => Promise.resolve(undefined),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  const runtime = await createOciRuntime({
    shimHost,
    execRoot,
    cgroupParent: config.cgroupParent ?? "/skiff",
    runtimes: [...config.runtimes].map(([name, { path, args }]) => ({ name, path, args })),
    ...(config.defaultRuntime === undefined ? {} : { defaultRuntime: config.defaultRuntime }),
    defaultUlimits: config.defaultUlimits,
    noNewPrivileges: config.noNewPrivileges,
    log,
    nativeBinary,
  });
  const networks = parts.use(
    await createNetworkManager({
      dataRoot,
      binaryPath: nativeBinary,
      bip: config.bip,
      manageHostFirewall: config.iptables,
      log,
    }),
  );
  const networkEngine = createNetworkEngine({ networks, runningContainers: () => [] });
  const volumeEngine = createVolumeEngine({ volumes, events, containersUsing: containersUsingVolume });
  const system = createSystemEngine({
    facts: {
      settings: { ...config, daemonId },
      clock,
      runtime,
      networks,
      backingFilesystem: filesystemName(dataRoot),
      containerCounts: () => ({ running: 0, paused: 0, stopped: 0 }),
      imageCount: () => images.store.list().length,
    },
    events,
    volumes: volumeEngine,
    imageSummaries: () => Promise.resolve([]),
    containerSummaries: () => Promise.resolve([]),
    layersBytes: () =>
      snapshotter.listLayers().reduce((sum, key) => sum + (snapshotter.sizeBytes(key) ?? 0), 0),
  });
  const owned = parts.move();
  return {
    routes: [...systemRoutes(system), ...volumeRoutes(volumeEngine), ...networkRoutes(networkEngine)],
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Docker's names of file systems by their magic number (statfs(2)). */
const filesystems: ReadonlyMap<number, string> = new Map([
  [0xef53, "extfs"],
  [0x58465342, "xfs"],
  [0x9123683e, "btrfs"],
  [0x01021994, "tmpfs"],
  [0x794c7630, "overlayfs"],
  [0x2fc12fc1, "zfs"],
  [0xf2f52010, "f2fs"],
]);

function filesystemName(path: string): string {
  return filesystems.get(statfsSync(path).type) ?? "<unknown>";
}

/** The daemon's identity in `info`: made once, kept with its state. */
async function persistentId(database: Database): Promise<string> {
  const key = "daemon-id";
  const [row] = await database.all<{ value: string }>("SELECT value FROM meta WHERE key = ?", [key]);
  if (row !== undefined) return row.value;
  const id = randomUUID();
  await database.commit([{ sql: "INSERT INTO meta (key, value) VALUES (?, ?)", params: [key, id] }]);
  return id;
}
