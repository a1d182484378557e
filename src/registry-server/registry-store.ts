/**
 * What a registry keeps: repositories, their blobs, manifests, tags and referrers, and uploads on their way.
 *
 * Vocabulary. A *digest* is what clients name bytes by (sha256 or sha512); the *content* of a digest is the sha256 under
 * which the content store keeps the bytes, the same for all repositories. A *link* says that a repository has a blob:
 * a blob can be read only where it was pushed or mounted to.
 *
 * 1. What is answered with 201 or 202 is durable: the bytes before the row, the row before the answer.
 * 2. A manifest's row is written only while the links and manifests that it names are there.
 * 3. Bytes go after the last row that names them (`sweepContent`), never before; a crash leaves bytes without a row, and
 *    the next start removes them.
 * 4. A link that was pushed, mounted or merely asked for within the grace period is not collected: a client that was
 *    told of a blob may name it in its next manifest.
 */

/** `sha256:<64 hex>` or `sha512:<128 hex>`. */
export type RegistryDigest = string & { readonly __brand: "RegistryDigest" };

export interface ManifestRecord {
  readonly digest: RegistryDigest;
  readonly mediaType: string;
  readonly sizeBytes: number;
  /** Manifests (of an index) that it names and that must stay as long as it does. */
  readonly children: readonly RegistryDigest[];
  /** Blobs that it names: config and layers. */
  readonly blobs: readonly RegistryDigest[];
  /** The manifest that this one is about (OCI image spec, `subject`): this one is among its referrers. */
  readonly subject?: RegistryDigest;
  readonly artifactType?: string;
  readonly pushedAtMs: number;
}

export interface BlobLink {
  readonly digest: RegistryDigest;
  readonly sizeBytes: number;
  /** When it was last pushed, mounted or asked for; after a restart, the time of the start. */
  readonly touchedAtMs: number;
}

export interface SweepResult {
  /** Blobs of the content store whose bytes were given back. */
  readonly removed: number;
  readonly bytes: number;
}

/** Everything that an operator, an online garbage collection or metrics may ask. Reads are answered from memory. */
export interface RegistryStore {
  /** Names of the repositories that have a blob or a manifest, sorted. */
  repositories(): readonly string[];
  manifests(repository: string): readonly ManifestRecord[];
  /** Tag → digest. */
  tags(repository: string): ReadonlyMap<string, RegistryDigest>;
  links(repository: string): readonly BlobLink[];
  totals(): {
    readonly repositories: number;
    readonly manifests: number;
    readonly tags: number;
    readonly uploads: number;
    /** Distinct contents, and their bytes on the disk. */
    readonly contents: number;
    readonly contentBytes: number;
  };
  /**
   * Manifests that no tag reaches: neither tagged themselves, nor named by a reachable index, nor about a reachable
   * subject.
   */
  untaggedManifests(repository: string): readonly ManifestRecord[];
  /**
   * Removes a manifest if it is still untagged (as above) and was pushed before `pushedBeforeMs`; checked and taken out
   * in one step, so that a push in between keeps it. False when it stays.
   */
  collectManifest(
    repository: string,
    digest: RegistryDigest,
    condition: { pushedBeforeMs: number },
  ): Promise<boolean>;
  /**
   * Unlinks a repository's blobs that none of its manifests names and that nobody was told of since `touchedBeforeMs`.
   * Safe while pushes go on. Returns what was unlinked.
   */
  collectLinks(repository: string, condition: { touchedBeforeMs: number }): Promise<readonly BlobLink[]>;
  /** What `collectLinks` would unlink now. */
  collectableLinks(repository: string, condition: { touchedBeforeMs: number }): readonly BlobLink[];
  /** Gives back the bytes of contents that no repository names any more. Safe while pushes and pulls go on. */
  sweepContent(options?: { signal?: AbortSignal }): Promise<SweepResult>;
  /** What `sweepContent` would give back now. */
  sweepable(): Promise<SweepResult>;
  /** Drops uploads that nobody has written to since then. Returns how many. Also done by the registry itself, hourly. */
  expireUploads(condition: { idleSinceMs: number }): Promise<number>;
}
