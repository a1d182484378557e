import { dirname, join } from "node:path";
import { formatTime, zeroTime } from "#base/clock.ts";
import type { ImageId } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import type { Image } from "#image/image.ts";
import { stackOf } from "#image/image.ts";
import type { ImageRunConfig } from "#wire/oci-image.ts";
import type { ImageContext } from "./image-context.ts";
import { createdSeconds } from "./image-list.ts";

/** What `docker image inspect` shows, before it is shaped for an API version. */
export interface ImageDetails {
  readonly id: ImageId;
  readonly tags: readonly string[];
  readonly digests: readonly string[];
  readonly parent: string;
  readonly comment: string;
  /** Undefined where the image does not say. */
  readonly created: string | undefined;
  readonly dockerVersion: string;
  readonly author: string;
  readonly config: ImageRunConfig | null;
  readonly architecture: string;
  readonly variant: string;
  readonly os: string;
  readonly osVersion: string;
  readonly sizeBytes: number;
  readonly driver: string;
  /** Null for an image without layers. */
  readonly driverData: Readonly<Record<string, string>> | null;
  readonly diffIds: readonly string[];
  readonly lastTagTime: string;
}

/** Details of one image. Throws `notFound`. */
export function inspectImage(ctx: ImageContext, name: string): ImageDetails {
  const image = ctx.images.resolve(name);
  const { config } = image;
  const history = config.history ?? [];
  const raw = config as { readonly comment?: unknown; readonly docker_version?: unknown };
  const comment = typeof raw.comment === "string" && raw.comment !== "" ? raw.comment : undefined;
  return {
    id: image.id,
    tags: ctx.images.tagsOf(image.id),
    digests: ctx.images.digestsOf(image.id),
    parent: image.parent ?? "",
    comment: comment ?? history.at(-1)?.comment ?? "",
    created: config.created,
    dockerVersion: typeof raw.docker_version === "string" ? raw.docker_version : "",
    author: config.author ?? "",
    config: config.config ?? null,
    architecture: config.architecture,
    variant: config.variant ?? "",
    os: config.os,
    osVersion: config["os.version"] ?? "",
    sizeBytes: image.sizeBytes,
    driver: ctx.snapshotter.driverName,
    driverData: driverData(ctx, image),
    diffIds: config.rootfs.diff_ids,
    lastTagTime: image.lastTaggedNs === "" ? zeroTime : formatTime(BigInt(image.lastTaggedNs)),
  };
}

/**
 * Where the image's files are: the real directories of its layers. `merged` and `work` are the names overlay would use
 * beside them; an image itself is never mounted.
 */
function driverData(ctx: ImageContext, image: Image): Readonly<Record<string, string>> | null {
  const paths = stackOf(image).map((key) => ctx.snapshotter.pathOf(key));
  const top = paths.pop();
  if (top === undefined) return null;
  const folder = dirname(top);
  return {
    ...(paths.length === 0 ? {} : { LowerDir: paths.reverse().join(":") }),
    MergedDir: join(folder, "merged"),
    UpperDir: top,
    WorkDir: join(folder, "work"),
  };
}

/** One line of `docker history`. */
export interface HistoryLine {
  readonly Comment: string;
  readonly Created: number;
  readonly CreatedBy: string;
  readonly Id: string;
  readonly Size: number;
  readonly Tags: readonly string[] | null;
}

/** The history of an image, newest first. Throws `notFound`, and `system` for a history that is longer than the layers. */
export function imageHistory(ctx: ImageContext, name: string): HistoryLine[] {
  const image = ctx.images.resolve(name);
  let layer = 0;
  const lines = (image.config.history ?? []).map((entry) => {
    let size = 0;
    if (entry.empty_layer !== true) {
      const own = image.layers[layer];
      if (own === undefined) throw new EngineError("system", "too many non-empty layers in History section");
      size = own.sizeBytes;
      layer += 1;
    }
    return {
      Comment: entry.comment ?? "",
      Created: createdSeconds(entry.created),
      CreatedBy: entry.created_by ?? "",
      Size: size,
    };
  });
  let current: Image | undefined = image;
  return lines.reverse().map((line) => {
    const shown = current;
    current = shown?.parent === undefined ? undefined : ctx.images.get(shown.parent);
    const tags = shown === undefined ? [] : ctx.images.tagsOf(shown.id);
    return { ...line, Id: shown?.id ?? "<missing>", Tags: tags.length === 0 ? null : tags };
  });
}
