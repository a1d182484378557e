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
    // The string that is there already, not the document's: there are very many of them.
    (found.isManifest ? children : blobs).add(found.digest);
  }
  if (missing.size > 0) throw new RegistryFault(404, [...missing.values()].slice(0, 100));
  return { children: [...children], blobs: [...blobs] };
}

function sizeOf(
  index: RepositoryIndex,
  { digest, as }: NamedContent,
): { digest: RegistryDigest; sizeBytes: number; isManifest: boolean } | undefined {
  const manifest = as === "blob" ? undefined : index.manifests.get(digest);
  if (manifest !== undefined) {
    return { digest: manifest.digest, sizeBytes: manifest.sizeBytes, isManifest: true };
  }
  const link = as === "manifest" ? undefined : index.links.get(digest);
  if (link === undefined) return undefined;
  return { digest: link.digest, sizeBytes: link.sizeBytes, isManifest: false };
}
