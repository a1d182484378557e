import type { Digest } from "#base/digest.ts";
import type { ManifestRecord, RegistryDigest } from "./registry-store.ts";

export interface Link {
  readonly digest: RegistryDigest;
  readonly content: Digest;
  readonly sizeBytes: number;
  touchedAtMs: number;
}

export interface Manifest extends ManifestRecord {
  readonly content: Digest;
  pushedAtMs: number;
  /** Grows when a layer that could be missing (it may come from elsewhere) was pushed later. */
  blobs: readonly RegistryDigest[];
}

/** One repository in memory. No method waits: what belongs together happens in one turn of the event loop. */
export class RepositoryIndex {
  readonly links = new Map<RegistryDigest, Link>();
  readonly manifests = new Map<RegistryDigest, Manifest>();
  readonly tags = new Map<string, RegistryDigest>();
  /** Subject → manifests about it. */
  readonly #referrers = new Map<RegistryDigest, Set<RegistryDigest>>();
  /** How many manifests name a blob or manifest, those whose commit is under way included. */
  readonly #pins = new Map<RegistryDigest, number>();
  #sortedTags: readonly string[] | undefined;
  #reachable: ReadonlySet<RegistryDigest> | undefined;

  get isEmpty(): boolean {
    return this.links.size === 0 && this.manifests.size === 0 && this.#pins.size === 0;
  }

  pin(digests: Iterable<RegistryDigest>): void {
    for (const digest of digests) this.#pins.set(digest, (this.#pins.get(digest) ?? 0) + 1);
  }

  unpin(digests: Iterable<RegistryDigest>): void {
    for (const digest of digests) {
      const left = (this.#pins.get(digest) ?? 0) - 1;
      if (left > 0) this.#pins.set(digest, left);
      else this.#pins.delete(digest);
    }
  }

  isPinned(digest: RegistryDigest): boolean {
    return this.#pins.has(digest);
  }

  /** Takes a manifest in whose names are pinned already. */
  addManifest(manifest: Manifest): void {
    this.manifests.set(manifest.digest, manifest);
    this.#reachable = undefined;
    if (manifest.subject === undefined) return;
    const about = this.#referrers.get(manifest.subject) ?? new Set();
    about.add(manifest.digest);
    this.#referrers.set(manifest.subject, about);
  }

  /** Takes a manifest out, and its tags with it. What it named stays pinned until the caller has made that durable. */
  dropManifest(manifest: Manifest): string[] {
    this.manifests.delete(manifest.digest);
    if (manifest.subject !== undefined) {
      const about = this.#referrers.get(manifest.subject);
      about?.delete(manifest.digest);
      if (about?.size === 0) this.#referrers.delete(manifest.subject);
    }
    // What no tag reached changes nothing for the others.
    if (this.#reachable?.has(manifest.digest) === true) this.#reachable = undefined;
    const dropped: string[] = [];
    for (const [tag, digest] of this.tags) if (digest === manifest.digest) dropped.push(tag);
    for (const tag of dropped) this.dropTag(tag);
    return dropped;
  }

  setTag(tag: string, digest: RegistryDigest): void {
    if (!this.tags.has(tag)) this.#sortedTags = undefined;
    this.tags.set(tag, digest);
    this.#reachable = undefined;
  }

  dropTag(tag: string): void {
    if (!this.tags.delete(tag)) return;
    this.#sortedTags = undefined;
    this.#reachable = undefined;
  }

  /** In the order of their bytes (OCI distribution spec, "Listing Tags": as Go's sort.Strings). */
  sortedTags(): readonly string[] {
    this.#sortedTags ??= [...this.tags.keys()].sort();
    return this.#sortedTags;
  }

  referrersOf(subject: RegistryDigest): Manifest[] {
    const found = [...(this.#referrers.get(subject) ?? [])].sort();
    return found.map((digest) => this.manifests.get(digest)).filter((manifest) => manifest !== undefined);
  }

  /** Manifests that a tag reaches: tagged, named by a reachable index, or about a reachable subject. */
  reachable(): ReadonlySet<RegistryDigest> {
    if (this.#reachable !== undefined) return this.#reachable;
    const found = new Set<RegistryDigest>(this.tags.values());
    // A set gives what is added while it is walked.
    for (const digest of found) {
      for (const child of this.manifests.get(digest)?.children ?? []) found.add(child);
      for (const about of this.#referrers.get(digest) ?? []) found.add(about);
    }
    this.#reachable = found;
    return found;
  }

  /** What no tag reaches, an index before what it names. No recursion: a hostile index nests as deep as it likes. */
  unreachable(): Manifest[] {
    const reachable = this.reachable();
    const seen = new Set<RegistryDigest>();
    const found: Manifest[] = [];
    const stack: { manifest: Manifest; isDone: boolean }[] = [];
    const visit = (manifest: Manifest | undefined): void => {
      if (manifest === undefined || reachable.has(manifest.digest) || seen.has(manifest.digest)) return;
      seen.add(manifest.digest);
      stack.push({ manifest, isDone: false });
    };
    for (const manifest of this.manifests.values()) {
      visit(manifest);
      for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
        if (top.isDone) found.push(stack.pop()!.manifest);
        else {
          top.isDone = true;
          for (const child of top.manifest.children) visit(this.manifests.get(child));
        }
      }
    }
    return found.reverse();
  }
}
