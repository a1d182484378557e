/** What the image use cases work with: made once by `createImageService`. */

import type { Clock } from "#base/clock.ts";
import type { ImageId } from "#base/digest.ts";
import type { Log } from "#base/log.ts";
import type { ContentStore } from "#content/content-store.ts";
import type { Image } from "#image/image.ts";
import type { LocalImageStore } from "#image/image-store.ts";
import type { LayerPacker } from "#image/layer-pack.ts";
import type { LayerPuller } from "#image/layer-pull.ts";
import type { RegistryClient } from "#registry/client.ts";
import type { Snapshotter } from "#snapshot/snapshotter.ts";
import type { JsonMessage } from "#wire/json-message.ts";
import type { EventBus } from "./events.ts";

export interface ImageUser {
  readonly id: string;
  readonly running: boolean;
}

export interface ImageContext {
  readonly images: LocalImageStore;
  readonly content: ContentStore;
  readonly snapshotter: Snapshotter;
  readonly registry: RegistryClient;
  readonly puller: LayerPuller;
  readonly packer: LayerPacker;
  readonly events: EventBus;
  readonly clock: Clock;
  readonly log: Log;
  /** A folder on the data root's file system for archives that must be whole before they are read. */
  readonly temporaryDir: string;
  /** Containers made from an image, running or not. */
  readonly containersUsing: (id: ImageId) => readonly ImageUser[];
  /** Uses that have no container row yet: a create that is under way. */
  readonly leases: Map<ImageId, number>;
  /** Layers of one push on their way at once. */
  uploadsAtOnce: number;
}

/** Takes one line of a progress stream. Never waits. */
export type Report = (message: JsonMessage) => void;

/** An image event with Docker's attributes: the image's labels and the name it was acted on by. */
export function imageEvent(
  ctx: Pick<ImageContext, "events">,
  action: string,
  actorId: string,
  name: string,
  image: Image | undefined,
): void {
  ctx.events.publish("image", action, actorId, { ...image?.config.config?.Labels, name });
}
