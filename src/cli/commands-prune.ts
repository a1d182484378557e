import { ApiError } from "#sdk/api-error.ts";
import type { DeletedImage } from "#sdk/types.ts";
import { type Command, ExitError, noArguments } from "./command.ts";
import { confirm } from "./confirm.ts";
import type { CliContext } from "./context.ts";
import { filtersParameter } from "./filters.ts";
import { bytes, filter } from "./flag-types.ts";
import { type FlagSpec, type Flags, flag, toggle } from "./flags.ts";
import { humanSize } from "./units.ts";

const force: FlagSpec = toggle("f,force", "Do not ask");
const filterFlag = (example: string): FlagSpec =>
  flag("filter", filter, `Remove only what matches ("${example}")`);

const sure = "Are you sure you want to continue?";

interface PruneResult {
  /** Printed lines, with a title where there are any. */
  readonly output: string;
  readonly bytes: number;
}

async function containers(context: CliContext, filters: readonly string[]): Promise<PruneResult> {
  const report = await context.client.json<{ ContainersDeleted: string[] | null; SpaceReclaimed: number }>(
    "POST",
    "/containers/prune",
    { query: { filters: filtersParameter(filters) } },
  );
  return listed("Deleted Containers:", report.ContainersDeleted, report.SpaceReclaimed);
}

function listed(title: string, names: readonly string[] | null, bytes: number): PruneResult {
  return { output: names === null || names.length === 0 ? "" : `${title}\n${names.join("\n")}\n`, bytes };
}

async function volumes(context: CliContext, filters: readonly string[]): Promise<PruneResult> {
  const report = await context.client.json<{ VolumesDeleted: string[] | null; SpaceReclaimed: number }>(
    "POST",
    "/volumes/prune",
    { query: { filters: filtersParameter(filters) } },
  );
  return listed("Deleted Volumes:", report.VolumesDeleted, report.SpaceReclaimed);
}

async function networks(context: CliContext, filters: readonly string[]): Promise<PruneResult> {
  const report = await context.client.json<{ NetworksDeleted: string[] | null }>("POST", "/networks/prune", {
    query: { filters: filtersParameter(filters) },
  });
  return listed("Deleted Networks:", report.NetworksDeleted, 0);
}

async function images(context: CliContext, all: boolean, filters: readonly string[]): Promise<PruneResult> {
  const report = await context.client.json<{ ImagesDeleted: DeletedImage[] | null; SpaceReclaimed: number }>(
    "POST",
    "/images/prune",
    { query: { filters: filtersParameter([...filters, `dangling=${!all}`]) } },
  );
  const lines = (report.ImagesDeleted ?? []).map((item) =>
    item.Untagged !== undefined && item.Untagged !== ""
      ? `untagged: ${item.Untagged}`
      : `deleted: ${item.Deleted}`,
  );
  return listed("Deleted Images:", lines, report.SpaceReclaimed);
}

/** Runs a prune after its warning was answered with yes. */
async function ask(
  context: CliContext,
  flags: Flags,
  warning: string,
  prune: () => Promise<PruneResult>,
  showSpace = true,
): Promise<number> {
  if (!flags.bool("force") && !(await confirm(context, `WARNING! ${warning}\n${sure}`))) return 0;
  const { output, bytes } = await prune();
  if (output !== "") context.print(output);
  if (showSpace) context.print(`Total reclaimed space: ${humanSize(bytes)}`);
  return 0;
}

export const pruneContainers: Command = {
  usage: "[OPTIONS]",
  flags: [filterFlag("until=<timestamp>"), force],
  args: noArguments,
  run: (context, flags) =>
    ask(context, flags, "This will remove all stopped containers.", () =>
      containers(context, flags.list("filter")),
    ),
};

export const pruneImages: Command = {
  usage: "[OPTIONS]",
  flags: [
    toggle("a,all", "Remove every image that no container uses"),
    filterFlag("until=<timestamp>"),
    force,
  ],
  args: noArguments,
  run: (context, flags) => {
    const all = flags.bool("all");
    const warning = all
      ? "This will remove all images without at least one container associated to them."
      : "This will remove all dangling images.";
    return ask(context, flags, warning, () => images(context, all, flags.list("filter")));
  },
};

