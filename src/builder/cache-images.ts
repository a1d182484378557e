import type { Hold } from "#image/byte-keeper.ts";
import type { Image, ImageLayer } from "#image/image.ts";
import type { BuildDeps } from "./build-request.ts";
import { canonical, type StageState } from "./stage-state.ts";

/** A step's result as an image holds it. */
export interface ImageStep {
  readonly created: string;
  readonly layer: ImageLayer | undefined;
}

/**
 * `--cache-from`: images, of which each entry of history counts as a step that was done. A step is found where the image
 * begins with all that the build has come to (layers and history) and goes on with an entry that says what the step would
 * say. The caller of the build has named the images, and so trusts them.
 */
export class CacheImages {
  readonly #deps: BuildDeps;
  readonly #references: readonly string[];

  constructor(deps: BuildDeps, references: readonly string[]) {
    this.#deps = deps;
    this.#references = references;
  }

  /** The result, held. */
  async find(state: StageState, createdBy: string, hold: Hold): Promise<ImageStep | undefined> {
    const { images, snapshotter } = this.#deps;
    for (const reference of this.#references) {
      const image = images.find(reference);
      const step = image === undefined ? undefined : nextStep(image, state, createdBy);
      if (step === undefined) continue;
      using _gate = await images.bytes.gate();
      if (step.layer !== undefined && !snapshotter.has(step.layer.key)) continue;
      if (step.layer !== undefined) hold.layer(step.layer.key);
      return step;
    }
    return undefined;
  }
}

function nextStep(image: Image, state: StageState, createdBy: string): ImageStep | undefined {
  const { history = [], os, architecture } = image.config;
  const entry = history[state.history.length];
  if (entry === undefined || entry.created_by !== createdBy || entry.created === undefined) return undefined;
  if (os !== state.platform.os || architecture !== state.platform.architecture) return undefined;
  const same = (left: unknown, right: unknown): boolean =>
    JSON.stringify(canonical(left)) === JSON.stringify(canonical(right));
  if (!same(history.slice(0, state.history.length), state.history)) return undefined;
  const { layers } = state;
  if (!layers.every(({ diffId }, index) => image.layers[index]?.diffId === diffId)) return undefined;
  const filled = history.slice(0, state.history.length).filter(({ empty_layer }) => empty_layer !== true);
  if (filled.length !== layers.length) return undefined;
  if (entry.empty_layer === true) return { created: entry.created, layer: undefined };
  const layer = image.layers[layers.length];
  return layer === undefined ? undefined : { created: entry.created, layer };
}
