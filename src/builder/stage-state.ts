import { chainIds, digestOf, type ImageId } from "#base/digest.ts";
import type { Image, ImageLayer } from "#image/image.ts";
import type { LayerKey } from "#snapshot/snapshotter.ts";
import type { HistoryEntry, ImageConfig, Platform } from "#wire/oci-image.ts";
import type { RunConfig } from "./run-config.ts";

/** An image in the making: what the steps so far have come to. Never changed, only replaced. */
export interface StageState {
  /** Undefined after FROM scratch. */
  readonly image: Image | undefined;
  readonly platform: Platform;
  readonly config: RunConfig;
  readonly layers: readonly ImageLayer[];
  readonly history: readonly HistoryEntry[];
  readonly author: string;
}

/** Docker's default where an image says none. */
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

export function stateOf(image: Image | undefined, platform: Platform): StageState {
  const before = image?.config.config ?? {};
  const { OnBuild: _triggers, ...config } = before;
  const env = before.Env ?? [];
  const hasPath = env.some((entry) => entry.startsWith("PATH="));
  return {
    image,
    platform:
      image === undefined
        ? platform
        : {
            os: image.config.os,
            architecture: image.config.architecture,
            ...(image.config.variant === undefined ? {} : { variant: image.config.variant }),
          },
    config: { ...config, Env: hasPath ? env : [...env, defaultPath] },
    layers: image?.layers ?? [],
    history: image?.config.history ?? [],
    author: image?.config.author ?? "",
  };
}

/** Keys of the layers, bottom first, each once: a layer that occurs twice counts where it lies highest. */
export function stackOfState({ layers }: StageState): LayerKey[] {
  const keys = layers.map(({ key }) => key);
  return keys.filter((key, index) => keys.lastIndexOf(key) === index);
}

/** All of the state that a next step's result can depend on. */
export function identityOf(state: StageState): unknown[] {
  return [state.layers.at(-1)?.chainId ?? "", canonical(state.config), state.platform, state.author];
}

/** An object with its keys in one order. */
export function canonical(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(canonical);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).filter(([, entry]) => entry !== undefined);
  return entries.sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, entry]) => [key, canonical(entry)]);
}

/** One step's outcome as the next image's config. */
export function imageConfigOf(
  state: StageState,
  step: { readonly created: string; readonly createdBy: string; readonly layer: ImageLayer | undefined },
): ImageConfig {
  const { os, architecture, variant } = state.platform;
  const diffIds = state.layers.map(({ diffId }) => diffId);
  const { author } = state;
  const base = state.image?.config;
  return {
    architecture,
    ...(author === "" ? {} : { author }),
    config: state.config,
    created: step.created,
    history: [
      ...state.history,
      {
        created: step.created,
        ...(author === "" ? {} : { author }),
        created_by: step.createdBy,
        ...(step.layer === undefined ? { empty_layer: true } : {}),
      },
    ],
    os,
    ...(base?.["os.version"] === undefined ? {} : { "os.version": base["os.version"] }),
    rootfs: {
      type: "layers",
      diff_ids: step.layer === undefined ? diffIds : [...diffIds, step.layer.diffId],
    },
    ...(variant === undefined || variant === "" ? {} : { variant }),
  };
}

/** The id that an image of this config has. */
export function imageIdOf(config: ImageConfig): ImageId {
  return digestOf(JSON.stringify(config)) as string as ImageId;
}

/** The layer that a step has made, on top of the state's. */
export function layerOnTop(state: StageState, made: Omit<ImageLayer, "chainId">): ImageLayer {
  const chainId = chainIds([...state.layers.map(({ diffId }) => diffId), made.diffId]).at(-1)!;
  return { ...made, chainId };
}
