/** Use cases: login, and questions to registries that need no image here. */
import type { Digest } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { parseImageConfig, parseManifest } from "#image/validate.ts";
import type { Credentials } from "#registry/credentials.ts";
import { RegistryError } from "#registry/registry-error.ts";
import type { SearchResult } from "#registry/search.ts";
import { type Filters, invalidFilter, parseFilters } from "#wire/filters.ts";
import type { Platform } from "#wire/oci-image.ts";
import { defaultDomain, parseReference, withDefaultTag } from "#wire/reference.ts";
import type { ImageContext } from "./image-context.ts";

export interface LoginRequest {
  readonly username: string;
  readonly password: string;
  readonly identityToken: string;
  /** A host, or the URL that Docker Hub is known by. */
  readonly serverAddress: string;
}

/** Tries a user's credentials. Returns a token to be kept instead of the password, "" when there is none. */
export async function loginToRegistry(
  ctx: ImageContext,
  request: LoginRequest,
  signal: AbortSignal,
): Promise<string> {
  const { username, password, identityToken, serverAddress } = request;
  const credentials: Credentials = { username, password, identityToken, registryToken: "", serverAddress };
  const { identityToken: kept } = await ctx.registry.login(domainOf(serverAddress), credentials, signal);
  return kept;
}

function domainOf(serverAddress: string): string {
  const host = serverAddress.replace(/^https?:\/\//, "").split("/")[0]!;
  if (host === "" || host === "index.docker.io" || host === "registry-1.docker.io") return defaultDomain;
  if (!/^[A-Za-z0-9.[\]:_-]+$/.test(host)) {
    throw new EngineError("invalid", `invalid registry address ${JSON.stringify(host)}`, {
      code: "bad-registry",
    });
  }
  return host;
}

const searchFilters: ReadonlySet<string> = new Set(["is-automated", "is-official", "stars"]);

/** `docker search`. Throws `invalid` for filters and limits. */
export async function searchImages(
  ctx: ImageContext,
  request: { term: string; limit: number; filters: string | undefined },
  signal: AbortSignal,
): Promise<SearchResult[]> {
  const filters = parseFilters(request.filters, searchFilters);
  const matches = matcher(filters);
  const limit = request.limit === 0 ? 25 : request.limit;
  if (limit < 1 || limit > 100) {
    throw new EngineError("invalid", `limit ${limit} is outside the range of [1, 100]`, {
      code: "bad-limit",
    });
  }
  const slash = request.term.indexOf("/");
  const first = slash === -1 ? "" : request.term.slice(0, slash);
  const isHost = /[.:]/.test(first) || first === "localhost";
  const domain = isHost ? domainOf(first) : defaultDomain;
  const term = (isHost ? request.term.slice(slash + 1) : request.term).replace(/^library\//, "");
  return (await ctx.registry.search(domain, term, limit, signal)).filter(matches);
}

function matcher(filters: Filters): (result: SearchResult) => boolean {
  const flag = (name: string): boolean | undefined => {
    const value = filters.get(name)?.[0];
    if (value === undefined) return undefined;
    if (/^(1|t|true)$/i.test(value)) return true;
    if (/^(0|f|false)$/i.test(value)) return false;
    throw invalidFilter(name, `[${value}]`);
  };
  const isOfficial = flag("is-official");
  const isAutomated = flag("is-automated");
  const stars = (filters.get("stars") ?? []).map((value) => {
    if (!/^\d{1,9}$/.test(value)) throw invalidFilter("stars", `[${value}]`);
    return Number(value);
  });
  const starsMin = Math.max(0, ...stars);
  return (result) =>
    (isOfficial === undefined || result.isOfficial === isOfficial) &&
    (isAutomated === undefined || result.isAutomated === isAutomated) &&
    result.starCount >= starsMin;
}

export interface DistributionDetails {
  readonly descriptor: { readonly mediaType: string; readonly digest: Digest; readonly sizeBytes: number };
  readonly platforms: readonly Platform[];
}

/** What a registry has under a name, without pulling it. Throws `notFound`, `forbidden`. */
export async function inspectDistribution(
  ctx: ImageContext,
  name: string,
  credentials: Credentials | undefined,
  signal: AbortSignal,
): Promise<DistributionDetails> {
  const reference = withDefaultTag(parseReference(name));
  const repository = ctx.registry.repository(reference, credentials);
  try {
    const { bytes, digest, mediaType } = await repository.manifest(
      reference.digest ?? reference.tag!,
      signal,
    );
    const parsed = parseManifest(bytes, mediaType);
    const descriptor = { mediaType: parsed.mediaType, digest, sizeBytes: bytes.length };
    if (parsed.kind === "index") {
      return { descriptor, platforms: parsed.index.manifests.flatMap(({ platform }) => platform ?? []) };
    }
    const config = await repository.smallBlob(parsed.manifest.config, limits.imageConfigBytesMax, signal);
    const { architecture, os, variant } = parseImageConfig(config);
    return { descriptor, platforms: [{ architecture, os, ...(variant === undefined ? {} : { variant }) }] };
  } catch (error) {
    throw translated(error);
  }
}

function translated(error: unknown): unknown {
  if (!(error instanceof RegistryError)) return error;
  const as = (kind: "notFound" | "forbidden"): EngineError =>
    new EngineError(kind, error.message, { code: error.code, cause: error });
  if (error.status === 404) return as("notFound");
  return error.status === 401 || error.status === 403 ? as("forbidden") : error;
}
