import type { ImageSummary } from "#sdk/types.ts";
import { atMost, type Command, ExitError } from "./command.ts";
import type { CliContext } from "./context.ts";
import { filtersParameter } from "./filters.ts";
import { filter, string } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";
import { formatHelp } from "./format-help.ts";
import { chooseFormat, formatListing, type Row } from "./formatter.ts";
import { familiarName, parseReference } from "./reference.ts";
import { truncateId } from "./short-text.ts";
import { ago, goTimeString } from "./times.ts";
import { humanSize } from "./units.ts";

export const imageHeaders = {
  ID: "IMAGE ID",
  Repository: "REPOSITORY",
  Tag: "TAG",
  Digest: "DIGEST",
  CreatedSince: "CREATED",
  CreatedAt: "CREATED AT",
  Size: "SIZE",
  Containers: "CONTAINERS",
  VirtualSize: "SIZE",
  SharedSize: "SHARED SIZE",
  UniqueSize: "UNIQUE SIZE",
} as const;

const table = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const digestTable = "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";

export const images: Command = {
  usage: "[OPTIONS] [REPOSITORY[:TAG]]",
  flags: [
    toggle("a,all", "Show intermediate images too"),
    toggle("digests", "Show digests"),
    flag("f,filter", filter, "Show only images that match"),
    flag("format", string, formatHelp),
    toggle("no-trunc", "Show ids in full"),
    toggle("q,quiet", "Print ids only"),
    toggle("tree", "", { hidden: true }),
  ],
  args: atMost(1),
  run: listImages,
};

async function listImages(
  context: CliContext,
  flags: Flags,
  [repository]: readonly string[],
): Promise<number> {
  if (flags.bool("tree")) throw new ExitError(1, "--tree is not supported");
  const filters = [...flags.list("filter")];
  if (repository !== undefined) filters.push(`reference=${repository}`);
  const format = resolveFormat(context, flags);
  const list = await context.client.json<ImageSummary[]>("GET", "/images/json", {
    query: { all: flags.bool("all") ? true : undefined, filters: filtersParameter(filters) },
  });
  const options = {
    full: flags.bool("no-trunc"),
    digests: flags.bool("digests"),
    needDigest: flags.bool("digests") || format.includes("{{.Digest}}"),
  };
  context.write(
    formatListing({
      format,
      headers: imageHeaders,
      typeName,
      rows: list.flatMap((image) => imageRows(image, options)),
    }),
  );
  return 0;
}

const typeName = "*formatter.imageContext";

function resolveFormat(context: CliContext, flags: Flags): string {
  const quiet = flags.bool("quiet");
  const chosen = chooseFormat(flags.text("format"), context.config.imagesFormat, quiet);
  const digests = flags.bool("digests");
  if (chosen === "table") return quiet ? "{{.ID}}" : digests ? digestTable : table;
  if (chosen === "raw") {
    if (quiet) return "image_id: {{.ID}}";
    const digest = digests ? "digest: {{.Digest}}\n" : "";
    return `repository: {{ .Repository}}\ntag: {{.Tag}}\n${digest}image_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n`;
  }
  return chosen;
}

export interface ImageRowOptions {
  readonly full: boolean;
  /** A row for each digest. */
  readonly digests: boolean;
  readonly needDigest: boolean;
}

/** An image has a row for each tag, and one for each repository that it has only a digest in. */
export function imageRows(image: ImageSummary, options: ImageRowOptions, nowMs = Date.now()): Row[] {
  const rows: Row[] = [];
  const add = (repository: string, tag: string, digest: string): void => {
    rows.push(imageRow(image, options.full, { repository, tag, digest }, nowMs));
  };
  const tags = namesOf(image.RepoTags, "tag");
  const digests = namesOf(image.RepoDigests, "digest");
  if (tags.size === 0 && digests.size === 0) add("<none>", "<none>", "<none>");
  for (const [repository, own] of tags) {
    const shown = options.needDigest ? (digests.get(repository) ?? []) : [];
    digests.delete(repository);
    for (const tag of own) {
      if (shown.length === 0) add(repository, tag, "<none>");
      else for (const digest of shown) add(repository, tag, digest);
    }
  }
  for (const [repository, own] of digests) {
    if (options.digests) for (const digest of own) add(repository, "<none>", digest);
    else add(repository, "<none>", "");
  }
  return rows;
}

function namesOf(references: readonly string[] | null, part: "tag" | "digest"): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const text of references ?? []) {
    if (text.startsWith("<none>")) continue;
    try {
      const reference = parseReference(text);
      const value = reference[part];
      if (value === "") continue;
      const name = familiarName(reference);
      found.set(name, [...(found.get(name) ?? []), value]);
    } catch {
      // A name that is none of ours to show.
    }
  }
  return found;
}

function imageRow(
  image: ImageSummary,
  full: boolean,
  names: { repository: string; tag: string; digest: string },
  nowMs: number,
): Row {
  const shared = image.SharedSize ?? -1;
  return {
    ID: full ? image.Id : truncateId(image.Id),
    Repository: names.repository,
    Tag: names.tag,
    Digest: names.digest,
    CreatedSince: image.Created <= 0 ? "N/A" : ago(image.Created, nowMs),
    CreatedAt: goTimeString(image.Created * 1000),
    Size: humanSize(image.Size, 3),
    Containers: (image.Containers ?? -1) < 0 ? "N/A" : String(image.Containers),
    VirtualSize: humanSize(image.Size),
    SharedSize: shared < 0 ? "N/A" : humanSize(shared),
    UniqueSize: shared < 0 ? "N/A" : humanSize(image.Size - shared),
  };
}
