import type { Digest } from "#base/digest.ts";
import type { Log } from "#base/log.ts";
import type { ContentStore } from "#content/content-store.ts";
import type { Database, Statement } from "#state/database.ts";
import { ContentUsage } from "./content-usage.ts";
import { asContent } from "./registry-digest.ts";
import type { RegistryDigest } from "./registry-store.ts";
import { RepositoryIndex } from "./repository-index.ts";

type LinkRow = { repository: string; digest: RegistryDigest; content: Digest; size_bytes: number };
type ManifestRow = LinkRow & {
  media_type: string;
  named: string;
  subject: RegistryDigest | null;
  artifact_type: string | null;
  pushed_at_ms: number;
};
type TagRow = { repository: string; name: string; digest: RegistryDigest };

export interface LoadedRepositories {
  readonly repositories: Map<string, RepositoryIndex>;
  readonly usage: ContentUsage;
}

/**
 * Reads all rows. A row whose bytes somebody took from the disk is dropped with a warning, so that a push can heal it;
 * a registry that believed such a row would refuse the bytes as known.
 */
export async function loadRepositories(
  database: Database,
  content: ContentStore,
  log: Log,
): Promise<LoadedRepositories> {
  const repositories = new Map<string, RepositoryIndex>();
  const usage = new ContentUsage();
  const lost: Statement[] = [];
  const indexOf = (name: string): RepositoryIndex => {
    const index = repositories.get(name) ?? new RepositoryIndex();
    repositories.set(name, index);
    return index;
  };
  const drop = (table: string, row: { repository: string; digest: string }): void => {
    log.warn("bytes are missing", { table, repository: row.repository, digest: row.digest });
    const sql = `DELETE FROM ${table} WHERE repository = ? AND digest = ?`;
    lost.push({ sql, params: [row.repository, row.digest] });
  };
  const now = Date.now();
  for (const row of await database.all<LinkRow>("SELECT * FROM link")) {
    if (!(await content.has(row.content))) {
      drop("link", row);
      continue;
    }
    usage.add(row.content, row.size_bytes);
    const { digest, size_bytes: sizeBytes } = row;
    const link = { digest, content: contentOf(digest, row.content), sizeBytes, touchedAtMs: now };
    indexOf(row.repository).links.set(row.digest, link);
  }
  for (const row of await database.all<ManifestRow>("SELECT * FROM manifest")) {
    if (!(await content.has(row.content))) {
      drop("manifest", row);
      continue;
    }
    usage.add(row.content, row.size_bytes);
    addManifest(indexOf(row.repository), row);
  }
  for (const row of await database.all<TagRow>("SELECT * FROM tag")) {
    const index = indexOf(row.repository);
    if (index.manifests.has(row.digest)) index.setTag(row.name, row.digest);
    else drop("tag", row);
  }
  if (lost.length > 0) await database.commit(lost);
  return { repositories, usage };
}

/** One string where both are the same: there are very many of them. */
function contentOf(digest: RegistryDigest, content: Digest): Digest {
  return (content as string) === digest ? asContent(digest) : content;
}

function addManifest(index: RepositoryIndex, row: ManifestRow): void {
  const named = JSON.parse(row.named) as { children: RegistryDigest[]; blobs: RegistryDigest[] };
  const { children } = named;
  const blobs = named.blobs.map((digest) => index.links.get(digest)?.digest ?? digest);
  index.pin(children);
  index.pin(blobs);
  index.addManifest({
    digest: row.digest,
    content: contentOf(row.digest, row.content),
    sizeBytes: row.size_bytes,
    mediaType: row.media_type,
    children,
    blobs,
    pushedAtMs: row.pushed_at_ms,
    ...(row.subject === null ? {} : { subject: row.subject }),
    ...(row.artifact_type === null ? {} : { artifactType: row.artifact_type }),
  });
}
