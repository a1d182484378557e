import { createHash, type Hash } from "node:crypto";
import type { Digest } from "#base/digest.ts";
import type { RegistryDigest } from "./registry-store.ts";

/** The algorithms that the OCI image spec registers and that every Node has. */
export type DigestAlgorithm = "sha256" | "sha512";

const pattern = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;

/** A digest that came from outside, or undefined where it is none that we can verify. */
export function registryDigest(text: unknown): RegistryDigest | undefined {
  return typeof text === "string" && pattern.test(text) ? (text as RegistryDigest) : undefined;
}

export function algorithmOf(digest: RegistryDigest): DigestAlgorithm {
  return digest.startsWith("sha512:") ? "sha512" : "sha256";
}

export function digestFrom(algorithm: DigestAlgorithm, hash: Hash): RegistryDigest {
  return `${algorithm}:${hash.digest("hex")}` as RegistryDigest;
}

export function digestBytes(algorithm: DigestAlgorithm, bytes: Uint8Array): RegistryDigest {
  return digestFrom(algorithm, createHash(algorithm).update(bytes));
}

/** A sha256 digest names its own content. */
export function asContent(digest: RegistryDigest): Digest {
  return digest as string as Digest;
}
