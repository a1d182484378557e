import { type DiffId, parseDigest } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import {
  type Descriptor,
  type ImageConfig,
  type Index,
  type Manifest,
  mediaTypes,
  type Platform,
} from "#wire/oci-image.ts";
import { parseStrictJson } from "./strict-json.ts";

/** What the client asks for, and all it understands. */
export const manifestMediaTypes: readonly string[] = [
  mediaTypes.ociIndex,
  mediaTypes.dockerIndex,
  mediaTypes.ociManifest,
  mediaTypes.dockerManifest,
];

const indexTypes: ReadonlySet<string> = new Set([mediaTypes.ociIndex, mediaTypes.dockerIndex]);
const singleTypes: ReadonlySet<string> = new Set([mediaTypes.ociManifest, mediaTypes.dockerManifest]);
/** What servers say that know nothing of manifests: then the document itself decides. */
const vagueTypes: ReadonlySet<string> = new Set([
  "",
  "application/json",
  "application/octet-stream",
  "text/plain",
]);
const schema1Types = /^application\/vnd\.docker\.distribution\.manifest\.v1\+(prettyjws|json)$/;
const configTypes: ReadonlySet<string> = new Set([
  mediaTypes.ociConfig,
  mediaTypes.dockerConfig,
  "application/octet-stream",
]);
const layerTypes =
  /^application\/vnd\.(?:oci\.image\.layer\.(?:nondistributable\.)?v1\.tar(?:\+(?:gzip|zstd))?|docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?:\.(?:gzip|zstd))?)$/;

/** Entries of an index: real ones have a dozen platforms and as many attestations. */
const indexEntriesMax = 1024;

export type ParsedManifest =
  | { readonly kind: "manifest"; readonly mediaType: string; readonly manifest: Manifest }
  | { readonly kind: "index"; readonly mediaType: string; readonly index: Index };

type Fields = Readonly<Record<string, unknown>>;

function bad(message: string): EngineError {
  return new EngineError("invalid", message, { code: "bad-document" });
}

function object(value: unknown, what: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw bad(`${what} is no object`);
  return value as Fields;
}

/**
 * A key that differs from a known one in case only would be the same to a reader in Go and another to us: refused, as
 * is any key that could stand for the prototype.
 */
function checkSpelling(fields: Fields, known: readonly string[], what: string): void {
  for (const key of Object.keys(fields)) {
    const lower = key.toLowerCase();
    const twin = known.find((name) => name.toLowerCase() === lower && name !== key);
    if (twin !== undefined) throw bad(`${what} spells ${twin} as ${JSON.stringify(key)}`);
  }
}

function optionalText(fields: Fields, key: string, what: string): string | undefined {
  const value = fields[key];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "string") throw bad(`${what}: ${key} is no string`);
  return value;
}

function textMap(value: unknown, what: string): Readonly<Record<string, string>> {
  const result: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const [key, entry] of Object.entries(object(value, what))) {
    if (typeof entry !== "string") throw bad(`${what}: ${JSON.stringify(key.slice(0, 100))} is no string`);
    result[key] = entry;
  }
  return result;
}

function parsePlatform(value: unknown): Platform {
  const what = "platform of an index entry";
  const fields = object(value, what);
  checkSpelling(fields, ["architecture", "os", "variant", "os.version", "os.features"], what);
  const variant = optionalText(fields, "variant", what);
  const version = optionalText(fields, "os.version", what);
  return {
    architecture: optionalText(fields, "architecture", what) ?? "",
    os: optionalText(fields, "os", what) ?? "",
    ...(variant === undefined || variant === "" ? {} : { variant }),
    ...(version === undefined ? {} : { "os.version": version }),
  };
}

const descriptorKeys = ["mediaType", "digest", "size", "platform", "annotations", "urls"];

