import { mediaTypes } from "#wire/oci-image.ts";
import { registryDigest } from "./registry-digest.ts";
import { RegistryFault } from "./registry-fault.ts";
import type { RegistryDigest } from "./registry-store.ts";

/** Something that a manifest names and that must be there before it. */
export interface NamedContent {
  readonly digest: RegistryDigest;
  readonly sizeBytes: number;
  /** `either`: an entry of an index of a type that we do not know. */
  readonly as: "blob" | "manifest" | "either";
  /** Kept where it is there, not asked for where it is not. */
  readonly optional: boolean;
}

export interface ManifestDocument {
  readonly mediaType: string;
  readonly named: readonly NamedContent[];
  readonly subject?: RegistryDigest;
  readonly artifactType?: string;
  readonly annotations: Readonly<Record<string, string>>;
}

const imageTypes: ReadonlySet<string> = new Set([mediaTypes.ociManifest, mediaTypes.dockerManifest]);
const indexTypes: ReadonlySet<string> = new Set([mediaTypes.ociIndex, mediaTypes.dockerIndex]);
const nondistributable =
  /^application\/vnd\.(?:docker\.image\.rootfs\.foreign|oci\.image\.layer\.nondistributable)\./;

type Json = Readonly<Record<string, unknown>>;

function invalid(message: string): RegistryFault {
  return new RegistryFault(400, "MANIFEST_INVALID", { message: `manifest invalid: ${message}` });
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function isIndexType(mediaType: string): boolean {
  return indexTypes.has(mediaType);
}

export function isManifestType(mediaType: string): boolean {
  return imageTypes.has(mediaType) || indexTypes.has(mediaType);
}

/**
 * Reads a manifest that is pushed: OCI manifests and indexes, Docker's schema 2 and manifest lists. What a client could
 * take for another kind than the declared one is refused (OCI image spec, "Property descriptions": ambiguous documents).
 * Throws `MANIFEST_INVALID`.
 */
export function readManifest(bytes: Uint8Array, contentType: string | undefined): ManifestDocument {
  let document: unknown;
  try {
    document = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw invalid("not a JSON document");
  }
  if (!isObject(document)) throw invalid("not a JSON object");
  const mediaType = declaredType(document, contentType);
  if (document["schemaVersion"] !== 2) throw invalid("schemaVersion is not 2");
  const isIndex = indexTypes.has(mediaType);
  const foreign = isIndex ? ["layers", "config", "fsLayers"] : ["manifests", "fsLayers"];
  for (const field of foreign) {
    if (document[field] !== undefined) throw invalid(`${field} does not belong in ${mediaType}`);
  }
  const { subject, artifactType } = relation(document, isIndex);
  return {
    mediaType,
    named: isIndex ? entriesOf(document) : contentsOf(document),
    ...(subject === undefined ? {} : { subject }),
    ...(artifactType === undefined ? {} : { artifactType }),
    annotations: annotationsOf(document),
  };
}

function declaredType(document: Json, contentType: string | undefined): string {
  const inside = document["mediaType"];
  if (inside !== undefined && typeof inside !== "string") throw invalid("mediaType is not a string");
  // Parameters of the header say nothing about a manifest (OCI distribution spec, "Pushing Manifests").
  const outside = contentType?.split(";")[0]?.trim();
  const generic = outside === undefined || outside === "" || outside === "application/json";
  const mediaType = generic ? inside : outside;
  if (mediaType === undefined) throw invalid("neither Content-Type nor mediaType");
  if (inside !== undefined && inside !== mediaType) {
    throw invalid(`mediaType ${JSON.stringify(inside)} is not the Content-Type ${JSON.stringify(mediaType)}`);
  }
  if (!isManifestType(mediaType))
    throw invalid(`unsupported manifest type ${JSON.stringify(mediaType).slice(0, 200)}`);
  return mediaType;
}

function relation(document: Json, isIndex: boolean): { subject?: RegistryDigest; artifactType?: string } {
  const subject = document["subject"] == null ? undefined : descriptor(document["subject"], "subject");
  const own = document["artifactType"];
  if (own != null && typeof own !== "string") throw invalid("artifactType is not a string");
  const config = document["config"];
  const fallback = !isIndex && isObject(config) ? config["mediaType"] : undefined;
  const artifactType = typeof own === "string" && own !== "" ? own : fallback;
  return {
    ...(subject === undefined ? {} : { subject: subject.digest }),
    ...(typeof artifactType === "string" && artifactType !== "" ? { artifactType } : {}),
  };
}

function annotationsOf(document: Json): Record<string, string> {
  const found = document["annotations"];
  if (found == null) return {};
  if (!isObject(found) || Object.values(found).some((value) => typeof value !== "string")) {
    throw invalid("annotations are not strings");
  }
  return found as Record<string, string>;
}

interface Descriptor {
  readonly digest: RegistryDigest;
  readonly size: number;
  readonly mediaType: string;
  readonly hasUrls: boolean;
}

function descriptor(value: unknown, where: string): Descriptor {
  if (!isObject(value)) throw invalid(`${where} is no descriptor`);
  const digest = registryDigest(value["digest"]);
  if (digest === undefined) throw invalid(`${where} has an invalid digest`);
  const size = value["size"];
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0)
    throw invalid(`${where} has an invalid size`);
  const mediaType = value["mediaType"];
  if (typeof mediaType !== "string" || mediaType === "") throw invalid(`${where} has no mediaType`);
  const urls = value["urls"];
  return { digest, size, mediaType, hasUrls: Array.isArray(urls) && urls.length > 0 };
}

function contentsOf(document: Json): NamedContent[] {
  const layers = document["layers"];
  if (!Array.isArray(layers)) throw invalid("layers is not a list");
  const config = descriptor(document["config"], "config");
  const named: NamedContent[] = [
    { digest: config.digest, sizeBytes: config.size, as: "blob", optional: false },
  ];
  layers.forEach((value, index) => {
    const layer = descriptor(value, `layers[${index}]`);
    // Such a layer is fetched from its URLs; a registry need not have it (OCI image spec, "Non-distributable layers").
    const optional = nondistributable.test(layer.mediaType) && layer.hasUrls;
    named.push({ digest: layer.digest, sizeBytes: layer.size, as: "blob", optional });
  });
  return named;
}

function entriesOf(document: Json): NamedContent[] {
  const entries = document["manifests"];
  if (!Array.isArray(entries)) throw invalid("manifests is not a list");
  return entries.map((value, index) => {
    const entry = descriptor(value, `manifests[${index}]`);
    const as = isManifestType(entry.mediaType) ? "manifest" : "either";
    return { digest: entry.digest, sizeBytes: entry.size, as, optional: false };
  });
}
