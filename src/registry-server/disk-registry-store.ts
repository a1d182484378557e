import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { KeyedLock } from "#base/lock.ts";
import type { Log } from "#base/log.ts";
import { createDiskStore } from "#content/disk-store.ts";
import { openDatabase } from "#state/sqlite-database.ts";
import { BlobLinks } from "./blob-links.ts";
import { loadRepositories } from "./load-repositories.ts";
import { ManifestCache } from "./manifest-cache.ts";
import { ManifestRows } from "./manifest-rows.ts";
import type {
  BlobLink,
  ManifestRecord,
  RegistryDigest,
  RegistryStore,
  SweepResult,
} from "./registry-store.ts";
import type { RepositoryIndex } from "./repository-index.ts";
import type { StoreParts } from "./store-parts.ts";
import { registryMigrations } from "./store-schema.ts";
import { Uploads } from "./uploads.ts";

/** Some ten thousand image manifests; a busy registry serves nearly all from here. */
const cachedManifestBytesMax = 64 * 1024 * 1024;

const noTags: ReadonlyMap<string, RegistryDigest> = new Map();

/**
 * The registry's store: bytes in a content store, rows in a SQLite database of its own, everything that is asked for in
 * memory. Its parts share `StoreParts`, where the rules of the locks stand.
 */
export class DiskRegistryStore implements RegistryStore, AsyncDisposable {
  readonly uploads: Uploads;
  readonly blobLinks: BlobLinks;
  readonly manifestRows: ManifestRows;
  readonly #parts: StoreParts;

  /**
   * Opens the store below `root` and removes what a crash left. A database that is missing beside blobs is refused: it
   * would forget everything.
   */
  static async open(root: string, log: Log): Promise<DiskRegistryStore> {
    mkdirSync(root, { recursive: true, mode: 0o700 });
    const blobs = join(root, "content", "blobs", "sha256");
    const inUse = existsSync(blobs) && readdirSync(blobs).length > 0;
    const database = await openDatabase(join(root, "registry.db"), {
      log,
      migrations: registryMigrations,
      mustExist: inUse,
    });
    try {
      const content = await createDiskStore({ root: join(root, "content"), log });
      const uploads = await Uploads.open(join(root, "uploads"), database);
      const parts: StoreParts = {
        database,
        content,
        ...(await loadRepositories(database, content, log)),
        cache: new ManifestCache(cachedManifestBytesMax),
        repositoryLocks: new KeyedLock(),
        contentLocks: new KeyedLock(),
      };
      const store = new DiskRegistryStore(parts, uploads);
      const swept = await store.sweepContent();
      if (swept.removed > 0) log.info("removed content that was never acknowledged", { ...swept });
      return store;
    } catch (error) {
      await database[Symbol.asyncDispose]();
      throw error;
    }
  }

  private constructor(parts: StoreParts, uploads: Uploads) {
    this.#parts = parts;
    this.uploads = uploads;
    this.blobLinks = new BlobLinks(parts);
    this.manifestRows = new ManifestRows(parts);
  }

  /** A repository that has something. */
  index(repository: string): RepositoryIndex | undefined {
    const found = this.#parts.repositories.get(repository);
    return found === undefined || found.isEmpty ? undefined : found;
  }

  repositories(): readonly string[] {
    const names: string[] = [];
    for (const [name, index] of this.#parts.repositories) if (!index.isEmpty) names.push(name);
    return names.sort();
  }

  manifests(repository: string): readonly ManifestRecord[] {
    return [...(this.#parts.repositories.get(repository)?.manifests.values() ?? [])];
  }

  tags(repository: string): ReadonlyMap<string, RegistryDigest> {
    return this.#parts.repositories.get(repository)?.tags ?? noTags;
  }

  links(repository: string): readonly BlobLink[] {
    return [...(this.#parts.repositories.get(repository)?.links.values() ?? [])];
  }

  totals(): ReturnType<RegistryStore["totals"]> {
    const { repositories: all, usage } = this.#parts;
    let repositories = 0;
    let manifests = 0;
    let tags = 0;
    for (const index of all.values()) {
      if (!index.isEmpty) repositories += 1;
      manifests += index.manifests.size;
      tags += index.tags.size;
    }
    const uploads = this.uploads.size;
    return { repositories, manifests, tags, uploads, contents: usage.size, contentBytes: usage.bytes };
  }

  untaggedManifests(repository: string): readonly ManifestRecord[] {
    return this.#parts.repositories.get(repository)?.unreachable() ?? [];
  }

  async collectManifest(
    repository: string,
    digest: RegistryDigest,
    { pushedBeforeMs }: { pushedBeforeMs: number },
  ): Promise<boolean> {
    return await this.manifestRows.collect(repository, digest, pushedBeforeMs);
  }

  collectableLinks(
    repository: string,
    { touchedBeforeMs }: { touchedBeforeMs: number },
  ): readonly BlobLink[] {
    return this.blobLinks.collectable(repository, touchedBeforeMs);
  }

  async collectLinks(
    repository: string,
    { touchedBeforeMs }: { touchedBeforeMs: number },
  ): Promise<readonly BlobLink[]> {
    return await this.blobLinks.collect(repository, touchedBeforeMs);
  }

  async sweepContent(options: { signal?: AbortSignal } = {}): Promise<SweepResult> {
    const { content: store, usage, cache, contentLocks } = this.#parts;
    let removed = 0;
    let bytes = 0;
    for (const content of await store.list()) {
      options.signal?.throwIfAborted();
      if (usage.has(content)) continue;
      using _ = await contentLocks.acquire(content);
      // Between the look and the lock a push may have named it.
      if (usage.has(content)) continue;
      const size = await store.size(content);
      if (size === undefined) continue;
      await store.remove(content);
      cache.drop(content);
      removed += 1;
      bytes += size;
    }
    return { removed, bytes };
  }

  async sweepable(): Promise<SweepResult> {
    const { content: store, usage } = this.#parts;
    let removed = 0;
    let bytes = 0;
    for (const content of await store.list()) {
      if (usage.has(content)) continue;
      removed += 1;
      bytes += (await store.size(content)) ?? 0;
    }
    return { removed, bytes };
  }

  async expireUploads({ idleSinceMs }: { idleSinceMs: number }): Promise<number> {
    return await this.uploads.expire(idleSinceMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.database[Symbol.asyncDispose]();
  }
}
