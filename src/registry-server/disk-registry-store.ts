import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { unlink } from "node:fs/promises";
import { join } from "node:path";
import { type Digest, digestOf } from "#base/digest.ts";
import { limits } from "#base/limits.ts";
import { KeyedLock } from "#base/lock.ts";
import type { Log } from "#base/log.ts";
import type { ContentStore } from "#content/content-store.ts";
import { createDiskStore } from "#content/disk-store.ts";
import type { Database, Statement } from "#state/database.ts";
import { openDatabase } from "#state/sqlite-database.ts";
import type { ContentUsage } from "./content-usage.ts";
import { loadRepositories } from "./load-repositories.ts";
import { ManifestCache } from "./manifest-cache.ts";
import type { ManifestDocument } from "./manifest-document.ts";
import { resolveNamed } from "./manifest-named.ts";
import { RegistryFault } from "./registry-fault.ts";
import type {
  BlobLink,
  ManifestRecord,
  RegistryDigest,
  RegistryStore,
  SweepResult,
} from "./registry-store.ts";
import { type Link, type Manifest, RepositoryIndex } from "./repository-index.ts";
import { insertManifest, insertTag, registryMigrations } from "./store-schema.ts";
import { Uploads } from "./uploads.ts";

/** Some ten thousand image manifests; a busy registry serves nearly all from here. */
const cachedManifestBytesMax = 64 * 1024 * 1024;

export interface NewBlob {
  readonly digest: RegistryDigest;
  readonly content: Digest;
  readonly sizeBytes: number;
  /** Whole, verified and flushed; taken over, or removed where the content is there already. */
  readonly path: string;
}

export interface NewManifest {
  readonly digest: RegistryDigest;
  readonly tag?: string;
  readonly bytes: Buffer;
  readonly document: ManifestDocument;
}

function isCollectable(link: Link, index: RepositoryIndex, touchedBeforeMs: number): boolean {
  return link.touchedAtMs < touchedBeforeMs && !index.isPinned(link.digest);
}

const noTags: ReadonlyMap<string, RegistryDigest> = new Map();

/**
 * The registry's store: bytes in a content store, rows in a SQLite database of its own, everything that is asked for in
 * memory. Locks: one a repository for its manifests and tags, one a content from before its bytes come until a row names
 * it; a holder of the first may take the second, never the other way round. What is removed leaves the memory before its
 * row and comes back if the row does not go; what is added comes into memory after its row.
 */
