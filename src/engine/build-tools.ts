/** What a build needs of the engine (builder/step-executor.ts), put together for one request. */
import { createHash, randomBytes } from "node:crypto";
import { createWriteStream, lstatSync, renameSync } from "node:fs";
import { join } from "node:path";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import type {
  BaseRequest,
  BuildSecrets,
  CacheMountRequest,
  NewImage,
  StepExecutor,
  StepRequest,
} from "#builder/step-executor.ts";
import type { Hold } from "#image/byte-keeper.ts";
import type { Image } from "#image/image.ts";
import { formatPlatform, normalizePlatform, platformSatisfies } from "#image/platform.ts";
import type { LooseFile } from "#snapshot/context-tree.ts";
import type { HostConfig } from "#wire/container-schema.ts";
import { familiarString, parseAnyReference, withDefaultTag } from "#wire/reference.ts";
import type { CacheMounts } from "./build-cache-mounts.ts";
import { addGit } from "./build-context.ts";
import type { ContainerEngine } from "./container-engine.ts";
import type { ImageContext, Report } from "./image-context.ts";
import { holdImage, makeImage } from "./image-make.ts";
import type { ImageService } from "./images.ts";

export interface BuildToolsDeps {
  readonly images: ImageService;
  readonly containers: Pick<ContainerEngine, "buildStep">;
  readonly cacheMounts: CacheMounts;
}

export interface BuildCall {
  /** Of every step's container; its network is that of steps that say none. */
  readonly hostConfig: HostConfig;
  /** Registry credentials of an image's host, as an `X-Registry-Auth` value. */
  readonly authFor: (host: string) => string | undefined;
  /** Lines of pulls. */
  readonly report: Report;
  readonly room: () => Promise<void>;
  readonly secrets: BuildSecrets;
}

/** Names in the URL of a download may not lead anywhere. */
const fileNameMax = 255;

export function buildTools(deps: BuildToolsDeps, call: BuildCall): StepExecutor {
  const ctx = deps.images.context;
  return {
    container: (step, runs) => deps.containers.buildStep({ ...stepOf(step, call), runs }),
    base: (request, hold, signal) => baseImage(deps, call, request, hold, signal),
    makeImage: (image) => storeImage(ctx, image),
    download: (url, checksum, directory, signal) => download(ctx, { url, checksum, directory }, signal),
    git: (request, signal) => addGit(ctx, request, signal),
    cacheMount: (request, signal) =>
      deps.cacheMounts.take(request, (path) => fillCache(ctx, request, path, signal), signal),
    secrets: call.secrets,
  };
}

function stepOf(
  step: StepRequest,
  { hostConfig, room }: BuildCall,
): Omit<Parameters<ContainerEngine["buildStep"]>[0], "runs"> {
  const network = step.network === "default" ? hostConfig.NetworkMode : step.network;
  const { image, command, env, secretEnv, mounts, insecure } = step;
  const own = { ...hostConfig, NetworkMode: network, ...(insecure ? { Privileged: true } : {}) };
  return { image, command, env, secretEnv, mounts, room, hostConfig: own };
}

/** A cache mount that begins as a copy: a layer that is never sealed gives its directory away. */
async function fillCache(
  { snapshotter }: ImageContext,
  { initial }: CacheMountRequest,
  path: string,
  signal: AbortSignal,
): Promise<void> {
  if (initial === undefined) return;
  // A name that no other layer has: equal files would be one layer, and that may be somebody's.
  const name = `cache-${randomBytes(16).toString("hex")}`;
  const layer = await snapshotter.derive({
    source: { kind: "copy", specs: [{ ...initial.spec, target: `/${name}` }] },
    stack: [],
    belowChain: undefined,
    signal,
  });
  if (layer === undefined)
    throw new EngineError("invalid", "the source of a cache mount is empty", { code: "copy" });
  try {
    const files = join(snapshotter.pathOf(layer.key), name);
    if (!lstatSync(files).isDirectory())
      throw new EngineError("invalid", "the source of a cache mount must be a directory", { code: "copy" });
    renameSync(files, path);
  } finally {
    await snapshotter.discard([layer]);
  }
}

