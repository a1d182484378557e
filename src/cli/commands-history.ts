import type { HistoryItem } from "#sdk/types.ts";
import { type Command, exactly } from "./command.ts";
import { imagePath } from "./commands-image.ts";
import { platformJson } from "./commands-pull.ts";
import type { CliContext } from "./context.ts";
import { string } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";
import { formatHelp } from "./format-help.ts";
import { formatListing, type Row } from "./formatter.ts";
import { ellipsis, truncateId } from "./short-text.ts";
import { ago, localRfc3339 } from "./times.ts";
import { humanSize } from "./units.ts";

const headers = {
  ID: "IMAGE",
  CreatedSince: "CREATED",
  CreatedAt: "CREATED AT",
  CreatedBy: "CREATED BY",
  Size: "SIZE",
  Comment: "COMMENT",
} as const;

const table = "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const exactTable = "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";

export const history: Command = {
  usage: "[OPTIONS] IMAGE",
  flags: [
    flag("format", string, formatHelp),
    toggle("H,human", "Print sizes and times for people", { shown: "true", initial: true }),
    toggle("no-trunc", "Show ids and commands in full"),
    flag("platform", string, "Show one platform of an image"),
    toggle("q,quiet", "Print ids only"),
  ],
  args: exactly(1),
  run: runHistory,
};

async function runHistory(context: CliContext, flags: Flags, [name]: readonly string[]): Promise<number> {
  const human = flags.bool("human");
  const full = flags.bool("no-trunc");
  const given = flags.text("format") || "table";
  let format = given;
  if (given === "table") format = flags.bool("quiet") ? "{{.ID}}" : human ? table : exactTable;
  const items = await context.client.json<HistoryItem[]>("GET", `/images/${imagePath(name!)}/history`, {
    query: { platform: platformJson(flags.text("platform")) },
  });
  const rows = items.map((item) => historyRow(item, human, full));
  context.write(formatListing({ format, headers, typeName: "*image.historyContext", rows }));
  return 0;
}

function historyRow(item: HistoryItem, human: boolean, full: boolean): Row {
  const command = item.CreatedBy.replaceAll("\t", " ");
  return {
    ID: full ? item.Id : truncateId(item.Id),
    CreatedSince:
      human && item.Created !== 0 ? ago(item.Created) : human ? "N/A" : localRfc3339(item.Created),
    CreatedAt: item.Created === 0 ? "" : localRfc3339(item.Created),
    CreatedBy: full ? command : ellipsis(command, 45),
    Size: human ? humanSize(item.Size, 3) : String(item.Size),
    Comment: item.Comment,
  };
}
