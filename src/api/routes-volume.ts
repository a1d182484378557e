import type { Volume, VolumeEngine } from "#engine/volumes.ts";
import { parseFilters } from "#wire/filters.ts";
import * as go from "#wire/go-json.ts";
import type { Route } from "./route.ts";
import { atLeast } from "./version.ts";

const createBody = go.struct("CreateOptions", {
  Name: go.string,
  Driver: go.string,
  DriverOpts: go.nullable(go.map(go.string)),
  Labels: go.nullable(go.map(go.string)),
});

const listFilters: ReadonlySet<string> = new Set(["dangling", "driver", "label", "name"]);
const pruneFilters: ReadonlySet<string> = new Set(["all", "label", "label!"]);

/** Docker's order of members, which is what `docker volume inspect` prints. */
export function volumeBody(volume: Volume, usage?: { bytes: number; users: number }): object {
  return {
    CreatedAt: volume.createdAt,
    Driver: volume.driver,
    Labels: volume.labels,
    Mountpoint: volume.mountpoint,
    Name: volume.name,
    Options: volume.options,
    Scope: "local",
    ...(usage === undefined ? {} : { UsageData: { RefCount: usage.users, Size: usage.bytes } }),
  };
}

function record(map: ReadonlyMap<string, string> | null): Readonly<Record<string, string>> | null {
  return map === null ? null : Object.fromEntries(map);
}

export function volumeRoutes(engine: VolumeEngine): Route[] {
  return [
    {
      method: "GET",
      pattern: "/volumes",
      handler: (exchange) => {
        const volumes = engine.list(parseFilters(exchange.query.get("filters"), listFilters));
        exchange.sendJson(200, { Volumes: volumes.map((volume) => volumeBody(volume)), Warnings: null });
      },
    },
    {
      method: "GET",
      pattern: "/volumes/{name...}",
      handler: (exchange) => exchange.sendJson(200, volumeBody(engine.inspect(exchange.params["name"]!))),
    },
    {
      method: "POST",
      pattern: "/volumes/create",
      handler: async (exchange) => {
        const body = await exchange.json(createBody);
        const volume = await engine.create({
          name: body.Name,
          driver: body.Driver,
          labels: record(body.Labels),
          options: body.DriverOpts?.size === 0 ? null : record(body.DriverOpts),
        });
        exchange.sendJson(201, volumeBody(volume));
      },
    },
    {
      method: "POST",
      pattern: "/volumes/prune",
      handler: async (exchange) => {
        const filters = new Map(parseFilters(exchange.query.get("filters"), pruneFilters));
        // Before 1.42 every unused volume was pruned, named or not.
        if (!atLeast(exchange.apiVersion, 1, 42)) filters.set("all", ["true"]);
        const { deleted, reclaimedBytes } = await engine.prune(filters);
        exchange.sendJson(200, {
          VolumesDeleted: deleted.length === 0 ? null : deleted,
          SpaceReclaimed: reclaimedBytes,
        });
      },
    },
    {
      method: "DELETE",
      pattern: "/volumes/{name...}",
      handler: async (exchange) => {
        await engine.remove(exchange.params["name"]!, exchange.query.bool("force"));
        exchange.sendEmpty(204);
      },
    },
  ];
}
