import type { ContainerSummary, ImageSummary, VolumeDetails } from "#sdk/types.ts";
import { toGoJson } from "#wire/template-value.ts";
import { type Command, ExitError, noArguments } from "./command.ts";
import { imageHeaders, imageRows } from "./commands-images.ts";
import { containerRow } from "./commands-ps.ts";
import { volumeHeaders, volumeRow, volumeTypeName } from "./commands-volume.ts";
import type { CliContext } from "./context.ts";
import { string } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";
import { formatHelp } from "./format-help.ts";
import { formatListing, type Row } from "./formatter.ts";
import { truncateId } from "./short-text.ts";
import { humanDuration, humanSize } from "./units.ts";

interface BuildCacheItem {
  readonly ID: string;
  readonly Type: string;
  readonly Description: string;
  readonly InUse: boolean;
  readonly Shared: boolean;
  readonly Size: number;
  readonly CreatedAt: string;
  readonly LastUsedAt?: string | null;
  readonly UsageCount: number;
}

interface Usage {
  readonly LayersSize: number;
  readonly Images: readonly ImageSummary[] | null;
  readonly Containers: readonly ContainerSummary[] | null;
  readonly Volumes: readonly VolumeDetails[] | null;
  readonly BuildCache?: readonly BuildCacheItem[] | null;
}

export const diskUsage: Command = {
  usage: "[OPTIONS]",
  flags: [flag("format", string, formatHelp), toggle("v,verbose", "Show what uses how much")],
  args: noArguments,
  run: runUsage,
};

async function runUsage(context: CliContext, flags: Flags): Promise<number> {
  const usage = await context.client.json<Usage>("GET", "/system/df");
  const format = flags.text("format");
  if (!flags.bool("verbose")) {
    context.write(summary(usage, format || "table"));
    return 0;
  }
  if (format === "json") context.write(toGoJson(details(usage)));
  else if (format === "" || format === "table") context.write(verboseText(usage));
  else throw new ExitError(1, "--verbose takes no template but 'table' and 'json'");
  return 0;
}

const headers = {
  Type: "TYPE",
  TotalCount: "TOTAL",
  Active: "ACTIVE",
  Size: "SIZE",
  Reclaimable: "RECLAIMABLE",
} as const;

function summary(usage: Usage, format: string): string {
  const table = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
  return formatListing({
    format: format === "table" ? table : format,
    headers,
    typeName: "*formatter.diskUsageImagesContext",
    rows: [imagesRow(usage), containersRow(usage), volumesRow(usage), cacheRow(usage)],
  });
}

function row(
  type: string,
  total: number,
  active: number,
  size: number,
  reclaimable: number,
  percent = true,
): Row {
  const share = percent && size > 0 ? ` (${Math.trunc((reclaimable * 100) / size)}%)` : "";
  return {
    Type: type,
    TotalCount: String(total),
    Active: String(active),
    Size: humanSize(size),
    Reclaimable: `${humanSize(reclaimable)}${share}`,
  };
}

function imagesRow(usage: Usage): Row {
  const images = usage.Images ?? [];
  let used = 0;
  for (const image of images) {
    if (image.Containers > 0 && image.Size !== -1 && image.SharedSize !== -1)
      used += image.Size - image.SharedSize;
  }
  const reclaimable = usage.LayersSize - used;
  return row(
    "Images",
    images.length,
    images.filter((image) => image.Containers > 0).length,
    usage.LayersSize,
    reclaimable,
  );
}

function containersRow(usage: Usage): Row {
  const containers = usage.Containers ?? [];
  const active = containers.filter((item) => /running|paused|restarting/.test(item.State));
  const bytes = (items: readonly ContainerSummary[]): number =>
    items.reduce((sum, item) => sum + (item.SizeRw ?? 0), 0);
  return row(
    "Containers",
    containers.length,
    active.length,
    bytes(containers),
    bytes(containers) - bytes(active),
  );
}

