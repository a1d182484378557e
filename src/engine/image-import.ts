import { EngineError } from "#base/errors.ts";
import { engineVersion } from "#base/version.ts";
import { applyChanges } from "#image/config-changes.ts";
import { hostPlatform, parsePlatformText } from "#image/platform.ts";
import type { ImageConfig } from "#wire/oci-image.ts";
import { parseReference, type Reference, withDefaultTag, withTag } from "#wire/reference.ts";
import { type ImageContext, imageEvent, type Report } from "./image-context.ts";
import { makeImage } from "./image-make.ts";
import { importLayer } from "./layer-import.ts";

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

/** Makes an image of one layer from a tar archive (plain or compressed). Reports its id. */
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
  const layer = await importLayer(ctx, source, hold, signal);
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
    rootfs: { type: "layers", diff_ids: [layer.applied.diffId] },
    history: [{ created, comment: message }],
  };
  const image = await makeImage(ctx, { config, below: [], added: layer, hold });
  await ctx.images.put(image, target === undefined ? [] : [{ reference: target }]);
  report({ kind: "status", status: image.id });
  imageEvent(ctx, "import", image.id, image.id, image);
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
