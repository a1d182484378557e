import { type Command, exactly } from "./command.ts";
import { credentialsFor, encodeAuth, hubServer } from "./credentials.ts";
import { filtersParameter } from "./filters.ts";
import { filter, integer, string } from "./flag-types.ts";
import { flag, toggle } from "./flags.ts";
import { formatListing } from "./formatter.ts";
import { ellipsis } from "./short-text.ts";

interface SearchResult {
  readonly name: string;
  readonly description: string;
  readonly star_count: number;
  readonly is_official: boolean;
  readonly is_automated?: boolean;
}

const headers = {
  Name: "NAME",
  Description: "DESCRIPTION",
  StarCount: "STARS",
  IsOfficial: "OFFICIAL",
  IsAutomated: "AUTOMATED",
} as const;

export const search: Command = {
  usage: "[OPTIONS] TERM",
  flags: [
    flag("f,filter", filter, "Show only images that match"),
    flag("format", string, "Shape of the output, as a Go template"),
    flag("limit", integer, "Most results to show"),
    toggle("no-trunc", "Show descriptions in full"),
  ],
  args: exactly(1),
  run: async (context, flags, [term]) => {
    const given = flags.text("format");
    const format =
      given === "" || given === "table"
        ? "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"
        : given;
    const slash = term!.indexOf("/");
    const server = slash > 0 && /[.:]/.test(term!.slice(0, slash)) ? term!.slice(0, slash) : hubServer;
    const results = await context.client.json<SearchResult[]>("GET", "/images/search", {
      query: {
        term: term!,
        limit: flags.number("limit") || undefined,
        filters: filtersParameter(flags.list("filter")),
      },
      headers: { "X-Registry-Auth": encodeAuth(await credentialsFor(context.config, server)) },
    });
    const rows = results
      .toSorted((one, other) => other.star_count - one.star_count)
      .map((item) => {
        const description = item.description.replaceAll("\n", " ").replaceAll("\r", " ");
        return {
          Name: item.name,
          Description: flags.bool("no-trunc") ? description : ellipsis(description, 45),
          StarCount: String(item.star_count),
          IsOfficial: item.is_official ? "[OK]" : "",
          IsAutomated: item.is_automated === true ? "[OK]" : "",
        };
      });
    context.write(formatListing({ format, headers, typeName: "*formatter.searchContext", rows }));
    return 0;
  },
};