function volumesRow(usage: Usage): Row {
  const volumes = usage.Volumes ?? [];
  let size = 0;
  let reclaimable = 0;
  let active = 0;
  for (const { UsageData: data } of volumes) {
    if (data === undefined || data === null) continue;
    if (data.RefCount > 0) active += 1;
    if (data.Size === -1) continue;
    size += data.Size;
    if (data.RefCount === 0) reclaimable += data.Size;
  }
  return row("Local Volumes", volumes.length, active, size, reclaimable);
}

function cacheRow(usage: Usage): Row {
  const items = usage.BuildCache ?? [];
  const own = items.filter((item) => !item.Shared);
  const size = own.reduce((sum, item) => sum + item.Size, 0);
  const used = own.filter((item) => item.InUse).reduce((sum, item) => sum + item.Size, 0);
  return row(
    "Build Cache",
    items.length,
    items.filter((item) => item.InUse).length,
    size,
    size - used,
    false,
  );
}

function imageDetails(usage: Usage, full: boolean): Row[] {
  const options = { full, digests: false, needDigest: false };
  return (usage.Images ?? []).flatMap((image) =>
    imageRows(image, options).map((one) => ({ ...one, ...(full ? { Digest: "" } : {}) })),
  );
}

function details(usage: Usage): object {
  const sorted = (rows: readonly Row[]): Map<string, unknown>[] =>
    rows.map((one) => new Map(Object.entries(one).filter(([, value]) => typeof value !== "function")));
  return {
    Images: sorted(imageDetails(usage, true)),
    Containers: sorted((usage.Containers ?? []).map((item) => containerRow(item, true))),
    Volumes: sorted((usage.Volumes ?? []).map(volumeRow)),
    BuildCache: sorted((usage.BuildCache ?? []).map(cacheDetails)),
  };
}

function cacheDetails(item: BuildCacheItem): Row {
  const ago = (time: string | null | undefined): string =>
    time === null || time === undefined || time === ""
      ? ""
      : `${humanDuration(Date.now() - Date.parse(time))} ago`;
  return {
    ID: truncateId(item.ID) + (item.InUse ? "*" : ""),
    CacheType: item.Type,
    Description: item.Description,
    Size: humanSize(item.Size, 3),
    CreatedAt: item.CreatedAt,
    CreatedSince: ago(item.CreatedAt),
    LastUsedAt: item.LastUsedAt ?? "",
    LastUsedSince: ago(item.LastUsedAt),
    UsageCount: String(item.UsageCount),
    InUse: String(item.InUse),
    Shared: String(item.Shared),
  };
}

function verboseText(usage: Usage): string {
  const images = formatListing({
    format:
      "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    headers: imageHeaders,
    typeName: "*formatter.imageContext",
    rows: imageDetails(usage, false),
  });
  const containers = formatListing({
    format:
      "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
    headers: {
      ID: "CONTAINER ID",
      Image: "IMAGE",
      Command: "COMMAND",
      LocalVolumes: "LOCAL VOLUMES",
      Size: "SIZE",
      RunningFor: "CREATED",
      Status: "STATUS",
      Names: "NAMES",
    },
    typeName: "*formatter.ContainerContext",
    rows: (usage.Containers ?? []).map((item) => ({ ...containerRow({ ...item, SizeRootFs: 0 }, false) })),
  });
  const volumes = formatListing({
    format: "table {{.Name}}\t{{.Links}}\t{{.Size}}",
    headers: volumeHeaders,
    typeName: volumeTypeName,
    rows: (usage.Volumes ?? []).map(volumeRow),
  });
  const cache = formatListing({
    format:
      "table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
    headers: {
      ID: "CACHE ID",
      CacheType: "CACHE TYPE",
      Size: "SIZE",
      CreatedSince: "CREATED",
      LastUsedSince: "LAST USED",
      UsageCount: "USAGE",
      Shared: "SHARED",
    },
    typeName: "*formatter.buildCacheContext",
    rows: (usage.BuildCache ?? []).map(cacheDetails),
  });
  const cacheSize = String(cacheRow(usage)["Size"]);
  return [
    `Images space usage:\n\n${images}`,
    `Containers space usage:\n\n${containers}`,
    `Local Volumes space usage:\n\n${volumes}`,
    `Build cache usage: ${cacheSize}\n\n${cache}`,
  ].join("\n");
}
