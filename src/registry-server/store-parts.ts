import type { Digest } from "#base/digest.ts";
import type { KeyedLock } from "#base/lock.ts";
import type { ContentStore } from "#content/content-store.ts";
import type { Database } from "#state/database.ts";
import type { ContentUsage } from "./content-usage.ts";
import type { ManifestCache } from "./manifest-cache.ts";
import { RepositoryIndex } from "./repository-index.ts";

/**
 * What the parts of the store share. Locks: one a repository for its manifests and tags, one a content from before its
 * bytes come until a row names it; a holder of the first may take the second, never the other way round. What is removed
 * leaves the memory before its row and comes back if the row does not go; what is added comes into memory after its row.
 */
export interface StoreParts {
  readonly database: Database;
  readonly content: ContentStore;
  readonly repositories: Map<string, RepositoryIndex>;
  readonly usage: ContentUsage;
  readonly cache: ManifestCache;
  readonly repositoryLocks: KeyedLock;
  readonly contentLocks: KeyedLock;
}

export function ensureRepository({ repositories }: StoreParts, name: string): RepositoryIndex {
  let found = repositories.get(name);
  if (found === undefined) {
    found = new RepositoryIndex();
    repositories.set(name, found);
  }
  return found;
}

/** Under the content's lock. What no row names after a failure goes at once: a full disk is the likeliest reason. */
export async function orGiveBack(
  { content: store, usage }: StoreParts,
  content: Digest,
  work: () => Promise<void>,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!usage.has(content)) await store.remove(content);
    throw error;
  }
}
