import type { ContainerSummary } from "#sdk/types.ts";
import { parseTemplate, TemplateError } from "#wire/template.ts";
import { goType } from "#wire/template-value.ts";
import { type Command, ExitError, noArguments } from "./command.ts";
import type { CliContext } from "./context.ts";
import { filtersParameter } from "./filters.ts";
import { filter, integer, string } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";
import { formatHelp } from "./format-help.ts";
import { chooseFormat, formatListing, type Row } from "./formatter.ts";
import { displayPorts } from "./ports-display.ts";
import { ellipsis, joinLabels, quoteCommand, truncateId } from "./short-text.ts";
import { ago, goTimeString } from "./times.ts";
import { humanSize } from "./units.ts";

const headers = {
  ID: "CONTAINER ID",
  Names: "NAMES",
  Image: "IMAGE",
  Command: "COMMAND",
  CreatedAt: "CREATED AT",
  RunningFor: "CREATED",
  Ports: "PORTS",
  State: "STATE",
  Status: "STATUS",
  Size: "SIZE",
  Labels: "LABELS",
  Mounts: "MOUNTS",
  LocalVolumes: "LOCAL VOLUMES",
  Networks: "NETWORKS",
  Platform: "PLATFORM",
} as const;

const table = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

const rawFormat =
  "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\nlabels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n";

export const ps: Command = {
  usage: "[OPTIONS]",
  flags: [
    toggle("a,all", "Show all containers, not only those that run"),
    flag("f,filter", filter, "Show only containers that match"),
    flag("format", string, formatHelp),
    flag("n,last", integer, "Show the n containers created last, in any state", { shown: "-1", initial: -1 }),
    toggle("l,latest", "Show the container created last, in any state"),
    toggle("no-trunc", "Show ids, commands and images in full"),
    toggle("q,quiet", "Print ids only"),
    toggle("s,size", "Show how much disk each container uses"),
  ],
  args: noArguments,
  run: listContainers,
};

async function listContainers(context: CliContext, flags: Flags): Promise<number> {
  const format = resolveFormat(context, flags);
  const size = flags.bool("size") || (!flags.changed("size") && usesSize(format));
  const last = flags.bool("latest") ? 1 : flags.number("last");
  checkTemplate(flags.text("format"));
  const containers = await context.client.json<ContainerSummary[]>("GET", "/containers/json", {
    query: {
      all: flags.bool("all") ? true : undefined,
      limit: last > 0 ? last : undefined,
      size: size ? true : undefined,
      filters: filtersParameter(flags.list("filter")),
    },
  });
  const full = flags.bool("no-trunc");
  context.write(
    formatListing({ format, headers, typeName, rows: containers.map((item) => containerRow(item, full)) }),
  );
  return 0;
}

const typeName = "*formatter.ContainerContext";

/** What a template asks for decides what the daemon is asked for, so a bad one is told first, as it was written. */
function checkTemplate(format: string): void {
  if (format === "" || format === "table" || format === "json" || format === "raw") return;
  try {
    const template = parseTemplate(format);
    const empty = containerRow(emptyContainer, true);
    template.execute(Object.defineProperty(empty, goType, { value: typeName, enumerable: false }));
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    const what = error.message.includes("executing") ? "execute" : "parse";
    throw new ExitError(1, `failed to ${what} template: ${error.message}`);
  }
}

const emptyContainer: ContainerSummary = {
  Id: "",
  Names: null,
  Image: "",
  ImageID: "",
  Command: "",
  Created: 0,
  Ports: null,
  Labels: null,
  State: "",
  Status: "",
  Mounts: null,
};

function usesSize(format: string): boolean {
  return /\.Size\b/.test(format);
}

function resolveFormat(context: CliContext, flags: Flags): string {
  const quiet = flags.bool("quiet");
  const chosen = chooseFormat(flags.text("format"), context.config.psFormat, quiet);
  if (chosen === "table") return quiet ? "{{.ID}}" : flags.bool("size") ? `${table}\t{{.Size}}` : table;
  if (chosen === "raw") {
    if (quiet) return "container_id: {{.ID}}";
    return flags.bool("size") ? `${rawFormat}size: {{.Size}}\n` : rawFormat;
  }
  return chosen;
}

/** What the formatter knows of a container; every field of Docker's is there. */
export function containerRow(item: ContainerSummary, full: boolean, nowMs = Date.now()): Row {
  return {
    ID: full ? item.Id : truncateId(item.Id),
    Names: names(item, full),
    Image: image(item, full),
    Command: quoteCommand(full ? item.Command : ellipsis(item.Command, 20)),
    CreatedAt: goTimeString(item.Created * 1000),
    RunningFor: ago(item.Created, nowMs),
    Ports: displayPorts(item.Ports ?? []),
    State: item.State,
    Status: item.Status,
    get Size() {
      return size(item);
    },
    Labels: joinLabels(item.Labels),
    Label: (name: string) => item.Labels?.[name] ?? "",
    Mounts: (item.Mounts ?? [])
      .map((mount) => mount.Name || mount.Source)
      .map((name) => (full ? name : ellipsis(name, 15)))
      .join(","),
    LocalVolumes: String((item.Mounts ?? []).filter((mount) => mount.Driver === "local").length),
    Networks: Object.keys(item.NetworkSettings?.Networks ?? {})
      .sort()
      .join(","),
    Platform: item.ImageManifestDescriptor?.platform ?? null,
  };
}

function names(item: ContainerSummary, full: boolean): string {
  const all = (item.Names ?? []).map((name) => name.replace(/^\//, ""));
  if (full) return all.join(",");
  // A name with a slash is a link's: the container's own comes without.
  return all.find((name) => !name.includes("/")) ?? all.join(",");
}

function image(item: ContainerSummary, full: boolean): string {
  if (item.Image === "") return "<no image>";
  if (full) return item.Image;
  const short = truncateId(item.ImageID);
  if (short === truncateId(item.Image)) return short;
  // name:tag@digest is shown without the digest.
  const match = /^(.+:[^/@]+)@sha256:[0-9a-f]{64}$/.exec(item.Image);
  return match?.[1] ?? item.Image;
}

function size(item: ContainerSummary): string {
  const writable = humanSize(item.SizeRw ?? 0, 3);
  const virtual = item.SizeRootFs ?? 0;
  return virtual > 0 ? `${writable} (virtual ${humanSize(virtual, 3)})` : writable;
}