export const pruneBuilder: Command = {
  usage: "[OPTIONS]",
  flags: [
    toggle("a,all", "Remove every record, also those whose layers images have"),
    filterFlag("until=24h"),
    flag("keep-storage", bytes, "Bytes that may stay"),
    force,
  ],
  args: noArguments,
  run: (context, flags) => {
    const all = flags.bool("all");
    const warning = all ? "This will remove all build cache." : "This will remove all dangling build cache.";
    return ask(context, flags, warning, async () => {
      const report = await context.client.json<{ CachesDeleted: string[] | null; SpaceReclaimed: number }>(
        "POST",
        "/build/prune",
        {
          query: {
            all: all ? true : undefined,
            "keep-storage": flags.number("keep-storage") || undefined,
            filters: filtersParameter(flags.list("filter")),
          },
        },
      );
      return listed("Deleted build cache objects:", report.CachesDeleted, report.SpaceReclaimed);
    });
  },
};

export const pruneNetworks: Command = {
  usage: "[OPTIONS]",
  flags: [filterFlag("until=<timestamp>"), force],
  args: noArguments,
  run: (context, flags) =>
    ask(
      context,
      flags,
      "This will remove all custom networks not used by at least one container.",
      () => networks(context, flags.list("filter")),
      false,
    ),
};

export const pruneVolumes: Command = {
  usage: "[OPTIONS]",
  flags: [toggle("a,all", "Remove named volumes too"), filterFlag("label=<label>"), force],
  args: noArguments,
  run: async (context, flags) => {
    const all = flags.bool("all");
    // Before 1.42 every unused volume was removed, and there was no filter to say so.
    const anonymousOnly = await context.client.atLeast("1.42");
    if (all && flags.list("filter").some((text) => text.startsWith("all="))) {
      throw new ExitError(1, "conflicting options: cannot specify both --all and --filter all=1");
    }
    const filters = [...flags.list("filter"), ...(all && anonymousOnly ? ["all=true"] : [])];
    const warning =
      all || !anonymousOnly
        ? "This will remove all local volumes not used by at least one container."
        : "This will remove anonymous local volumes not used by at least one container.";
    return ask(context, flags, warning, () => volumes(context, filters));
  },
};

export const pruneSystem: Command = {
  usage: "[OPTIONS]",
  flags: [
    toggle("a,all", "Remove every image that no container uses, not only dangling ones"),
    filterFlag("label=<key>=<value>"),
    force,
    toggle("volumes", "Remove anonymous volumes too"),
  ],
  args: noArguments,
  run: runSystem,
};

async function runSystem(context: CliContext, flags: Flags): Promise<number> {
  const all = flags.bool("all");
  const filters = flags.list("filter");
  const withVolumes = flags.bool("volumes");
  if (withVolumes && filters.some((text) => text.startsWith("until="))) {
    throw new ExitError(1, `ERROR: The "until" filter is not supported with "--volumes"`);
  }
  if (!flags.bool("force")) {
    const items = [
      "  - all stopped containers",
      "  - all networks not used by at least one container",
      ...(withVolumes ? ["  - all anonymous volumes not used by at least one container"] : []),
      all ? "  - all images without at least one container associated to them" : "  - all dangling images",
      all ? "  - all build cache" : "  - unused build cache",
    ];
    const note =
      filters.length === 0
        ? ""
        : `\n  Items to be pruned will be filtered with:\n${filters.map((text) => `  - ${text}`).join("\n")}\n`;
    const question = `WARNING! This will remove:\n${items.join("\n")}\n${note}\n${sure}`;
    if (!(await confirm(context, question))) return 0;
  }
  const steps = [
    () => containers(context, filters),
    () => networks(context, filters),
    ...(withVolumes ? [() => volumes(context, filters)] : []),
    () => images(context, all, filters),
    () => buildCache(context, all, filters),
  ];
  let bytes = 0;
  for (const step of steps) {
    const result = await step();
    bytes += result.bytes;
    if (result.output !== "") context.print(result.output);
  }
  context.print(`Total reclaimed space: ${humanSize(bytes)}`);
  return 0;
}

async function buildCache(
  context: CliContext,
  all: boolean,
  filters: readonly string[],
): Promise<PruneResult> {
  try {
    const report = await context.client.json<{ CachesDeleted?: string[] | null; SpaceReclaimed: number }>(
      "POST",
      "/build/prune",
      { query: { all: all ? true : undefined, filters: filtersParameter(filters) } },
    );
    return listed("Deleted build cache objects:", report.CachesDeleted ?? null, report.SpaceReclaimed);
  } catch (error) {
    // A daemon without a builder has no cache to remove.
    if (error instanceof ApiError && error.status === 404) return { output: "", bytes: 0 };
    throw error;
  }
}
