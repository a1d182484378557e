import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "#base/clock.ts";
import type { ImageId } from "#base/digest.ts";
import { silentLog } from "#base/log.ts";
import type { ContentStore } from "#content/content-store.ts";
import { createDiskStore } from "#content/disk-store.ts";
import { EventBus } from "#engine/events.ts";
import type { ImageUser } from "#engine/image-context.ts";
import { createImageService, type ImageService, type ImageServiceDeps } from "#engine/images.ts";
import { openLayerPools } from "#snapshot/layer-pools.ts";
import { createOverlaySnapshotter } from "#snapshot/overlay.ts";
import type { Snapshotter } from "#snapshot/snapshotter.ts";
import { openDatabase } from "#state/sqlite-database.ts";
import type { JsonMessage } from "#wire/json-message.ts";

/** The image half of a daemon on real stores, without the daemon. */
export interface ImageSetup extends AsyncDisposable {
  readonly root: string;
  readonly images: ImageService;
  readonly content: ContentStore;
  readonly snapshotter: Snapshotter;
  readonly events: EventBus;
  /** What `containersUsing` answers, by image. */
  readonly users: Map<ImageId, ImageUser[]>;
}

export interface SetupOptions {
  /** An existing root: as a daemon that starts again. */
  readonly root?: string;
  readonly config?: Partial<ImageServiceDeps["config"]>;
  readonly keepRoot?: boolean;
}

export async function openImages(options: SetupOptions = {}): Promise<ImageSetup> {
  const root = options.root ?? mkdtempSync(join(tmpdir(), "skiff-images-"));
  const resources = new AsyncDisposableStack();
  if (options.keepRoot !== true) resources.defer(() => rmSync(root, { recursive: true, force: true }));
  const database = resources.use(await openDatabase(join(root, "state.db"), { log: silentLog }));
  const pools = resources.use(openLayerPools());
  const content = await createDiskStore({
    root: join(root, "content"),
    log: silentLog,
    syncFileSystem: async (directory) => {
      await pools.work.run<"sync">({ kind: "sync", directory });
    },
  });
  const snapshotter = await createOverlaySnapshotter({
    root: join(root, "overlay2"),
    database,
    log: silentLog,
    pools,
  });
  const events = new EventBus(systemClock);
  const users = new Map<ImageId, ImageUser[]>();
  const images = resources.use(
    await createImageService({
      database,
      content,
      snapshotter,
      events,
      clock: systemClock,
      log: silentLog,
      temporaryDir: join(root, "tmp"),
      config: { mirrors: [], insecureRegistries: [], ...options.config },
      containersUsing: (id) => users.get(id) ?? [],
    }),
  );
  return {
    root,
    images,
    content,
    snapshotter,
    events,
    users,
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

/** Pulls and returns the lines of its progress stream. */
export async function pull(
  setup: ImageSetup,
  fromImage: string,
  tag = "latest",
  options: {
    platform?: string;
    auth?: object;
    signal?: AbortSignal;
    onLine?: (line: JsonMessage) => void;
  } = {},
): Promise<JsonMessage[]> {
  const lines: JsonMessage[] = [];
  const registryAuth =
    options.auth === undefined ? undefined : Buffer.from(JSON.stringify(options.auth)).toString("base64url");
  await setup.images.pull(
    { fromImage, tag, platform: options.platform ?? "", registryAuth },
    (line) => {
      lines.push(line);
      options.onLine?.(line);
    },
    options.signal ?? new AbortController().signal,
  );
  return lines;
}

/** The texts of plain status lines. */
export function statuses(lines: readonly JsonMessage[]): string[] {
  return lines.flatMap((line) => (line.kind === "status" ? [line.status] : []));
}
