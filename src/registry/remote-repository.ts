import { type Digest, digestOf, isDigest } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import type { BlobWriter } from "#content/content-store.ts";
import { manifestMediaTypes } from "#image/validate.ts";
import type { Descriptor } from "#wire/oci-image.ts";
import { isTag } from "#wire/reference.ts";
import { type BlobFetchOptions, fetchBlob } from "./blob-fetch.ts";
import { contradiction } from "./claimed-digest.ts";
import { TransportError } from "./network-error.ts";
import { plainText } from "./registry-error.ts";
import type { Remote } from "./remote.ts";
import type { RegistryTiming } from "./timing.ts";
import { readBody } from "./transport.ts";

/** A manifest or index as a registry sent it, verified against the digest asked for. */
export interface RemoteManifest {
  readonly bytes: Buffer;
  /** `Content-Type` without parameters; empty when the registry sent none. */
  readonly mediaType: string;
  readonly digest: Digest;
}

/** A list of all tags is bounded: Docker Hub's largest repositories have some ten thousand. */
const tagsMax = 200_000;
const tagPagesMax = 2_000;

/** One repository, read through the first of its registry's addresses that has what is asked. */
export class RemoteRepository {
  readonly #path: string;
  readonly #remotes: readonly Remote[];
  readonly #timing: RegistryTiming;
  #current: Remote | undefined;

  constructor(path: string, remotes: readonly Remote[], timing: RegistryTiming) {
    this.#path = path;
    this.#remotes = remotes;
    this.#timing = timing;
  }

  /** Fetches by tag or digest. Throws `RegistryError` or `TransportError` of the last address tried. */
  async manifest(name: string, signal: AbortSignal): Promise<RemoteManifest> {
    return await this.#anywhere(signal, (remote) => this.#manifestFrom(remote, name, signal));
  }

  async #manifestFrom(remote: Remote, name: string, signal: AbortSignal): Promise<RemoteManifest> {
    const answer = await remote.patiently({
      method: "GET",
      path: `${this.#path}/manifests/${name}`,
      headers: { accept: manifestMediaTypes.join(", ") },
      signal,
    });
    const bytes = await readBody(answer, limits.manifestBytesMax);
    const digest = digestOf(bytes);
    const claimed = contradiction(answer.headers, digest);
    const wrong = isDigest(name) ? digest !== name : claimed !== undefined;
    if (wrong) {
      const expected = isDigest(name) ? name : plainText(String(claimed), 100);
      throw new EngineError("system", `manifest verification failed for digest ${expected}`, {
        code: "wrong-digest",
      });
    }
    const type = answer.headers["content-type"]?.split(";")[0]?.trim().toLowerCase() ?? "";
    return { bytes, mediaType: type, digest };
  }

  /** A blob of a few MiB at most, verified. */
  async smallBlob(descriptor: Descriptor, bytesMax: number, signal: AbortSignal): Promise<Buffer> {
    const failed = (): EngineError =>
      new EngineError("system", `filesystem layer verification failed for digest ${descriptor.digest}`, {
        code: "wrong-digest",
      });
    if (descriptor.size > bytesMax) {
      throw new EngineError("invalid", `blob ${descriptor.digest} is larger than ${bytesMax} bytes`);
    }
    return await this.#anywhere(signal, async (remote) => {
      const answer = await remote.patiently({ method: "GET", path: this.#blobPath(descriptor), signal });
      const bytes = await readBody(answer, descriptor.size);
      if (bytes.length !== descriptor.size || digestOf(bytes) !== descriptor.digest) throw failed();
      return bytes;
    });
  }

  /**
   * Downloads a blob into `writer`, from where it was left, with retries. Length is checked here, the digest when the
   * writer commits.
   */
  async blob(descriptor: Descriptor, writer: BlobWriter, options: BlobFetchOptions): Promise<void> {
    await this.#anywhere(options.signal, async (remote) => {
      await fetchBlob(remote, this.#blobPath(descriptor), descriptor, writer, options, this.#timing);
    });
  }

  #blobPath(descriptor: Descriptor): string {
    return `${this.#path}/blobs/${descriptor.digest}`;
  }

  /** All tags, over the pages of the list. Names that are no tags are left out. */
  async tags(signal: AbortSignal): Promise<string[]> {
    return await this.#anywhere(signal, async (remote) => {
      const tags = new Set<string>();
      let path: string | undefined = `${this.#path}/tags/list`;
      for (let page = 0; path !== undefined && page < tagPagesMax && tags.size < tagsMax; page += 1) {
        const answer = await remote.patiently({ method: "GET", path, signal });
        for (const tag of tagsIn(await readBody(answer, limits.manifestBytesMax * 4))) tags.add(tag);
        path = this.#nextPage(answer.headers.link, remote);
      }
      return [...tags];
    });
  }

  /** The next page's path below `/v2/`, from `Link: <…>; rel="next"`; only within this registry and repository. */
  #nextPage(header: string | string[] | undefined, remote: Remote): string | undefined {
    const text = Array.isArray(header) ? header.join(",") : (header ?? "");
    const match = /<([^<>]{1,4096})>\s*;[^,]*\brel="?next"?/i.exec(text);
    if (match === null) return undefined;
    const base = new URL(`${remote.endpoint.base}/v2/`);
    let next: URL;
    try {
      next = new URL(match[1]!, new URL(`${this.#path}/tags/list`, base));
    } catch {
      return undefined;
    }
    const prefix = `${base.pathname}${this.#path}/tags/list`;
    if (next.origin !== base.origin || next.pathname !== prefix) return undefined;
    return `${this.#path}/tags/list${next.search}`;
  }

  /** Tries the addresses in order; stays with the one that worked, and falls from a mirror to the registry itself. */
  async #anywhere<T>(signal: AbortSignal, operation: (remote: Remote) => Promise<T>): Promise<T> {
    const first = this.#current;
    const rest = this.#remotes.filter((remote) => remote !== first);
    const order = first === undefined ? rest : first.endpoint.mirror ? [first, ...rest] : [first];
    let failure: unknown;
    for (const remote of order) {
      try {
        await remote.reach(signal);
        const result = await operation(remote);
        this.#current = remote;
        return result;
      } catch (error) {
        failure = error;
        if (signal.aborted || !mayFallThrough(error, remote)) throw error;
      }
    }
    throw failure;
  }
}

/** Only a mirror may be passed over for what it answers; a registry's own address only when nothing answered there: who was reached by https is not asked by http. */
function mayFallThrough(error: unknown, remote: Remote): boolean {
  if (!(error instanceof EngineError)) return false;
  if (remote.endpoint.mirror) return error.kind === "system" || error.kind === "invalid";
  return error instanceof TransportError && !remote.reached;
}

function tagsIn(body: Buffer): string[] {
  let value: unknown;
  try {
    value = JSON.parse(body.toString("utf8"));
  } catch (cause) {
    throw new TransportError("the registry's list of tags is not JSON", false, cause);
  }
  const tags = (value as { tags?: unknown } | null)?.tags;
  return Array.isArray(tags)
    ? tags.filter((tag): tag is string => typeof tag === "string" && isTag(tag))
    : [];
}
