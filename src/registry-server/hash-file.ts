import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { type DigestAlgorithm, digestFrom } from "./registry-digest.ts";
import type { RegistryDigest } from "./registry-store.ts";

const chunkBytes = 1024 * 1024;

/** Digests of a file by several algorithms, read once; none asked for, nothing read. */
export async function hashFile(
  path: string,
  algorithms: readonly DigestAlgorithm[],
): Promise<Map<DigestAlgorithm, RegistryDigest>> {
  const hashes = algorithms.map((algorithm) => ({ algorithm, hash: createHash(algorithm) }));
  if (hashes.length > 0) {
    await using file = await open(path, "r");
    const buffer = Buffer.allocUnsafe(chunkBytes);
    for (let position = 0; ; ) {
      const { bytesRead } = await file.read(buffer, 0, chunkBytes, position);
      if (bytesRead === 0) break;
      for (const { hash } of hashes) hash.update(buffer.subarray(0, bytesRead));
      position += bytesRead;
    }
  }
  return new Map(hashes.map(({ algorithm, hash }) => [algorithm, digestFrom(algorithm, hash)]));
}
