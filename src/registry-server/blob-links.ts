import { unlink } from "node:fs/promises";
import type { Digest } from "#base/digest.ts";
import type { Statement } from "#state/database.ts";
import { asContent } from "./registry-digest.ts";
import type { BlobLink, RegistryDigest } from "./registry-store.ts";
import type { Link, RepositoryIndex } from "./repository-index.ts";
import { ensureRepository, orGiveBack, type StoreParts } from "./store-parts.ts";

export interface NewBlob {
  readonly digest: RegistryDigest;
  readonly content: Digest;
  readonly sizeBytes: number;
  /** Whole, verified and flushed; taken over, or removed where the content is there already. */
  readonly path: string;
}

/** Which repository has which blob. */
export class BlobLinks {
  readonly #parts: StoreParts;

  constructor(parts: StoreParts) {
    this.#parts = parts;
  }

  /** The link of a blob, touched: whoever was told of it may name it for a while. */
  find(repository: string, digest: RegistryDigest): Link | undefined {
    const link = this.#parts.repositories.get(repository)?.links.get(digest);
    if (link !== undefined) link.touchedAtMs = Date.now();
    return link;
  }

  pathOf(link: Link): string {
    return this.#parts.content.pathOf(link.content);
  }

  /** Repositories that have a blob, at most so many. */
  holders(digest: RegistryDigest, most: number): string[] {
    const found: string[] = [];
    for (const [name, { links }] of this.#parts.repositories) {
      if (links.has(digest) && found.push(name) === most) break;
    }
    return found;
  }

  /** Takes a finished upload into a repository; durable when it resolves. `also`: rows that go along. */
  async add(repository: string, blob: NewBlob, also: readonly Statement[]): Promise<void> {
    const { content, contentLocks } = this.#parts;
    using _ = await contentLocks.acquire(blob.content);
    if (await content.has(blob.content)) await unlink(blob.path);
    else await content.adopt(blob.path, blob.content);
    await orGiveBack(this.#parts, blob.content, async () => {
      await content.sync();
      await this.#link(repository, blob, also);
    });
  }

  /** Makes a blob of one repository readable in another, without its bytes. False when it is not there. */
  async mount(from: string, to: string, digest: RegistryDigest): Promise<boolean> {
    const { repositories, contentLocks } = this.#parts;
    const source = repositories.get(from)?.links.get(digest);
    if (source === undefined) return false;
    using _ = await contentLocks.acquire(source.content);
    if (repositories.get(from)?.links.get(digest) === undefined) return false;
    await this.#link(to, source, []);
    return true;
  }

  /** Under the content's lock. */
  async #link(
    repository: string,
    { digest, content, sizeBytes }: Pick<NewBlob, "digest" | "content" | "sizeBytes">,
    also: readonly Statement[],
  ): Promise<void> {
    const { database, usage } = this.#parts;
    if (this.find(repository, digest) !== undefined) {
      if (also.length > 0) await database.commit(also, { durable: false });
      return;
    }
    const sql = "INSERT INTO link (repository, digest, content, size_bytes) VALUES (?, ?, ?, ?)";
    await database.commit([{ sql, params: [repository, digest, content, sizeBytes] }, ...also]);
    usage.add(content, sizeBytes);
    // One string where both are the same: there are very many of them.
    const same = (content as string) === digest ? asContent(digest) : content;
    const link = { digest, content: same, sizeBytes, touchedAtMs: Date.now() };
    ensureRepository(this.#parts, repository).links.set(digest, link);
  }

  /** False when the repository does not have it. The bytes stay until a sweep. */
  async remove(repository: string, digest: RegistryDigest): Promise<boolean> {
    return await this.#unlink(repository, digest, () => true);
  }

  async #unlink(
    repository: string,
    digest: RegistryDigest,
    may: (link: Link, index: RepositoryIndex) => boolean,
  ): Promise<boolean> {
    const { database, repositories, usage, contentLocks } = this.#parts;
    const index = repositories.get(repository);
    const content = index?.links.get(digest)?.content;
    if (index === undefined || content === undefined) return false;
    using _ = await contentLocks.acquire(content);
    const link = index.links.get(digest);
    if (link === undefined || !may(link, index)) return false;
    index.links.delete(digest);
    try {
      const sql = "DELETE FROM link WHERE repository = ? AND digest = ?";
      await database.commit([{ sql, params: [repository, digest] }]);
    } catch (error) {
      index.links.set(digest, link);
      throw error;
    }
    usage.remove(content);
    return true;
  }

  collectable(repository: string, touchedBeforeMs: number): BlobLink[] {
    const index = this.#parts.repositories.get(repository);
    if (index === undefined) return [];
    return [...index.links.values()].filter((link) => isCollectable(link, index, touchedBeforeMs));
  }

  async collect(repository: string, touchedBeforeMs: number): Promise<BlobLink[]> {
    const unlinked: BlobLink[] = [];
    for (const link of this.collectable(repository, touchedBeforeMs)) {
      const gone = await this.#unlink(repository, link.digest, (now, index) =>
        isCollectable(now, index, touchedBeforeMs),
      );
      if (gone) unlinked.push(link);
    }
    return unlinked;
  }
}

function isCollectable(link: Link, index: RepositoryIndex, touchedBeforeMs: number): boolean {
  return link.touchedAtMs < touchedBeforeMs && !index.isPinned(link.digest);
}
