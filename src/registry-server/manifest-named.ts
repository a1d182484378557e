import type { ManifestDocument, NamedContent } from "./manifest-document.ts";
import { type FaultItem, RegistryFault } from "./registry-fault.ts";
import type { RegistryDigest } from "./registry-store.ts";
import type { RepositoryIndex } from "./repository-index.ts";

/**
 * What a manifest names, as the repository has it. Throws `MANIFEST_BLOB_UNKNOWN` with an entry for each that is missing
 * (OCI distribution spec, "Push"), `SIZE_INVALID` for one of another length than the manifest says.
 */
export function resolveNamed(
  index: RepositoryIndex,
  document: ManifestDocument,
): { children: RegistryDigest[]; blobs: RegistryDigest[] } {
  const children = new Set<RegistryDigest>();
  const blobs = new Set<RegistryDigest>();
  const missing = new Map<RegistryDigest, FaultItem>();
  for (const named of document.named) {
    const { digest } = named;
    const found = sizeOf(index, named);
    if (found === undefined) {
      if (!named.optional) missing.set(digest, { code: "MANIFEST_BLOB_UNKNOWN", detail: { digest } });
      continue;
    }
    if (found.sizeBytes !== named.sizeBytes) {
      const message = `${digest} has ${found.sizeBytes} bytes, not ${named.sizeBytes}`;
      throw new RegistryFault(400, "SIZE_INVALID", { message, detail: { digest } });
    }
    (found.isManifest ? children : blobs).add(digest);
  }
  if (missing.size > 0) throw new RegistryFault(404, [...missing.values()].slice(0, 100));
  return { children: [...children], blobs: [...blobs] };
}

function sizeOf(
  index: RepositoryIndex,
  { digest, as }: NamedContent,
): { sizeBytes: number; isManifest: boolean } | undefined {
  const manifest = as === "blob" ? undefined : index.manifests.get(digest);
  if (manifest !== undefined) return { sizeBytes: manifest.sizeBytes, isManifest: true };
  const link = as === "manifest" ? undefined : index.links.get(digest);
  return link === undefined ? undefined : { sizeBytes: link.sizeBytes, isManifest: false };
}
