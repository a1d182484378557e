import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { type FileHandle, open, unlink } from "node:fs/promises";
import { join } from "node:path";
import { chainIds, digestOf, type ImageId } from "#base/digest.ts";
import { EngineError, errnoOf, SyscallError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { engineVersion } from "#base/version.ts";
import { GrowingCells } from "#content/growing-cells.ts";
import type { Hold } from "#image/byte-keeper.ts";
import { applyChanges } from "#image/config-changes.ts";
import type { Image } from "#image/image.ts";
import { hostPlatform, parsePlatformText } from "#image/platform.ts";
import { registerError } from "#image/unpack.ts";
import type { AppliedLayer } from "#snapshot/snapshotter.ts";
import type { ImageConfig } from "#wire/oci-image.ts";
import { parseReference, type Reference, withDefaultTag, withTag } from "#wire/reference.ts";
import { type ImageContext, imageEvent, type Report } from "./image-context.ts";

export interface ImportRequest {
  /** `-`: the body; else a URL. */
  readonly source: string;
  readonly body: AsyncIterable<Uint8Array>;
  readonly repository: string;
  readonly tag: string;
  readonly message: string;
  readonly changes: readonly string[];
  readonly platform: string;
}

function targetOf(request: ImportRequest): Reference | undefined {
  if (request.repository === "") return undefined;
  const reference = parseReference(request.repository);
  if (reference.digest !== undefined) {
    throw new EngineError("invalid", "cannot import digest reference", { code: "bad-reference" });
  }
  return request.tag === "" ? withDefaultTag(reference) : withTag(reference, request.tag);
}

/** Makes an image of one layer from a tar archive (plain, gzip or zstd). Reports its id. */
export async function importImage(
  ctx: ImageContext,
  request: ImportRequest,
  report: Report,
  signal: AbortSignal,
): Promise<void> {
  const target = targetOf(request);
  const platform = request.platform === "" ? hostPlatform() : parsePlatformText(request.platform);
  const runConfig = applyChanges({}, request.changes);
  const source = request.source === "-" ? request.body : await download(ctx, request.source, report, signal);
  await using hold = ctx.images.bytes.hold();
  const layer = await unpackStream(ctx, source, hold, signal);
  const message = request.message === "" ? `Imported from ${request.source}` : request.message;
  const created = ctx.clock.now();
  const config: ImageConfig & Record<string, unknown> = {
    architecture: platform.architecture,
    ...(platform.variant === undefined ? {} : { variant: platform.variant }),
    os: platform.os,
    created,
    comment: message,
    docker_version: engineVersion,
    config: runConfig,
    rootfs: { type: "layers", diff_ids: [layer.diffId] },
    history: [{ created, comment: message }],
  };
  const image = await storeImage(ctx, config, layer, hold);
  await ctx.images.put(image, target === undefined ? [] : [{ reference: target }]);
  report({ kind: "status", status: image.id });
  imageEvent(ctx, "import", image.id, image.id, image);
}

async function storeImage(
  ctx: ImageContext,
  config: ImageConfig,
  layer: AppliedLayer,
  hold: Hold,
): Promise<Image> {
  const bytes = Buffer.from(JSON.stringify(config));
  hold.blob(digestOf(bytes));
  const id = (await ctx.content.put(bytes, { durable: false })) as string as ImageId;
  await ctx.content.sync();
  await ctx.snapshotter.seal([layer]);
  const chainId = chainIds([layer.diffId])[0]!;
  return {
    id,
    config,
    layers: [{ diffId: layer.diffId, chainId, key: layer.key, sizeBytes: layer.sizeBytes }],
    lastTaggedNs: String(ctx.clock.nowNs()),
    sizeBytes: layer.sizeBytes,
  };
}

/** Unpacks while the archive still arrives: it goes through a file, since the worker that unpacks reads one. */
async function unpackStream(
  ctx: ImageContext,
  source: AsyncIterable<Uint8Array>,
  hold: Hold,
  signal: AbortSignal,
): Promise<AppliedLayer> {
  mkdirSync(ctx.temporaryDir, { recursive: true, mode: 0o700 });
  const path = join(ctx.temporaryDir, `import-${randomBytes(8).toString("hex")}`);
  const file = await open(path, "wx", 0o600);
  const cells = new GrowingCells(0);
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  try {
    const applying = ctx.snapshotter.apply({
      source: { path, cells: cells.buffer },
      below: async () => [],
      signal: both,
    });
    // A layer that cannot be unpacked ends the reading; a body that breaks off ends the unpacking.
    applying.catch((error: unknown) => stop.abort(registerError(error)));
    let broken: { readonly reason: unknown } | undefined;
    try {
      await spool(source, file, cells, both);
    } catch (error) {
      broken = { reason: stop.signal.aborted ? stop.signal.reason : error };
      cells.settle("failed");
    }
    const [unpacked] = await Promise.allSettled([applying]);
    if (unpacked.status === "fulfilled") {
      hold.layer(unpacked.value.key);
      ctx.images.bytes.applied(unpacked.value);
    }
    if (signal.aborted) throw new EngineError("cancelled", "context canceled", { cause: signal.reason });
    if (broken !== undefined) throw broken.reason;
    if (unpacked.status === "rejected") throw registerError(unpacked.reason);
    return unpacked.value;
  } finally {
    await file.close();
    await unlink(path);
  }
}

async function spool(
  source: AsyncIterable<Uint8Array>,
  file: FileHandle,
  cells: GrowingCells,
  signal: AbortSignal,
): Promise<void> {
  let length = 0;
  for await (const chunk of source) {
    signal.throwIfAborted();
    length += chunk.length;
    if (length > limits.layerBytesMax) throw new EngineError("invalid", "archive is too large");
    try {
      // FileHandle.writeFile goes on until all is written; write may stop short on a full disk.
      await file.writeFile(chunk);
    } catch (error) {
      throw new SyscallError("write", errnoOf(error) ?? "EIO");
    }
    cells.grow(chunk.length);
  }
  cells.settle("complete");
}

async function download(
  ctx: ImageContext,
  text: string,
  report: Report,
  signal: AbortSignal,
): Promise<AsyncIterable<Uint8Array>> {
  let url: URL;
  try {
    url = new URL(/^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`);
  } catch (cause) {
    throw new EngineError("invalid", `invalid import source ${JSON.stringify(text)}`, { cause });
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new EngineError(
      "invalid",
      `unsupported protocol scheme ${JSON.stringify(url.protocol.slice(0, -1))}`,
    );
  }
  report({ kind: "status", status: `Downloading from ${url.origin}${url.pathname}` });
  const answer = await ctx.registry.transport.send({ method: "GET", url, verifyTls: true, signal });
  if (answer.status !== 200) {
    answer.body.destroy();
    throw new EngineError("system", `Got HTTP status code >= 400: ${answer.status}`, {
      code: "download-failed",
    });
  }
  return answer.body;
}
