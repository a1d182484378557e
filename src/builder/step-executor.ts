/**
 * What the builder needs of the engine: containers to run steps in, images to begin with, names in the end. The engine
 * implements it; the builder knows no containers.
 */
import type { ImageId } from "#base/digest.ts";
import type { Hold } from "#image/byte-keeper.ts";
import type { Image, ImageLayer } from "#image/image.ts";
import type { LooseFile } from "#snapshot/context-tree.ts";
import type { AppliedLayer } from "#snapshot/snapshotter.ts";
import type { ImageConfig, Platform } from "#wire/oci-image.ts";

export interface StepMount {
  readonly target: string;
  readonly readOnly: boolean;
  /** Absolute host path, or undefined for a tmpfs. */
  readonly source: string | undefined;
  /** Of a tmpfs; 0 without a limit. */
  readonly sizeBytes: number;
}

export interface StepRequest {
  /** The image that the step's container is made from. */
  readonly image: ImageId;
  /** Program and arguments; for a step that runs nothing, what history will say. */
  readonly command: readonly string[];
  readonly env: readonly string[];
  readonly network: "default" | "none" | "host";
  readonly mounts: readonly StepMount[];
}

/** The container of a step. */
export interface StepContainer extends AsyncDisposable {
  readonly id: string;
  /** Runs it to its end. Output comes as it is written. Rejects when it cannot be started, or on abort, when it is killed. */
  run(output: (chunk: Buffer, stream: "stdout" | "stderr") => void, signal: AbortSignal): Promise<number>;
  /** The directory that holds what the step has changed. */
  readonly upperDir: string;
  /** Kept when the step is over: `docker ps -a` shows it. Otherwise disposal removes it. */
  keep(): Promise<void>;
}

export interface BaseRequest {
  readonly reference: string;
  readonly platform: Platform | undefined;
  readonly pull: boolean;
}

export interface NewImage {
  readonly config: ImageConfig;
  /** Layers of the image below, held. */
  readonly below: readonly ImageLayer[];
  readonly added?: ImageLayer;
  /** The added layer, where it is not sealed yet. */
  readonly applied?: AppliedLayer;
  readonly parent: ImageId | undefined;
  readonly hold: Hold;
}

export interface StepExecutor {
  /** A container for a step; with `runs` false it only exists. */
  container(step: StepRequest, runs: boolean): Promise<StepContainer>;
  /** The image of a FROM or `--from`, pulled when it is not here. Held. Throws Docker's errors. */
  base(request: BaseRequest, hold: Hold, signal: AbortSignal): Promise<Image>;
  /** Makes an image durable and known. */
  makeImage(image: NewImage): Promise<Image>;
  /** Downloads for ADD into a file of `directory`. `checksum` "" for none. */
  download(url: string, checksum: string, directory: string, signal: AbortSignal): Promise<LooseFile>;
  /** The directory of a cache mount, locked as its sharing asks until it is disposed of. */
  cacheMount(
    id: string,
    sharing: "shared" | "private" | "locked",
    owner: { readonly mode: number; readonly uid: number; readonly gid: number },
    signal: AbortSignal,
  ): Promise<{ readonly path: string } & AsyncDisposable>;
}
