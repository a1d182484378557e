import type { IncomingHttpHeaders } from "node:http";
import type { Digest } from "#base/digest.ts";

/**
 * `Docker-Content-Digest` where it contradicts the bytes: another sha256, or what is no digest at all. One of another
 * algorithm says nothing of ours.
 */
export function contradiction(headers: IncomingHttpHeaders, digest: Digest): string | undefined {
  const claimed = headers["docker-content-digest"];
  if (claimed === undefined || claimed === digest) return undefined;
  const text = String(claimed);
  return /^sha512:[0-9a-f]{128}$/.test(text) ? undefined : text;
}
