/**
 * What the builder needs of the engine: containers to run steps in, images to begin with, names in the end. The engine
 * implements it; the builder knows no containers.
 */
import type { ImageId } from "#base/digest.ts";
import type { Hold } from "#image/byte-keeper.ts";
import type { Image, ImageLayer } from "#image/image.ts";
import type { LooseFile } from "#snapshot/context-tree.ts";
import type { CopySpec, TreeSource } from "#snapshot/copy-spec.ts";
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
  /** Of secrets: set when it runs, and no part of the container's description. */
  readonly secretEnv: readonly string[];
  readonly network: "default" | "none" | "host";
  /** With all that the daemon may do. */
  readonly insecure: boolean;
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

export interface GitRequest {
  /** `https://host/repository.git#ref:directory`. */
  readonly reference: string;
  /** Beginning of the commit's hash, "" for any. */
  readonly checksum: string;
  readonly keepGitDir: boolean;
  readonly directory: string;
}

export interface GitSource {
  readonly commit: string;
  readonly files: TreeSource;
  /** Holds `.git`. */
  readonly git?: TreeSource;
}

export interface CacheMountRequest {
  readonly id: string;
  readonly sharing: "shared" | "private" | "locked";
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** What a new one begins with: `digest` is of these files, which lie at `/source` of a layer. */
  readonly initial?: { readonly spec: CopySpec; readonly digest: string };
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
  /** Fetches for ADD. */
  git(request: GitRequest, signal: AbortSignal): Promise<GitSource>;
  /** The directory of a cache mount, locked as its sharing asks until it is disposed of. */
  cacheMount(
    request: CacheMountRequest,
    signal: AbortSignal,
  ): Promise<{ readonly path: string } & AsyncDisposable>;
  /** What the client gives to this build alone. */
  readonly secrets: BuildSecrets;
}

/** Secrets and agents of the client. What comes of them is on no disk, in no layer, key, history or log. */
export interface BuildSecrets {
  /** A secret's bytes, undefined where the client has none of that name. Throws when the client cannot give it. */
  secret(id: string, signal: AbortSignal): Promise<Buffer | undefined>;
  /** A socket of the agent of that name, until it is disposed of; undefined where the client has none. */
  agent(id: string, owner: FileOwner): Promise<({ readonly path: string } & AsyncDisposable) | undefined>;
  /** A file of the secret's bytes in memory, until it is disposed of. */
  file(content: Buffer, owner: FileOwner): Promise<{ readonly path: string } & AsyncDisposable>;
}

export interface FileOwner {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}
