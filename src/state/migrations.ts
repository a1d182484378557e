/** The schema, one step a version; a step is never changed once released. */
export const migrations: readonly string[] = [
  `
  CREATE TABLE container (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    image_id TEXT NOT NULL,
    document TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE image (
    id TEXT PRIMARY KEY,
    parent TEXT,
    manifest_digest TEXT,
    document TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE reference (
    name TEXT PRIMARY KEY,
    image_id TEXT NOT NULL,
    digest TEXT
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE layer (
    key TEXT PRIMARY KEY,
    diff_id TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    blob_digest TEXT,
    blob_size_bytes INTEGER,
    media_type TEXT
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE volume (
    name TEXT PRIMARY KEY,
    document TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE network (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    document TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  `,
  `
  CREATE TABLE build_cache (
    key TEXT PRIMARY KEY,
    document TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  `,
];