export class DiskRegistryStore implements RegistryStore {
  readonly uploads: Uploads;
  readonly #database: Database;
  readonly #content: ContentStore;
  readonly #repositories: Map<string, RepositoryIndex>;
  readonly #usage: ContentUsage;
  readonly #cache = new ManifestCache(cachedManifestBytesMax);
  readonly #repositoryLocks = new KeyedLock();
  readonly #contentLocks = new KeyedLock();

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
      const { repositories, usage } = await loadRepositories(database, content, log);
      const store = new DiskRegistryStore({ database, content, uploads, repositories, usage });
      const swept = await store.sweepContent();
      if (swept.removed > 0) log.info("removed content that was never acknowledged", { ...swept });
      return store;
    } catch (error) {
      await database[Symbol.asyncDispose]();
      throw error;
    }
  }

  private constructor(parts: {
    database: Database;
    content: ContentStore;
    uploads: Uploads;
    repositories: Map<string, RepositoryIndex>;
    usage: ContentUsage;
  }) {
    this.#database = parts.database;
    this.#content = parts.content;
    this.uploads = parts.uploads;
    this.#repositories = parts.repositories;
    this.#usage = parts.usage;
  }

  index(repository: string): RepositoryIndex | undefined {
    const found = this.#repositories.get(repository);
    return found === undefined || found.isEmpty ? undefined : found;
  }

  #ensure(repository: string): RepositoryIndex {
    let found = this.#repositories.get(repository);
    if (found === undefined) {
      found = new RepositoryIndex();
      this.#repositories.set(repository, found);
    }
    return found;
  }

  /** The link of a blob, touched: whoever was told of it may name it for a while. */
  link(repository: string, digest: RegistryDigest): Link | undefined {
    const link = this.#repositories.get(repository)?.links.get(digest);
    if (link !== undefined) link.touchedAtMs = Date.now();
    return link;
  }

  pathOf(link: Link): string {
    return this.#content.pathOf(link.content);
  }

  /** Repositories that have a blob, at most so many. */
  holders(digest: RegistryDigest, most: number): string[] {
    const found: string[] = [];
    for (const [name, { links }] of this.#repositories) {
      if (links.has(digest) && found.push(name) === most) break;
    }
    return found;
  }

  /** Takes a finished upload into a repository; durable when it resolves. `also`: rows that go along. */
  async addBlob(repository: string, blob: NewBlob, also: readonly Statement[]): Promise<void> {
    using _ = await this.#contentLocks.acquire(blob.content);
    if (await this.#content.has(blob.content)) await unlink(blob.path);
    else await this.#content.adopt(blob.path, blob.content);
    await this.#orGiveBack(blob.content, async () => {
      await this.#content.sync();
      await this.#addLink(repository, blob, also);
    });
  }

  /** Under the content's lock. What no row names after a failure goes at once: a full disk is the likeliest reason. */
  async #orGiveBack(content: Digest, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!this.#usage.has(content)) await this.#content.remove(content);
      throw error;
    }
  }

  /** Makes a blob of one repository readable in another, without its bytes. False when it is not there. */
  async mount(from: string, to: string, digest: RegistryDigest): Promise<boolean> {
    const source = this.#repositories.get(from)?.links.get(digest);
    if (source === undefined) return false;
    using _ = await this.#contentLocks.acquire(source.content);
    if (this.#repositories.get(from)?.links.get(digest) === undefined) return false;
    await this.#addLink(to, source, []);
    return true;
  }

  /** Under the content's lock. */
  async #addLink(
    repository: string,
    blob: Pick<NewBlob, "digest" | "content" | "sizeBytes">,
    also: readonly Statement[],
  ): Promise<void> {
    const { digest, content, sizeBytes } = blob;
    if (this.link(repository, digest) !== undefined) {
      if (also.length > 0) await this.#database.commit(also, { durable: false });
      return;
    }
    const sql = "INSERT INTO link (repository, digest, content, size_bytes) VALUES (?, ?, ?, ?)";
    await this.#database.commit([{ sql, params: [repository, digest, content, sizeBytes] }, ...also]);
    this.#usage.add(content, sizeBytes);
    this.#ensure(repository).links.set(digest, { digest, content, sizeBytes, touchedAtMs: Date.now() });
  }

  /** False when the repository does not have it. The bytes stay until a sweep. */
  async deleteBlob(repository: string, digest: RegistryDigest): Promise<boolean> {
    return await this.#unlink(repository, digest, () => true);
  }

  async #unlink(
    repository: string,
    digest: RegistryDigest,
    may: (link: Link, index: RepositoryIndex) => boolean,
  ): Promise<boolean> {
    const index = this.#repositories.get(repository);
    const content = index?.links.get(digest)?.content;
    if (index === undefined || content === undefined) return false;
    using _ = await this.#contentLocks.acquire(content);
    const link = index.links.get(digest);
    if (link === undefined || !may(link, index)) return false;
    index.links.delete(digest);
    try {
      const sql = "DELETE FROM link WHERE repository = ? AND digest = ?";
      await this.#database.commit([{ sql, params: [repository, digest] }]);
    } catch (error) {
      index.links.set(digest, link);
      throw error;
    }
    this.#usage.remove(content);
    return true;
  }

  manifest(
    repository: string,
    reference: { digest: RegistryDigest } | { tag: string },
  ): Manifest | undefined {
    const index = this.#repositories.get(repository);
    if (index === undefined) return undefined;
    const digest = "digest" in reference ? reference.digest : index.tags.get(reference.tag);
    return digest === undefined ? undefined : index.manifests.get(digest);
  }

  /** A manifest's bytes if they are in memory: then nothing needs to be waited for. */
  cachedBytes(manifest: Manifest): Buffer | undefined {
    return this.#cache.get(manifest.content);
  }

  async bytesOf(manifest: Manifest): Promise<Buffer> {
    const bytes = await this.#content.read(manifest.content, limits.manifestBytesMax);
    this.#cache.set(manifest.content, bytes);
    return bytes;
  }

  /**
   * Takes a manifest in, under a tag where there is one; durable when it resolves. Throws `MANIFEST_BLOB_UNKNOWN` with
   * an entry for everything that it names and that the repository does not have.
   */
  async putManifest(repository: string, manifest: NewManifest): Promise<void> {
    const { digest, tag, bytes, document } = manifest;
    using _ = await this.#repositoryLocks.acquire(repository);
    const index = this.#ensure(repository);
    const { children, blobs } = resolveNamed(index, document);
    const named = [...children, ...blobs];
    // Pinned in the turn of the check: a collection that runs during the commit sees it.
    index.pin(named);
    let kept = false;
    try {
      const known = index.manifests.get(digest);
      if (known !== undefined && known.mediaType !== document.mediaType) {
        throw new RegistryFault(400, "MANIFEST_INVALID", {
          message: `the manifest is known as ${known.mediaType}`,
        });
      }
      const pushedAtMs = Date.now();
      if (known === undefined) {
        const { mediaType, subject, artifactType } = document;
        const record = {
          digest,
          mediaType,
          sizeBytes: bytes.length,
          children,
          blobs,
          pushedAtMs,
          ...(subject === undefined ? {} : { subject }),
          ...(artifactType === undefined ? {} : { artifactType }),
        };
        await this.#addManifest(repository, index, record, bytes, tag);
        kept = true;
      } else {
        known.pushedAtMs = pushedAtMs;
        await this.#refresh(repository, known, index.tags.get(tag ?? "") === digest ? undefined : tag);
      }
      if (tag !== undefined) index.setTag(tag, digest);
    } finally {
      if (!kept) index.unpin(named);
    }
  }

  async #addManifest(
    repository: string,
    index: RepositoryIndex,
    record: ManifestRecord,
    bytes: Buffer,
    tag: string | undefined,
  ): Promise<void> {
    const content = digestOf(bytes);
    using _ = await this.#contentLocks.acquire(content);
    await this.#orGiveBack(content, async () => {
      await this.#content.put(bytes);
      await this.#database.commit([
        insertManifest(repository, content, record),
        ...(tag === undefined ? [] : [insertTag(repository, tag, record.digest)]),
      ]);
    });
    this.#usage.add(content, bytes.length);
    this.#cache.set(content, bytes);
    index.addManifest({ ...record, content });
  }

  /** A manifest that is there was pushed again, under a new tag or not. */
  async #refresh(
    repository: string,
    { digest, pushedAtMs }: Manifest,
    tag: string | undefined,
  ): Promise<void> {
    const sql = "UPDATE manifest SET pushed_at_ms = ? WHERE repository = ? AND digest = ?";
    const statements = [{ sql, params: [pushedAtMs, repository, digest] }];
    if (tag === undefined) await this.#database.commit(statements, { durable: false });
    else await this.#database.commit([...statements, insertTag(repository, tag, digest)]);
  }

  /** Removes a tag alone. False when there is none. */
  async deleteTag(repository: string, tag: string): Promise<boolean> {
    using _ = await this.#repositoryLocks.acquire(repository);
    const index = this.#repositories.get(repository);
    const digest = index?.tags.get(tag);
    if (index === undefined || digest === undefined) return false;
    index.dropTag(tag);
    try {
      await this.#database.commit([
        { sql: "DELETE FROM tag WHERE repository = ? AND name = ?", params: [repository, tag] },
      ]);
    } catch (error) {
      index.setTag(tag, digest);
      throw error;
    }
    return true;
  }

  /** Removes a manifest and every tag of it. False when it is not there. */
  async deleteManifest(repository: string, digest: RegistryDigest): Promise<boolean> {
    return await this.#dropManifest(repository, digest, () => true);
  }

  async #dropManifest(
    repository: string,
    digest: RegistryDigest,
    may: (manifest: Manifest, index: RepositoryIndex) => boolean,
  ): Promise<boolean> {
    using _ = await this.#repositoryLocks.acquire(repository);
    const index = this.#repositories.get(repository);
    const manifest = index?.manifests.get(digest);
    if (index === undefined || manifest === undefined || !may(manifest, index)) return false;
    const tags = index.dropManifest(manifest);
    try {
      await this.#database.commit([
        { sql: "DELETE FROM tag WHERE repository = ? AND digest = ?", params: [repository, digest] },
        { sql: "DELETE FROM manifest WHERE repository = ? AND digest = ?", params: [repository, digest] },
      ]);
    } catch (error) {
      index.addManifest(manifest);
      for (const tag of tags) index.setTag(tag, digest);
      throw error;
    }
    index.unpin(manifest.blobs);
    index.unpin(manifest.children);
    this.#usage.remove(manifest.content);
    return true;
  }

  repositories(): readonly string[] {
    const names: string[] = [];
    for (const [name, index] of this.#repositories) if (!index.isEmpty) names.push(name);
    return names.sort();
  }

  manifests(repository: string): readonly ManifestRecord[] {
    return [...(this.#repositories.get(repository)?.manifests.values() ?? [])];
  }

  tags(repository: string): ReadonlyMap<string, RegistryDigest> {
    return this.#repositories.get(repository)?.tags ?? noTags;
  }

  links(repository: string): readonly BlobLink[] {
    return [...(this.#repositories.get(repository)?.links.values() ?? [])];
  }

  totals(): ReturnType<RegistryStore["totals"]> {
    let repositories = 0;
    let manifests = 0;
    let tags = 0;
    for (const index of this.#repositories.values()) {
      if (!index.isEmpty) repositories += 1;
      manifests += index.manifests.size;
      tags += index.tags.size;
    }
    const { size: contents, bytes: contentBytes } = this.#usage;
    return { repositories, manifests, tags, uploads: this.uploads.size, contents, contentBytes };
  }

  untaggedManifests(repository: string): readonly ManifestRecord[] {
    const index = this.#repositories.get(repository);
    return index === undefined ? [] : index.unreachable();
  }

  async collectManifest(
    repository: string,
    digest: RegistryDigest,
    { pushedBeforeMs }: { pushedBeforeMs: number },
  ): Promise<boolean> {
    return await this.#dropManifest(
      repository,
      digest,
      (manifest, index) =>
        manifest.pushedAtMs < pushedBeforeMs && !index.isPinned(digest) && !index.reachable().has(digest),
    );
  }

  collectableLinks(
    repository: string,
    { touchedBeforeMs }: { touchedBeforeMs: number },
  ): readonly BlobLink[] {
    const index = this.#repositories.get(repository);
    if (index === undefined) return [];
    return [...index.links.values()].filter((link) => isCollectable(link, index, touchedBeforeMs));
  }

  async collectLinks(
    repository: string,
    condition: { touchedBeforeMs: number },
  ): Promise<readonly BlobLink[]> {
    const unlinked: BlobLink[] = [];
    for (const link of this.collectableLinks(repository, condition)) {
      const gone = await this.#unlink(repository, link.digest, (now, index) =>
        isCollectable(now, index, condition.touchedBeforeMs),
      );
      if (gone) unlinked.push(link);
    }
    return unlinked;
  }

  async sweepContent(options: { signal?: AbortSignal } = {}): Promise<SweepResult> {
    let removed = 0;
    let bytes = 0;
    for (const content of await this.#content.list()) {
      options.signal?.throwIfAborted();
      if (this.#usage.has(content)) continue;
      using _ = await this.#contentLocks.acquire(content);
      // Between the look and the lock a push may have named it.
      if (this.#usage.has(content)) continue;
      const size = await this.#content.size(content);
      if (size === undefined) continue;
      await this.#content.remove(content);
      this.#cache.drop(content);
      removed += 1;
      bytes += size;
    }
    return { removed, bytes };
  }

  async sweepable(): Promise<SweepResult> {
    let removed = 0;
    let bytes = 0;
    for (const content of await this.#content.list()) {
      if (this.#usage.has(content)) continue;
      removed += 1;
      bytes += (await this.#content.size(content)) ?? 0;
    }
    return { removed, bytes };
  }

  async expireUploads({ idleSinceMs }: { idleSinceMs: number }): Promise<number> {
    return await this.uploads.expire(idleSinceMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#database[Symbol.asyncDispose]();
  }
}
