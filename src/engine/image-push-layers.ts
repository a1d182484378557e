/** The layers of a push: packed where they have to be, and sent, several at a time. */
import { createReadStream } from "node:fs";
import type { Digest } from "#base/digest.ts";
import { shortId } from "#base/ids.ts";
import type { Semaphore } from "#base/lock.ts";
import type { Hold } from "#image/byte-keeper.ts";
import type { Image, ImageLayer } from "#image/image.ts";
import type { PackingFile } from "#image/packing-file.ts";
import type { EarlyUpload, PushBlob, PushOutcome, PushRepository } from "#registry/push-repository.ts";
import type { Descriptor } from "#wire/oci-image.ts";
import type { ImageContext, Report } from "./image-context.ts";
import { type ImageManifest, ociLayerType } from "./image-manifest.ts";

export interface PushJob {
  readonly ctx: ImageContext;
  readonly repository: PushRepository;
  readonly report: Report;
  readonly signal: AbortSignal;
  readonly slots: Semaphore;
  /** Repositories of the registry that have a blob. */
  readonly sources: ReadonlyMap<Digest, string>;
}

/** A layer on its way: what it is called there is known before all of it is there. */
export interface SentLayer {
  readonly described: Promise<Descriptor>;
  readonly sent: Promise<void>;
}

const barIntervalMs = 100;

/** Sends an image's layers, each once, as `kept` names them or as they are packed. The job's signal stops all. */
export function sendLayers(
  job: PushJob,
  image: Image,
  kept: ImageManifest | undefined,
  hold: Hold,
): SentLayer[] {
  // Docker tells them top first.
  for (const { diffId } of image.layers.toReversed()) {
    job.report({ kind: "progress", id: shortId(diffId), action: "Preparing" });
  }
  const known = new Map<string, SentLayer>();
  return image.layers.map((layer, index) => {
    const one =
      known.get(layer.diffId) ?? new LayerPush(job, layer, hold).start(kept?.manifest.layers[index]);
    known.set(layer.diffId, one);
    return one;
  });
}

class LayerPush {
  readonly #job: PushJob;
  readonly #layer: ImageLayer;
  readonly #hold: Hold;
  readonly #id: string;
  #shownAt = 0;

  constructor(job: PushJob, layer: ImageLayer, hold: Hold) {
    this.#job = job;
    this.#layer = layer;
    this.#hold = hold;
    this.#id = shortId(layer.diffId);
  }

  start(kept: Descriptor | undefined): SentLayer {
    const { promise: described, resolve, reject } = Promise.withResolvers<Descriptor>();
    described.catch(() => {});
    const sent = this.#run(kept, resolve);
    sent.catch(reject);
    return { described, sent };
  }

  #tell(action: string): void {
    this.#job.report({ kind: "progress", id: this.#id, action });
  }

  async #run(kept: Descriptor | undefined, describe: (descriptor: Descriptor) => void): Promise<void> {
    const { repository, slots, sources, signal } = this.#job;
    let slot = slots.tryAcquire();
    if (slot === undefined) {
      this.#tell("Waiting");
      slot = await slots.acquire();
    }
    using _slot = slot;
    signal.throwIfAborted();
    await using resources = new AsyncDisposableStack();
    let early: EarlyUpload | undefined;
    // The length that is known by now, as dockerd shows it.
    const plainBytes = this.#layer.diffSizeBytes ?? this.#layer.sizeBytes;
    const onProgress = (bytes: number): void => this.#bar(Math.min(bytes, plainBytes), plainBytes);
    const begin = (file: PackingFile): void => {
      resources.use(file);
      early = repository.sendEarly(() => file.read(), { signal, onProgress });
      const { sent } = early;
      // The file stays open as long as somebody reads it.
      resources.defer(async () => {
        await Promise.allSettled([sent]);
      });
    };
    const descriptor = kept ?? (await this.#packed(begin));
    describe(descriptor);
    const from = sources.get(descriptor.digest);
    const outcome = await repository.blob(this.#blob(descriptor), {
      signal,
      ...(from === undefined ? {} : { mountFrom: [from] }),
      ...(early === undefined ? {} : { early }),
      onProgress: (sent) => this.#bar(sent, descriptor.size),
      onRetry: (seconds) => this.#tell(`Retrying in ${seconds} second${seconds === 1 ? "" : "s"}`),
    });
    this.#tell(textOf(outcome));
  }

  async #packed(onGrowing: (file: PackingFile) => void): Promise<Descriptor> {
    const { ctx, signal } = this.#job;
    const packed = await ctx.packer.pack(this.#layer, this.#hold, signal, onGrowing);
    return { mediaType: ociLayerType(packed.mediaType), digest: packed.digest, size: packed.sizeBytes };
  }

  #blob({ digest, size }: Descriptor): PushBlob {
    const path = this.#job.ctx.content.pathOf(digest);
    return {
      digest,
      sizeBytes: size,
      open: (start) => createReadStream(path, { start, highWaterMark: 256 * 1024 }),
    };
  }

  #bar(current: number, total: number): void {
    const now = performance.now();
    if (now - this.#shownAt < barIntervalMs && current < total) return;
    this.#shownAt = now;
    this.#job.report({ kind: "progress", id: this.#id, action: "Pushing", detail: { current, total } });
  }
}

function textOf(outcome: PushOutcome): string {
  if (outcome.kind === "exists") return "Layer already exists";
  return outcome.kind === "mounted" ? `Mounted from ${outcome.from}` : "Pushed";
}
