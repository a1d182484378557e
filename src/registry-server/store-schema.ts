import type { Digest } from "#base/digest.ts";
import type { Statement } from "#state/database.ts";
import type { ManifestRecord, RegistryDigest } from "./registry-store.ts";

/** The schema of a registry's own database, one step a version; a step is never changed once released. */
export const registryMigrations: readonly string[] = [
  `
  CREATE TABLE link (
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    content TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE manifest (
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    content TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    named TEXT NOT NULL,
    subject TEXT,
    artifact_type TEXT,
    pushed_at_ms INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE tag (
    repository TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (repository, name)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE upload (
    id TEXT PRIMARY KEY,
    repository TEXT NOT NULL,
    begun_at_ms INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  `,
];

export function insertManifest(repository: string, content: Digest, record: ManifestRecord): Statement {
  const { digest, sizeBytes, mediaType, children, blobs, subject, artifactType, pushedAtMs } = record;
  const named = JSON.stringify({ children, blobs });
  return {
    sql: `INSERT INTO manifest
      (repository, digest, content, size_bytes, media_type, named, subject, artifact_type, pushed_at_ms)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    params: [
      repository,
      digest,
      content,
      sizeBytes,
      mediaType,
      named,
      subject ?? null,
      artifactType ?? null,
      pushedAtMs,
    ],
  };
}

export function insertTag(repository: string, tag: string, digest: RegistryDigest): Statement {
  return {
    sql: "INSERT OR REPLACE INTO tag (repository, name, digest) VALUES (?, ?, ?)",
    params: [repository, tag, digest],
  };
}
