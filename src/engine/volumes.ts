import { EngineError } from "#base/errors.ts";
import type { Volume, VolumeCreate, VolumeStore } from "#volume/volume.ts";
import { type Filters, hasLabel, matchLabels } from "#wire/filters.ts";
import type { EventBus } from "./events.ts";

export type { Volume } from "#volume/volume.ts";

export interface VolumeEngineDeps {
  readonly volumes: VolumeStore;
  readonly events: EventBus;
  /** Ids of the containers, running or not, whose rows name the volume. */
  readonly containersUsing: (name: string) => readonly string[];
}

/** Use cases of volumes, with Docker's events. */
export interface VolumeEngine {
  list(filters: Filters): Volume[];
  inspect(name: string): Volume;
  create(request: VolumeCreate): Promise<Volume>;
  remove(name: string, force: boolean): Promise<void>;
  /** Removes unused anonymous volumes; named ones too with the filter `all`. */
  prune(filters: Filters): Promise<{ deleted: string[]; reclaimedBytes: number }>;
  /** Bytes and number of users, for `system df`. */
  usage(): Promise<{ volume: Volume; bytes: number; users: number }[]>;
}

const truths: ReadonlySet<string> = new Set(["1", "true"]);
const falsehoods: ReadonlySet<string> = new Set(["0", "false"]);

/** A filter that is a boolean: undefined when absent. Docker's wording for everything else. */
function booleanFilter(filters: Filters, key: string): boolean | undefined {
  const values = filters.get(key);
  if (values === undefined) return undefined;
  if (values.length > 0 && values.every((value) => truths.has(value))) return true;
  if (values.length > 0 && values.every((value) => falsehoods.has(value))) return false;
  throw new EngineError("invalid", `invalid filter '${key}=[${values.join(" ")}]'`, { code: "bad-filter" });
}

function matches(volume: Volume, filters: Filters): boolean {
  const names = filters.get("name");
  const drivers = filters.get("driver");
  return (
    (names === undefined || names.some((name) => volume.name.includes(name))) &&
    (drivers === undefined || drivers.includes(volume.driver)) &&
    matchLabels(filters.get("label"), volume.labels) &&
    !(filters.get("label!") ?? []).some((label) => hasLabel(label, volume.labels))
  );
}

export function createVolumeEngine({ volumes, events, containersUsing }: VolumeEngineDeps): VolumeEngine {
  const announce = (action: string, { name, driver }: Volume): void => {
    events.publish("volume", action, name, { driver });
  };
  return {
    list: (filters) => {
      const dangling = booleanFilter(filters, "dangling");
      return volumes
        .list()
        .filter((volume) => matches(volume, filters))
        .filter(({ name }) => dangling === undefined || (containersUsing(name).length === 0) === dangling)
        .sort((a, b) => (a.name < b.name ? -1 : 1));
    },
    inspect: (name) => volumes.get(name),
    create: async (request) => {
      const volume = await volumes.create(request);
      announce("create", volume);
      return volume;
    },
    remove: async (name, force) => {
      const volume = volumes.find(name);
      await volumes.remove(name, { force, usedBy: volume === undefined ? [] : containersUsing(name) });
      if (volume !== undefined) announce("destroy", volume);
    },
    prune: async (filters) => {
      const all = booleanFilter(filters, "all") ?? false;
      const deleted: string[] = [];
      let reclaimedBytes = 0;
      for (const volume of volumes.list()) {
        if (!matches(volume, filters) || !(all || volume.anonymous)) continue;
        if (containersUsing(volume.name).length > 0) continue;
        const bytes = await volumes.usageBytes(volume.name);
        try {
          await volumes.remove(volume.name, { force: true, usedBy: containersUsing(volume.name) });
        } catch (error) {
          // A container took it meanwhile: it is in use, and prune says nothing about those.
          if (error instanceof EngineError && error.kind === "conflict") continue;
          throw error;
        }
        deleted.push(volume.name);
        reclaimedBytes += bytes;
      }
      events.publish("volume", "prune", "", { reclaimed: String(reclaimedBytes) });
      return { deleted, reclaimedBytes };
    },
    usage: () =>
      Promise.all(
        volumes.list().map(async (volume) => ({
          volume,
          bytes: await volumes.usageBytes(volume.name),
          users: containersUsing(volume.name).length,
        })),
      ),
  };
}