async function storeImage(
  ctx: ImageContext,
  { config, below, added, applied, parent, hold }: NewImage,
): Promise<Image> {
  const isNew = applied !== undefined && added !== undefined;
  const image = await makeImage(ctx, {
    config,
    below: added === undefined || isNew ? below : [...below, added],
    ...(isNew ? { added: { applied, diffSizeBytes: applied.blobSizeBytes } } : {}),
    hold,
    ...(parent === undefined ? {} : { parent }),
  });
  await ctx.images.put(image, []);
  return image;
}

async function baseImage(
  { images }: BuildToolsDeps,
  { authFor, report }: BuildCall,
  { reference, platform, pull }: BaseRequest,
  hold: Hold,
  signal: AbortSignal,
): Promise<Image> {
  const ctx = images.context;
  const here = ctx.images.find(reference);
  const fits =
    here !== undefined && (platform === undefined || platformSatisfies(platformOf(here), platform));
  const parsed = parseAnyReference(reference);
  // An id names what is here or nothing.
  if (parsed.kind === "id" || (fits && !pull)) {
    const image = here ?? ctx.images.resolve(reference);
    await holdImage(ctx, image, hold);
    return image;
  }
  const named = parsed.reference.digest === undefined ? withDefaultTag(parsed.reference) : parsed.reference;
  const text = familiarString(named);
  const at = Math.max(text.indexOf("@"), text.lastIndexOf(":"));
  const split = named.digest === undefined ? at : text.indexOf("@");
  await images.pull(
    {
      fromImage: text.slice(0, split),
      tag: text.slice(split + 1),
      platform: platform === undefined ? "" : formatPlatform(platform),
      registryAuth: authFor(named.domain),
    },
    report,
    signal,
  );
  const image = ctx.images.resolve(reference);
  await holdImage(ctx, image, hold);
  return image;
}

function platformOf({ config }: Image): ReturnType<typeof normalizePlatform> {
  const { os, architecture, variant } = config;
  return normalizePlatform({ os, architecture, ...(variant === undefined ? {} : { variant }) });
}

/** ADD of a URL: into a file, its name from the URL's path, mode 0600, the server's date (Dockerfile reference, "ADD"). */
async function download(
  ctx: ImageContext,
  {
    url: text,
    checksum,
    directory,
  }: { readonly url: string; readonly checksum: string; readonly directory: string },
  signal: AbortSignal,
): Promise<LooseFile> {
  const url = urlOf(text);
  const name = decodeURIComponent(url.pathname.split("/").at(-1) ?? "");
  if (name === "" || name === "." || name === ".." || /[/\0]/.test(name) || name.length > fileNameMax) {
    throw new EngineError("invalid", `cannot determine filename from url: ${text}`, { code: "copy" });
  }
  const answer = await ctx.registry.transport.send({ method: "GET", url, verifyTls: true, signal });
  if (answer.status !== 200) {
    answer.body.destroy();
    throw new EngineError("invalid", `ADD failed: failed to GET ${text} with status ${answer.status}`, {
      code: "download-failed",
    });
  }
  const path = join(directory, `download-${randomBytes(8).toString("hex")}`);
  const hash = createHash("sha256");
  let length = 0;
  const measured = new Transform({
    transform: (chunk: Buffer, _encoding, done) => {
      length += chunk.length;
      hash.update(chunk);
      done(
        length > limits.layerBytesMax
          ? new EngineError("invalid", "ADD failed: the file is too large")
          : null,
        chunk,
      );
    },
  });
  await pipeline(answer.body, measured, createWriteStream(path, { flags: "wx", mode: 0o600 }), { signal });
  const contentHash = hash.digest("hex");
  if (checksum !== "" && checksum !== `sha256:${contentHash}`) {
    throw new EngineError("invalid", `ADD failed: digest mismatch sha256:${contentHash}: ${checksum}`, {
      code: "checksum",
    });
  }
  const modified = Date.parse(String(answer.headers["last-modified"] ?? ""));
  const mtimeNs = Number.isNaN(modified) ? 0n : BigInt(modified) * 1_000_000n;
  return { name, path, mode: 0o600, mtimeNs: String(mtimeNs), contentHash };
}

function urlOf(text: string): URL {
  try {
    const url = new URL(text);
    if (url.protocol === "http:" || url.protocol === "https:") return url;
  } catch {
    // Told below.
  }
  throw new EngineError("invalid", `invalid URL ${JSON.stringify(text)}`, { code: "copy" });
}
