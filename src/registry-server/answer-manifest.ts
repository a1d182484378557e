import { limits } from "#base/limits.ts";
import { isTag } from "#wire/reference.ts";
import { type Accepted, acceptedOf, acceptsType } from "./accept.ts";
import { digestOrFault } from "./answer-blob.ts";
import { select } from "./conditional.ts";
import type { DiskRegistryStore } from "./disk-registry-store.ts";
import type { Exchange } from "./exchange.ts";
import { isIndexType, readManifest } from "./manifest-document.ts";
import { BodyBroken, readBody } from "./receive-body.ts";
import { algorithmOf, digestBytes } from "./registry-digest.ts";
import { RegistryFault } from "./registry-fault.ts";
import type { RegistryDigest } from "./registry-store.ts";
import type { Manifest } from "./repository-index.ts";

const bodyIdleMs = 60_000;

type Reference = { readonly digest: RegistryDigest } | { readonly tag: string };

/** A digest, or a tag; undefined for a text that is neither. */
function referenceOf(text: string): Reference | undefined {
  if (text.includes(":")) return { digest: digestOrFault(text) };
  return isTag(text) ? { tag: text } : undefined;
}

function unknownManifest(reference: string): RegistryFault {
  return new RegistryFault(404, "MANIFEST_UNKNOWN", { detail: { reference: reference.slice(0, 200) } });
}

/** Manifests: GET, HEAD, PUT, DELETE (OCI distribution spec, end-3, end-7, end-9). */
export class ManifestAnswers {
  readonly #store: DiskRegistryStore;

  constructor(store: DiskRegistryStore) {
    this.#store = store;
  }

  async read(exchange: Exchange, repository: string, text: string): Promise<void> {
    const reference = referenceOf(text);
    const found = reference === undefined ? undefined : this.#store.manifestRows.find(repository, reference);
    if (found === undefined || reference === undefined) throw unknownManifest(text);
    // Whoever was told of a manifest may name it in an index for a while.
    if (exchange.isHead) found.pushedAtMs = Math.max(found.pushedAtMs, Date.now());
    const manifest = await this.#acceptable(exchange, repository, found, "tag" in reference);
    const etag = `"${manifest.digest}"`;
    const headers = {
      "Content-Type": manifest.mediaType,
      "Docker-Content-Digest": manifest.digest,
      Etag: etag,
    };
    const selection = select(exchange.request.headers, etag, manifest.sizeBytes, { ranges: false });
    if (selection.kind === "notModified") return exchange.send(304, headers);
    if (selection.kind === "preconditionFailed") {
      throw new RegistryFault(412, "UNSUPPORTED", { message: "If-Match names other content" });
    }
    if (exchange.isHead) return exchange.send(200, { ...headers, "Content-Length": manifest.sizeBytes });
    const bytes =
      this.#store.manifestRows.cached(manifest) ?? (await this.#store.manifestRows.read(manifest));
    exchange.send(200, headers, bytes);
  }

  /**
   * What the client can read of it: the manifest itself, or for a tag of an index that it cannot read the image for
   * linux/amd64, as Docker's registry does for its lists. A client that says nothing of manifests gets what there is.
   */
  async #acceptable(
    exchange: Exchange,
    repository: string,
    manifest: Manifest,
    byTag: boolean,
  ): Promise<Manifest> {
    const accepted = acceptedOf(exchange.request.headers.accept);
    if (acceptsType(accepted, manifest.mediaType)) return manifest;
    if (byTag && isIndexType(manifest.mediaType)) {
      const image = await this.#defaultImage(repository, manifest, accepted);
      if (image !== undefined) return image;
    }
    throw new RegistryFault(404, "MANIFEST_UNKNOWN", {
      message: `the manifest is ${manifest.mediaType}, which the Accept header does not name`,
    });
  }

  async #defaultImage(
    repository: string,
    index: Manifest,
    accepted: Accepted,
  ): Promise<Manifest | undefined> {
    const bytes = this.#store.manifestRows.cached(index) ?? (await this.#store.manifestRows.read(index));
    const { manifests } = JSON.parse(bytes.toString("utf8")) as {
      manifests: readonly { digest: RegistryDigest; platform?: { os?: unknown; architecture?: unknown } }[];
    };
    const entry = manifests.find(
      ({ platform }) => platform?.os === "linux" && platform.architecture === "amd64",
    );
    const image =
      entry === undefined ? undefined : this.#store.manifestRows.find(repository, { digest: entry.digest });
    return image !== undefined && acceptsType(accepted, image.mediaType) ? image : undefined;
  }

  async put(exchange: Exchange, repository: string, text: string, signal: AbortSignal): Promise<void> {
    const { request } = exchange;
    const reference = referenceOf(text);
    if (reference === undefined) {
      throw new RegistryFault(400, "MANIFEST_INVALID", {
        message: "invalid tag",
        detail: { tag: text.slice(0, 200) },
      });
    }
    const bytes = await readBody(request, limits.manifestBytesMax, {
      idleMs: bodyIdleMs,
      signal,
      onBytes: exchange.countIn,
    });
    if (bytes === undefined) {
      throw new RegistryFault(413, "SIZE_INVALID", {
        message: `a manifest has at most ${limits.manifestBytesMax} bytes`,
      });
    }
    if (!request.complete) throw new BodyBroken("the client went away");
    const asked = "digest" in reference ? reference.digest : undefined;
    const digest = digestBytes(asked === undefined ? "sha256" : algorithmOf(asked), bytes);
    if (asked !== undefined && asked !== digest) {
      throw new RegistryFault(400, "DIGEST_INVALID", { detail: { digest: asked, found: digest } });
    }
    const document = readManifest(bytes, request.headers["content-type"]);
    const tag = "tag" in reference ? { tag: reference.tag } : {};
    await this.#store.manifestRows.put(repository, { digest, bytes, document, ...tag });
    exchange.send(201, {
      Location: `/v2/${repository}/manifests/${digest}`,
      "Docker-Content-Digest": digest,
      ...(document.subject === undefined ? {} : { "OCI-Subject": document.subject }),
    });
  }

  /** A tag alone, or a manifest with all its tags. */
  async remove(exchange: Exchange, repository: string, text: string): Promise<void> {
    const reference = referenceOf(text);
    if (reference === undefined) throw unknownManifest(text);
    const gone =
      "tag" in reference
        ? await this.#store.manifestRows.removeTag(repository, reference.tag)
        : await this.#store.manifestRows.remove(repository, reference.digest);
    if (!gone) throw unknownManifest(text);
    exchange.send(202, {});
  }
}
