import { mediaTypes } from "#wire/oci-image.ts";
import { digestOrFault } from "./answer-blob.ts";
import type { DiskRegistryStore } from "./disk-registry-store.ts";
import type { Exchange } from "./exchange.ts";
import { readManifest } from "./manifest-document.ts";
import { RegistryFault } from "./registry-fault.ts";
import type { Manifest } from "./repository-index.ts";

/** Docker's registry gives a hundred repositories when it is not told how many. */
const catalogPageSize = 100;
const catalogPageMax = 10_000;
/** Referrers a page, and bytes: each brings its annotations along. */
const referrersPageSize = 500;
const referrersPageBytes = 2 * 1024 * 1024;
/** Manifests that are read and parsed for a page: a few large ones are enough for it. */
const referrersReadBytes = 8 * 1024 * 1024;

/** The number of results asked for, or undefined for all. Throws as Docker's registry does. */
function countOf(exchange: Exchange): number | undefined {
  const text = exchange.query.get("n");
  if (text === null || text === "") return undefined;
  if (!/^\d{1,9}$/.test(text)) {
    throw new RegistryFault(400, "PAGINATION_NUMBER_INVALID", { detail: { n: text.slice(0, 40) } });
  }
  return Number(text);
}

/** `Link` to the next page (RFC 5988), without an origin: it holds behind any proxy. */
function nextLink(path: string, parameters: Readonly<Record<string, string>>): { Link: string } {
  return { Link: `<${path}?${new URLSearchParams(parameters).toString()}>; rel="next"` };
}

/** What comes after `last` in a list sorted by code units, which for these names is the order of their bytes. */
function after(sorted: readonly string[], last: string | null): number {
  if (last === null || last === "") return 0;
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! <= last) low = middle + 1;
    else high = middle;
  }
  return low;
}

interface Page {
  readonly items: readonly string[];
  readonly link: { Link?: string };
}

function pageOf(exchange: Exchange, sorted: readonly string[], count: number | undefined): Page {
  const from = after(sorted, exchange.query.get("last"));
  const items = sorted.slice(from, count === undefined ? undefined : from + count);
  const last = items.at(-1);
  if (count === undefined || last === undefined || from + items.length >= sorted.length) {
    return { items, link: {} };
  }
  return { items, link: nextLink(exchange.path, { n: String(count), last }) };
}

/** Lists: tags, repositories, referrers (OCI distribution spec, end-8 and end-12; Docker's `_catalog`). */
export class ListAnswers {
  readonly #store: DiskRegistryStore;

  constructor(store: DiskRegistryStore) {
    this.#store = store;
  }

  tags(exchange: Exchange, repository: string): void {
    const index = this.#store.index(repository);
    if (index === undefined) throw new RegistryFault(404, "NAME_UNKNOWN", { detail: { name: repository } });
    const { items, link } = pageOf(exchange, index.sortedTags(), countOf(exchange));
    exchange.json(200, link, { name: repository, tags: items });
  }

  catalog(exchange: Exchange): void {
    const count = Math.min(countOf(exchange) ?? catalogPageSize, catalogPageMax);
    const { items, link } = pageOf(exchange, this.#store.repositories(), count);
    exchange.json(200, link, { repositories: items });
  }

  /** Never 404: a repository that is not there has no referrers. */
  async referrers(exchange: Exchange, repository: string, reference: string): Promise<void> {
    const digest = digestOrFault(reference);
    // A plus sign that a client did not encode has become a space, and no media type has one.
    const artifactType = exchange.query.get("artifactType")?.replaceAll(" ", "+");
    const last = exchange.query.get("last") ?? "";
    const all = (this.#store.index(repository)?.referrersOf(digest) ?? []).filter(
      (manifest) =>
        manifest.digest > last && (artifactType === undefined || manifest.artifactType === artifactType),
    );
    const { descriptors, rest } = await this.#descriptors(all);
    const filter = artifactType === undefined ? {} : { artifactType };
    const link = rest === undefined ? {} : nextLink(exchange.path, { ...filter, last: rest });
    exchange.json(
      200,
      {
        "Content-Type": mediaTypes.ociIndex,
        ...(artifactType === undefined ? {} : { "OCI-Filters-Applied": "artifactType" }),
        ...link,
      },
      { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: descriptors },
    );
  }

  /** One page of descriptors; `rest`: the last of them, when there are more. */
  async #descriptors(
    manifests: readonly Manifest[],
  ): Promise<{ descriptors: readonly object[]; rest: string | undefined }> {
    const descriptors: object[] = [];
    let bytes = 0;
    let readBytes = 0;
    for (const manifest of manifests) {
      readBytes += manifest.sizeBytes;
      const described = await this.#describe(manifest);
      bytes += JSON.stringify(described).length;
      descriptors.push(described);
      const full =
        descriptors.length >= referrersPageSize ||
        bytes >= referrersPageBytes ||
        readBytes >= referrersReadBytes;
      if (full && descriptors.length < manifests.length) return { descriptors, rest: manifest.digest };
    }
    return { descriptors, rest: undefined };
  }

  async #describe(manifest: Manifest): Promise<object> {
    const bytes =
      this.#store.manifestRows.cached(manifest) ?? (await this.#store.manifestRows.read(manifest));
    const { annotations } = readManifest(bytes, manifest.mediaType);
    return {
      mediaType: manifest.mediaType,
      digest: manifest.digest,
      size: manifest.sizeBytes,
      ...(manifest.artifactType === undefined ? {} : { artifactType: manifest.artifactType }),
      ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
    };
  }
}
