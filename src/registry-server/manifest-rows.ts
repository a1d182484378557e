import { digestOf } from "#base/digest.ts";
import { limits } from "#base/limits.ts";
import type { ManifestDocument } from "./manifest-document.ts";
import { resolveNamed } from "./manifest-named.ts";
import { RegistryFault } from "./registry-fault.ts";
import type { ManifestRecord, RegistryDigest } from "./registry-store.ts";
import { type Manifest, RepositoryIndex } from "./repository-index.ts";
import { ensureRepository, orGiveBack, type StoreParts } from "./store-parts.ts";
import { insertManifest, insertTag } from "./store-schema.ts";

export interface NewManifest {
  readonly digest: RegistryDigest;
  readonly tag?: string;
  readonly bytes: Buffer;
  readonly document: ManifestDocument;
}

/** Which repository has which manifests and tags. */
export class ManifestRows {
  readonly #parts: StoreParts;

  constructor(parts: StoreParts) {
    this.#parts = parts;
  }

  find(repository: string, reference: { digest: RegistryDigest } | { tag: string }): Manifest | undefined {
    const index = this.#parts.repositories.get(repository);
    if (index === undefined) return undefined;
    const digest = "digest" in reference ? reference.digest : index.tags.get(reference.tag);
    return digest === undefined ? undefined : index.manifests.get(digest);
  }

  /** A manifest's bytes if they are in memory: then nothing needs to be waited for. */
  cached(manifest: Manifest): Buffer | undefined {
    return this.#parts.cache.get(manifest.content);
  }

  async read(manifest: Manifest): Promise<Buffer> {
    const bytes = await this.#parts.content.read(manifest.content, limits.manifestBytesMax);
    this.#parts.cache.set(manifest.content, bytes);
    return bytes;
  }

  /**
   * Takes a manifest in, under a tag where there is one; durable when it resolves. Throws `MANIFEST_BLOB_UNKNOWN` with
   * an entry for everything that it names and that the repository does not have.
   */
  async put(repository: string, manifest: NewManifest): Promise<void> {
    const { digest, tag, document } = manifest;
    using _ = await this.#parts.repositoryLocks.acquire(repository);
    // A repository is there with its first manifest that holds, not with every name that is tried.
    const { children, blobs } = resolveNamed(
      this.#parts.repositories.get(repository) ?? new RepositoryIndex(),
      document,
    );
    const index = ensureRepository(this.#parts, repository);
    const named = [...children, ...blobs];
    // Pinned in the turn of the check: a collection that runs during the commit sees it.
    index.pin(named);
    let kept = false;
    try {
      const known = index.manifests.get(digest);
      if (known === undefined) {
        await this.#add(repository, index, manifest, { children, blobs });
        kept = true;
      } else {
        const newTag = index.tags.get(tag ?? "") === digest ? undefined : tag;
        const more = blobs.filter((blob) => !known.blobs.includes(blob));
        const all = [...known.blobs, ...more];
        await this.#refresh(repository, known, document, newTag, all);
        known.blobs = all;
        index.pin(more);
      }
      if (tag !== undefined) index.setTag(tag, digest);
    } finally {
      if (!kept) index.unpin(named);
    }
  }

  async #add(
    repository: string,
    index: RepositoryIndex,
    { digest, tag, bytes, document }: NewManifest,
    named: Pick<ManifestRecord, "children" | "blobs">,
  ): Promise<void> {
    const { mediaType, subject, artifactType } = document;
    const record: ManifestRecord = {
      digest,
      mediaType,
      sizeBytes: bytes.length,
      ...named,
      pushedAtMs: Date.now(),
      ...(subject === undefined ? {} : { subject }),
      ...(artifactType === undefined ? {} : { artifactType }),
    };
    const content = digestOf(bytes);
    using _ = await this.#parts.contentLocks.acquire(content);
    await orGiveBack(this.#parts, content, async () => {
      await this.#parts.content.put(bytes);
      await this.#parts.database.commit([
        insertManifest(repository, content, record),
        ...(tag === undefined ? [] : [insertTag(repository, tag, digest)]),
      ]);
    });
    this.#parts.usage.add(content, bytes.length);
    this.#parts.cache.set(content, bytes);
    index.addManifest({ ...record, content });
  }

  /** A manifest that is there was pushed again, under a new tag or not. */
  async #refresh(
    repository: string,
    known: Manifest,
    document: ManifestDocument,
    tag: string | undefined,
    blobs: readonly RegistryDigest[],
  ): Promise<void> {
    if (known.mediaType !== document.mediaType) {
      throw new RegistryFault(400, "MANIFEST_INVALID", {
        message: `the manifest is known as ${known.mediaType}`,
      });
    }
    known.pushedAtMs = Date.now();
    const sql = "UPDATE manifest SET pushed_at_ms = ?, named = ? WHERE repository = ? AND digest = ?";
    const named = JSON.stringify({ children: known.children, blobs });
    const statements = [{ sql, params: [known.pushedAtMs, named, repository, known.digest] }];
    if (tag === undefined && blobs.length === known.blobs.length)
      await this.#parts.database.commit(statements, { durable: false });
    else {
      const tags = tag === undefined ? [] : [insertTag(repository, tag, known.digest)];
      await this.#parts.database.commit([...statements, ...tags]);
    }
  }

  /** Removes a tag alone. False when there is none. */
  async removeTag(repository: string, tag: string): Promise<boolean> {
    const { database, repositories, repositoryLocks } = this.#parts;
    using _ = await repositoryLocks.acquire(repository);
    const index = repositories.get(repository);
    const digest = index?.tags.get(tag);
    if (index === undefined || digest === undefined) return false;
    index.dropTag(tag);
    try {
      const sql = "DELETE FROM tag WHERE repository = ? AND name = ?";
      await database.commit([{ sql, params: [repository, tag] }]);
    } catch (error) {
      index.setTag(tag, digest);
      throw error;
    }
    return true;
  }

  /** Removes a manifest and every tag of it. False when it is not there. */
  async remove(repository: string, digest: RegistryDigest): Promise<boolean> {
    return await this.#drop(repository, digest, () => true);
  }

  /** Removes a manifest that no tag reaches and that nobody has pushed lately. */
  async collect(repository: string, digest: RegistryDigest, pushedBeforeMs: number): Promise<boolean> {
    return await this.#drop(
      repository,
      digest,
      (manifest, index) =>
        manifest.pushedAtMs < pushedBeforeMs && !index.isPinned(digest) && !index.reachable().has(digest),
    );
  }

  async #drop(
    repository: string,
    digest: RegistryDigest,
    may: (manifest: Manifest, index: RepositoryIndex) => boolean,
  ): Promise<boolean> {
    const { database, repositories, usage, repositoryLocks } = this.#parts;
    using _ = await repositoryLocks.acquire(repository);
    const index = repositories.get(repository);
    const manifest = index?.manifests.get(digest);
    if (index === undefined || manifest === undefined || !may(manifest, index)) return false;
    const tags = index.dropManifest(manifest);
    try {
      await database.commit([
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
    usage.remove(manifest.content);
    return true;
  }
}
