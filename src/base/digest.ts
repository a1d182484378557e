import { createHash, type Hash } from "node:crypto";
import { EngineError } from "./errors.ts";

/** `sha256:<64 hex>`: of bytes as they are stored or sent (a blob, a manifest, a config). */
export type Digest = string & { readonly __brand: "Digest" };
/** Digest of a layer's uncompressed tar. Never interchangeable with the digest of the compressed blob. */
export type DiffId = string & { readonly __brand: "DiffId" };
/** Digest over a stack of diffIDs (OCI image spec, "Layer ChainID"). */
export type ChainId = string & { readonly __brand: "ChainId" };
/** Digest of an image's config: Docker's image id. */
export type ImageId = string & { readonly __brand: "ImageId" };

const digestPattern = /^sha256:[0-9a-f]{64}$/;

export function isDigest(text: string): boolean {
  return digestPattern.test(text);
}

/** Checks the spelling of a digest that came from outside. Only sha256 in lower-case hex is accepted. */
export function parseDigest(text: unknown): Digest {
  if (typeof text !== "string" || !digestPattern.test(text)) {
    throw new EngineError(
      "invalid",
      `invalid checksum digest format: ${JSON.stringify(text)?.slice(0, 120)}`,
      {
        code: "bad-digest",
      },
    );
  }
  return text as Digest;
}

export function digestOf(bytes: string | Uint8Array): Digest {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}` as Digest;
}

export function digestOfHash(hash: Hash): Digest {
  return `sha256:${hash.digest("hex")}` as Digest;
}

/** The 64 hex digits, for file names. */
export function hexOf(digest: Digest | DiffId | ChainId | ImageId): string {
  return digest.slice("sha256:".length);
}

/** ChainID of every prefix of a layer stack, bottom first (OCI image spec, config.md "Layer ChainID"). */
export function chainIds(diffIds: readonly DiffId[]): ChainId[] {
  const chain: ChainId[] = [];
  for (const diffId of diffIds) {
    const parent = chain.at(-1);
    chain.push((parent === undefined ? diffId : digestOf(`${parent} ${diffId}`)) as string as ChainId);
  }
  return chain;
}