/** Checks a descriptor. Its `urls` are read over: content comes from the registry that was asked, never from elsewhere. */
function parseDescriptor(value: unknown, what: string): Descriptor {
  const fields = object(value, what);
  checkSpelling(fields, descriptorKeys, what);
  const { size } = fields;
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) {
    throw bad(`${what} has an invalid size`);
  }
  const annotations = fields["annotations"];
  return {
    mediaType: optionalText(fields, "mediaType", what) ?? "",
    digest: parseDigest(fields["digest"]),
    size,
    ...(fields["platform"] === undefined || fields["platform"] === null
      ? {}
      : { platform: parsePlatform(fields["platform"]) }),
    ...(annotations === undefined || annotations === null
      ? {}
      : { annotations: textMap(annotations, `annotations of ${what}`) }),
  };
}

const schema1Message =
  "manifest schema 1 is no longer supported: the image must be pushed again as an OCI image or with manifest schema 2";

/**
 * Reads a manifest or an index. `contentType` is what the registry called it (or the descriptor that led here).
 * Refuses documents that can be read as both, whose own `mediaType` says otherwise, and schema 1.
 */
export function parseManifest(bytes: Uint8Array, contentType: string): ParsedManifest {
  if (bytes.length > limits.manifestBytesMax) throw bad("manifest is too large");
  if (schema1Types.test(contentType)) throw bad(schema1Message);
  if (!vagueTypes.has(contentType) && !indexTypes.has(contentType) && !singleTypes.has(contentType)) {
    throw bad(`unsupported manifest media type ${JSON.stringify(contentType.slice(0, 200))}`);
  }
  const fields = object(parseStrictJson(bytes, "manifest"), "manifest");
  const known = ["schemaVersion", "mediaType", "config", "layers", "manifests", "annotations", "fsLayers"];
  checkSpelling(fields, known, "manifest");
  if (fields["schemaVersion"] === 1) throw bad(schema1Message);
  if (fields["schemaVersion"] !== 2) throw bad("manifest has no schemaVersion 2");
  const isIndex = Object.hasOwn(fields, "manifests");
  const isSingle = Object.hasOwn(fields, "layers") || Object.hasOwn(fields, "config");
  if ((isIndex && isSingle) || Object.hasOwn(fields, "fsLayers")) {
    throw bad("manifest can be read as more than one kind of document");
  }
  const own = optionalText(fields, "mediaType", "manifest");
  if (own !== undefined && !vagueTypes.has(contentType) && own !== contentType) {
    throw bad(`manifest says it is ${JSON.stringify(own.slice(0, 200))}, the registry says ${contentType}`);
  }
  const mediaType =
    own ??
    (vagueTypes.has(contentType) ? (isIndex ? mediaTypes.ociIndex : mediaTypes.ociManifest) : contentType);
  if (isIndex && indexTypes.has(mediaType)) return { kind: "index", mediaType, index: indexOf(fields) };
  if (isSingle && singleTypes.has(mediaType)) {
    return { kind: "manifest", mediaType, manifest: manifestOf(fields, mediaType) };
  }
  throw bad(`manifest of media type ${JSON.stringify(mediaType.slice(0, 200))} has the content of another`);
}

function indexOf(fields: Fields): Index {
  const list = fields["manifests"];
  if (!Array.isArray(list)) throw bad("index has no list of manifests");
  if (list.length > indexEntriesMax) throw bad(`index has more than ${indexEntriesMax} entries`);
  return { schemaVersion: 2, manifests: list.map((entry) => parseDescriptor(entry, "index entry")) };
}

function manifestOf(fields: Fields, mediaType: string): Manifest {
  const config = parseDescriptor(fields["config"], "config descriptor");
  if (!configTypes.has(config.mediaType)) {
    throw bad(`unsupported media type ${plain(config.mediaType)}`);
  }
  if (config.size > limits.imageConfigBytesMax) throw bad("image config is too large");
  const list = fields["layers"];
  if (!Array.isArray(list)) throw bad("manifest has no list of layers");
  if (list.length > limits.layersPerImageMax) throw bad("max depth exceeded");
  const layers = list.map((entry) => parseDescriptor(entry, "layer descriptor"));
  for (const layer of layers) {
    if (!layerTypes.test(layer.mediaType))
      throw bad(`unsupported layer media type ${plain(layer.mediaType)}`);
    if (layer.size > limits.layerBytesMax) throw bad("layer is too large");
  }
  return { schemaVersion: 2, mediaType, config, layers };
}

