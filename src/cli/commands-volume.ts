import { ApiError } from "#sdk/api-error.ts";
import { volumePart } from "#sdk/path-part.ts";
import type { VolumeDetails } from "#sdk/types.ts";
import { atLeast, atMost, type Command, ExitError, noArguments } from "./command.ts";
import type { CliContext } from "./context.ts";
import { forEachInTurn } from "./each.ts";
import { collectLabels } from "./env-file.ts";
import { errorText } from "./error-text.ts";
import { filtersParameter } from "./filters.ts";
import { filter, list, listOf, map, string } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";
import { formatHelp } from "./format-help.ts";
import { chooseFormat, formatListing, type Row } from "./formatter.ts";
import { checkLabel } from "./option-checks.ts";
import { joinLabels } from "./short-text.ts";
import { humanSize } from "./units.ts";

export const volumeHeaders = {
  Name: "VOLUME NAME",
  Driver: "DRIVER",
  Scope: "SCOPE",
  Availability: "AVAILABILITY",
  Mountpoint: "MOUNTPOINT",
  Labels: "LABELS",
  Links: "LINKS",
  Group: "GROUP",
  Size: "SIZE",
  Status: "STATUS",
} as const;

export const volumeTypeName = "*formatter.volumeContext";

export const listVolumes: Command = {
  usage: "[OPTIONS]",
  flags: [
    toggle("cluster", "", { hidden: true }),
    flag("f,filter", filter, 'Show only volumes that match ("dangling=true")'),
    flag("format", string, formatHelp),
    toggle("q,quiet", "Print names only"),
  ],
  args: noArguments,
  run: async (context, flags) => {
    const quiet = flags.bool("quiet");
    let format = chooseFormat(flags.text("format"), context.config.volumesFormat, quiet);
    if (format === "table") format = quiet ? "{{.Name}}" : "table {{.Driver}}\t{{.Name}}";
    else if (format === "raw") format = quiet ? "name: {{.Name}}" : "name: {{.Name}}\ndriver: {{.Driver}}\n";
    const result = await context.client.json<{ Volumes: VolumeDetails[] | null }>("GET", "/volumes", {
      query: { filters: filtersParameter(flags.list("filter")) },
    });
    const volumes = (result.Volumes ?? []).toSorted((one, other) => naturalCompare(one.Name, other.Name));
    context.write(
      formatListing({
        format,
        headers: volumeHeaders,
        typeName: volumeTypeName,
        rows: volumes.map(volumeRow),
      }),
    );
    return 0;
  },
};

/** Docker sorts names so that `v2` comes before `v10`. */
export function naturalCompare(one: string, other: string): number {
  const split = (text: string): string[] => text.match(/\d+|\D+/g) ?? [];
  const [left, right] = [split(one), split(other)];
  for (let index = 0; index < Math.min(left.length, right.length); index += 1) {
    const [a, b] = [left[index]!, right[index]!];
    if (a === b) continue;
    if (/^\d/.test(a) && /^\d/.test(b) && Number(a) !== Number(b)) return Number(a) - Number(b);
    return a < b ? -1 : 1;
  }
  return left.length - right.length;
}

export function volumeRow(volume: VolumeDetails): Row {
  const usage = volume.UsageData ?? undefined;
  return {
    Name: volume.Name,
    Driver: volume.Driver,
    Scope: volume.Scope,
    Availability: "N/A",
    Mountpoint: volume.Mountpoint,
    Labels: joinLabels(volume.Labels),
    Label: (name: string) => volume.Labels?.[name] ?? "",
    Links: usage === undefined ? "N/A" : String(usage.RefCount),
    Group: "N/A",
    Size: usage === undefined ? "N/A" : humanSize(usage.Size),
    Status: "N/A",
  };
}

export const createVolume: Command = {
  usage: "[OPTIONS] [VOLUME]",
  flags: [
    flag("d,driver", string, "Driver of the volume", { shown: '"local"', initial: "local" }),
    flag("label", listOf(checkLabel), "Attach a label to the volume"),
    flag("name", string, "", { hidden: true }),
    flag("o,opt", map, "Option for the driver"),
    flag("availability", string, "", { hidden: true }),
    flag("group", string, "", { hidden: true }),
    flag("secret", list, "", { hidden: true }),
  ],
  args: atMost(1),
  run: runCreate,
};

async function runCreate(context: CliContext, flags: Flags, [name]: readonly string[]): Promise<number> {
  if (flags.text("name") !== "" && name !== undefined) {
    throw new ExitError(
      1,
      "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
    );
  }
  if (flags.changed("availability") || flags.changed("group") || flags.changed("secret")) {
    throw new ExitError(1, "cluster volumes are not supported");
  }
  const options = Object.fromEntries(flags.list("opt").map((text) => splitPair(text)));
  const volume = await context.client.json<VolumeDetails>("POST", "/volumes/create", {
    json: {
      Name: name ?? flags.text("name"),
      Driver: flags.text("driver"),
      DriverOpts: options,
      Labels: collectLabels([], flags.list("label")),
    },
  });
  context.print(volume.Name);
  return 0;
}

export function splitPair(text: string): [string, string] {
  const equals = text.indexOf("=");
  return equals < 0 ? [text, ""] : [text.slice(0, equals), text.slice(equals + 1)];
}

export const removeVolumes: Command = {
  usage: "[OPTIONS] VOLUME [VOLUME...]",
  description: "Remove one or more volumes. A volume that a container uses cannot be removed.",
  flags: [toggle("f,force", "Do not complain of volumes that do not exist")],
  args: atLeast(1),
  run: (context, flags, names) =>
    forEachInTurn(context, names, async (name) => {
      try {
        await context.client.run("DELETE", `/volumes/${volumePart(name)}`, {
          query: { force: flags.bool("force") ? true : undefined },
        });
      } catch (error) {
        if (!(flags.bool("force") && error instanceof ApiError && error.status === 404)) throw error;
        context.error(errorText(error));
      }
      return name;
    }),
};
