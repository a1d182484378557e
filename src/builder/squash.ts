import { formatTime } from "#base/clock.ts";
import type { Hold } from "#image/byte-keeper.ts";
import type { Image } from "#image/image.ts";
import { type BuildDeps, type BuildRequest, sourceDateNs } from "./build-request.ts";
import { layerOnTop, stackOfState, stateOf } from "./stage-state.ts";

/**
 * `--squash`: an image like the built one, with one layer of all that the last stage has added. History keeps every entry,
 * those that are now in one as empty, and ends with what was merged into what (Docker's classic builder).
 */
export async function squashed(
  { executor, snapshotter, images, clock }: BuildDeps,
  request: Pick<BuildRequest, "args">,
  { image, base, hold }: { readonly image: Image; readonly base: Image | undefined; readonly hold: Hold },
  signal: AbortSignal,
): Promise<Image> {
  const below = base?.layers ?? [];
  const added = image.layers.slice(below.length);
  if (added.length === 0) return image;
  const state = stateOf(base, { os: image.config.os, architecture: image.config.architecture });
  const dateNs = sourceDateNs(request);
  const keys = added.map(({ key }) => key);
  const unique = keys.filter((key, index) => keys.lastIndexOf(key) === index);
  const applied = await snapshotter.derive({
    source: { kind: "squash", layers: unique.map((key) => snapshotter.pathOf(key)).reverse() },
    stack: stackOfState(state),
    belowChain: below.at(-1)?.chainId,
    ...(dateNs === undefined ? {} : { mtimeNsMax: dateNs }),
    signal,
  });
  if (applied !== undefined) {
    hold.layer(applied.key);
    images.bytes.applied(applied);
  }
  const { diffId, key, sizeBytes } = applied ?? {};
  const layer =
    diffId === undefined || key === undefined
      ? undefined
      : layerOnTop(state, { diffId, key, sizeBytes: sizeBytes ?? 0 });
  const history = image.config.history ?? [];
  const kept = base?.config.history?.length ?? 0;
  const created = dateNs === undefined ? clock.now() : formatTime(dateNs);
  const config = {
    ...image.config,
    created,
    history: [
      ...history.map((entry, index) => (index < kept ? entry : { ...entry, empty_layer: true })),
      {
        created,
        comment: `merge ${image.id} to ${base?.id ?? ""}`,
        ...(layer === undefined ? { empty_layer: true } : {}),
      },
    ],
    rootfs: {
      type: "layers" as const,
      diff_ids: [...below.map((one) => one.diffId), ...(layer === undefined ? [] : [layer.diffId])],
    },
  };
  return await executor.makeImage({
    config,
    below,
    ...(layer === undefined ? {} : { added: layer }),
    ...(applied === undefined ? {} : { applied }),
    parent: base?.id,
    hold,
  });
}