function plain(text: string): string {
  return text.replace(/[^\x21-\x7e]/g, "?").slice(0, 200);
}

/** Reads an image config: what the engine relies on is checked field by field, the rest stays as it is. */
export function parseImageConfig(bytes: Uint8Array): ImageConfig {
  if (bytes.length > limits.imageConfigBytesMax) throw bad("image config is too large");
  const fields = object(parseStrictJson(bytes, "image config"), "image config");
  const known = [
    "architecture",
    "os",
    "variant",
    "os.version",
    "config",
    "rootfs",
    "history",
    "created",
    "author",
  ];
  checkSpelling(fields, known, "image config");
  const rootfs = object(fields["rootfs"] ?? {}, "rootfs of the image config");
  checkSpelling(rootfs, ["type", "diff_ids"], "rootfs of the image config");
  const diffIds = rootfs["diff_ids"] ?? [];
  if (!Array.isArray(diffIds)) throw bad("rootfs of the image config has no list of diff_ids");
  if (diffIds.length > limits.layersPerImageMax) throw bad("max depth exceeded");
  for (const text of ["architecture", "os", "variant", "os.version", "created", "author"]) {
    optionalText(fields, text, "image config");
  }
  const run = fields["config"];
  if (run !== undefined && run !== null) checkRunConfig(object(run, "config of the image config"));
  const history = fields["history"] ?? [];
  if (!Array.isArray(history)) throw bad("history of the image config is no list");
  for (const entry of history) checkHistory(object(entry, "history entry"));
  return {
    ...(fields as unknown as ImageConfig),
    architecture: optionalText(fields, "architecture", "image config") ?? "",
    os: optionalText(fields, "os", "image config") || "linux",
    rootfs: {
      type: "layers",
      diff_ids: diffIds.map((entry) => parseDigest(entry) as string as DiffId),
    },
  };
}

function checkHistory(entry: Fields): void {
  for (const key of ["created", "created_by", "author", "comment"]) optionalText(entry, key, "history entry");
  const empty = entry["empty_layer"];
  if (empty !== undefined && empty !== null && typeof empty !== "boolean") {
    throw bad("history entry: empty_layer is no boolean");
  }
}

const runTextKeys = ["User", "WorkingDir", "StopSignal"];
const runListKeys = ["Env", "Entrypoint", "Cmd", "OnBuild", "Shell"];
const runMapKeys = ["ExposedPorts", "Volumes", "Labels"];

function checkRunConfig(run: Fields): void {
  const what = "config of the image config";
  checkSpelling(run, [...runTextKeys, ...runListKeys, ...runMapKeys, "Healthcheck"], what);
  for (const key of runTextKeys) optionalText(run, key, what);
  for (const key of runListKeys) {
    const list = run[key];
    if (list === undefined || list === null) continue;
    if (!Array.isArray(list) || list.length > limits.listItemsMax) throw bad(`${what}: ${key} is no list`);
    if (list.some((entry) => typeof entry !== "string" || entry.includes("\0"))) {
      throw bad(`${what}: ${key} has an entry that is no string`);
    }
  }
  for (const key of runMapKeys) {
    const map = run[key];
    if (map === undefined || map === null) continue;
    const entries = Object.entries(object(map, `${key} of the image config`));
    if (entries.length > limits.listItemsMax) throw bad(`${what}: ${key} is too long`);
    if (key === "Labels") textMap(map, "labels of the image config");
  }
  const health = run["Healthcheck"];
  if (health !== undefined && health !== null) object(health, "healthcheck of the image config");
}

/** What must hold between a manifest and its config. Throws Docker's text. */
export function checkLayersMatch(manifest: Manifest, config: ImageConfig): void {
  if (manifest.layers.length !== config.rootfs.diff_ids.length) {
    throw bad("layers from manifest don't match image configuration");
  }
  if (config.os !== "linux") {
    throw bad(
      `image operating system ${JSON.stringify(config.os.slice(0, 64))} cannot be used on this platform`,
    );
  }
}
