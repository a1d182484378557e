import { formatTime } from "#base/clock.ts";
import { EngineError, messageOf } from "#base/errors.ts";
import { shortId } from "#base/ids.ts";
import { limits } from "#base/limits.ts";
import type { Hold } from "#image/byte-keeper.ts";
import type { Image, ImageLayer } from "#image/image.ts";
import type { AppliedLayer, DeriveRequest } from "#snapshot/snapshotter.ts";
import { expandWord, type WordOptions } from "#wire/word-expand.ts";
import type { BuildArgs } from "./build-args.ts";
import { type CacheRecord, cacheKey } from "./build-cache.ts";
import type { BuildReport } from "./build-output.ts";
import { type BuildDeps, type BuildRequest, sourceDateNs } from "./build-request.ts";
import type { CacheImages, ImageStep } from "./cache-images.ts";
import { DockerfileError } from "./dockerfile-error.ts";
import type { ArgInstruction, Instruction, Stage } from "./instructions.ts";
import { parseTrigger } from "./parse.ts";
import { changeConfig, envValue, type RunConfig, resolveWorkdir } from "./run-config.ts";
import {
  identityOf,
  imageConfigOf,
  imageIdOf,
  layerOnTop,
  type StageState,
  stackOfState,
  stateOf,
} from "./stage-state.ts";
import { copyStep } from "./step-copy.ts";
import type { StepContainer } from "./step-executor.ts";
import { runStep } from "./step-run.ts";

/** What changes when keys or results of steps do: records of an older builder are misses. */
const cacheVersion = 2;

/** How the step numbers go on, over all stages. */
export interface StepCounter {
  next: number;
  readonly total: number;
}

export interface StageContext {
  readonly deps: BuildDeps;
  readonly request: BuildRequest;
  readonly hold: Hold;
  readonly report: BuildReport;
  readonly signal: AbortSignal;
  /** The finished stage of a name or number, or the image of a reference: for `--from`. */
  readonly fromStage: (name: string) => Promise<Image>;
  readonly cacheImages: CacheImages;
  /** Keeps steps whose data two stages would make at once apart. */
  readonly lockKey: (key: string) => Promise<Disposable>;
}

/** What a step has come to: files, or nothing but a changed config. */
export interface StepResult {
  /** All that the result depends on, besides the state before it. */
  readonly parts: readonly unknown[];
  readonly createdBy: string;
  /** False where `createdBy` does not tell all of `parts`: an image whose history says the same may hold another result. */
  readonly isToldByHistory?: boolean;
  readonly config?: RunConfig;
  readonly author?: string;
  /** Makes the files; undefined for a step without any. Not called on a cache hit. */
  readonly make?: () => Promise<AppliedLayer | undefined>;
}

/** One stage on its way from its base to its last image. */
export class StageBuild {
  readonly context: StageContext;
  readonly stage: Stage;
  readonly args: BuildArgs;
  readonly #steps: StepCounter;
  #cmdSet = false;
  state: StageState;

  constructor(context: StageContext, stage: Stage, args: BuildArgs, base: StageState, steps: StepCounter) {
    this.context = context;
    this.stage = stage;
    this.args = args;
    this.state = base;
    this.#steps = steps;
  }

  say(text: string): void {
    this.context.report({ kind: "stdout", text });
  }

  /** Variables as instructions see them: the environment covers arguments of the same name. */
  get words(): WordOptions {
    const { Env } = this.state.config;
    return {
      escape: this.context.request.dockerfile.directives.escape,
      lookup: (name) => envValue(Env, name) ?? this.args.stage(name),
    };
  }

  expand(text: string): string {
    return expandWord(text, this.words);
  }

  /** FROM and all that follows. Errors in the Dockerfile's text name their line. */
  async run(base: Image | undefined): Promise<Image | undefined> {
    const { request } = this.context;
    this.state = stateOf(base, this.state.platform);
    await this.#triggers(base);
    this.#sayId();
    for (const instruction of this.stage.instructions) {
      this.context.signal.throwIfAborted();
      this.say(`Step ${this.#steps.next}/${this.#steps.total} : ${instruction.original}`);
      this.say("\n");
      this.#steps.next += 1;
      try {
        await this.#dispatch(instruction);
      } catch (error) {
        throw located(error, instruction, request.dockerfile);
      }
      this.#sayId();
    }
    return this.state.image;
  }

  #sayId(): void {
    const { image } = this.state;
    this.say(` ---> ${image === undefined ? "" : shortId(image.id)}\n`);
  }

  async #triggers(base: Image | undefined): Promise<void> {
    const triggers = base?.config.config?.OnBuild ?? [];
    if (triggers.length === 0) return;
    this.say(`# Executing ${triggers.length} build trigger${triggers.length === 1 ? "" : "s"}\n`);
    for (const trigger of triggers) await this.#dispatch(parseTrigger(trigger));
  }

  async #dispatch(instruction: Instruction): Promise<void> {
    switch (instruction.kind) {
      case "run":
        this.#checkDepth();
        return runStep(this, instruction);
      case "copy":
      case "add":
        this.#checkDepth();
        return copyStep(this, instruction);
      case "arg":
        return this.#arg(instruction);
      case "workdir":
        return this.#workdir(instruction.value);
      default: {
        const { config, note, author } = changeConfig(this.state.config, instruction, this.words);
        // An ENTRYPOINT clears the CMD of the base, not one of this stage (Dockerfile reference, "CMD and ENTRYPOINT").
        if (instruction.kind === "cmd") this.#cmdSet = true;
        if (instruction.kind === "entrypoint" && !this.#cmdSet) delete config.Cmd;
        await this.finish({
          parts: ["meta", note, instruction.kind === "entrypoint" && !this.#cmdSet],
          createdBy: nop(note),
          config,
          ...(author === undefined ? {} : { author }),
        });
      }
    }
  }

  /** Before the work of a step that could add a layer: it would come to nothing. */
  #checkDepth(): void {
    if (this.state.layers.length < limits.layersPerImageMax) return;
    throw new EngineError(
      "invalid",
      `max depth exceeded: an image has at most ${limits.layersPerImageMax} layers`,
      {
        code: "too-many-layers",
      },
    );
  }

  async #arg(instruction: ArgInstruction): Promise<void> {
    const notes: string[] = [];
    for (const { name, value } of instruction.args) {
      const fallback = value === undefined ? undefined : this.expand(value);
      this.args.declare(this.expand(name), fallback);
      notes.push(fallback === undefined ? name : `${name}=${fallback}`);
    }
    const note = `ARG ${notes.join(" ")}`;
    await this.finish({ parts: ["meta", note], createdBy: nop(note) });
  }

  async #workdir(value: string): Promise<void> {
    const path = resolveWorkdir(this.state.config.WorkingDir, this.expand(value));
    const config = { ...this.state.config, WorkingDir: path };
    const note = `WORKDIR ${path}`;
    const mtimeNs = sourceDateNs(this.context.request) ?? BigInt(this.context.deps.clock.nowNs());
    await this.finish({
      parts: ["workdir", note],
      createdBy: nop(note),
      config,
      make: async () => {
        await using container = await this.idleContainer(nop(note));
        const layer = await this.derive({ kind: "directory", path, chown: "", mtimeNs: String(mtimeNs) });
        await this.release(container, true);
        return layer;
      },
    });
  }

  /** Takes the step's result from the cache, or makes it; the state is then the next one. */
  async finish(step: StepResult): Promise<void> {
    const { deps, request, lockKey } = this.context;
    const key = cacheKey([cacheVersion, identityOf(this.state), step.parts]);
    const next: StageState = {
      ...this.state,
      config: step.config ?? this.state.config,
      author: step.author ?? this.state.author,
    };
    // Two stages with the same step: the second finds what the first has made.
    using _turn = await lockKey(key);
    const record = request.useCache ? await this.#usable(deps.cache.find(key)) : undefined;
    if (record !== undefined) {
      this.say(" ---> Using cache\n");
      deps.cache.touch(record);
      await this.#adopt(
        next,
        { created: record.created, createdBy: step.createdBy, layer: record.layer },
        undefined,
      );
      return;
    }
    const found =
      request.useCache && step.isToldByHistory !== false ? await this.#fromImages(step) : undefined;
    if (found !== undefined) {
      this.say(" ---> Using cache\n");
      await this.#adopt(next, { ...found, createdBy: step.createdBy }, undefined);
      return;
    }
    const applied = step.make === undefined ? await this.#nothing(step) : await step.make();
    this.context.signal.throwIfAborted();
    const dateNs = sourceDateNs(request);
    const created = dateNs === undefined ? deps.clock.now() : formatTime(dateNs);
    const layer = applied === undefined ? undefined : this.#layerOf(applied);
    await this.#adopt(next, { created, createdBy: step.createdBy, layer }, applied);
    const description = step.createdBy.slice(0, 200);
    await deps.cache.put({
      key,
      created,
      description,
      parents: [],
      ...(layer === undefined ? {} : { layer }),
    });
  }

  #layerOf(applied: AppliedLayer): ImageLayer {
    const { diffId, key, sizeBytes } = applied;
    return layerOnTop(this.state, { diffId, key, sizeBytes });
  }

  async #fromImages({ createdBy }: StepResult): Promise<ImageStep | undefined> {
    return await this.context.cacheImages.find(this.state, createdBy, this.context.hold);
  }

  /** A record whose layer is there, which is then held. */
  async #usable(record: CacheRecord | undefined): Promise<CacheRecord | undefined> {
    if (record?.layer === undefined) return record;
    const { deps, hold } = this.context;
    using _gate = await deps.images.bytes.gate();
    if (!deps.snapshotter.has(record.layer.key)) return undefined;
    hold.layer(record.layer.key);
    return record;
  }

  async #adopt(
    next: StageState,
    step: { readonly created: string; readonly createdBy: string; readonly layer: ImageLayer | undefined },
    applied: AppliedLayer | undefined,
  ): Promise<void> {
    const { deps, hold } = this.context;
    const config = imageConfigOf(next, step);
    const known = deps.images.get(imageIdOf(config));
    const image =
      known !== undefined && known.removed !== true && applied === undefined
        ? known
        : await deps.executor.makeImage({
            config,
            below: next.layers,
            ...(step.layer === undefined ? {} : { added: step.layer }),
            ...(applied === undefined ? {} : { applied }),
            parent: this.state.image?.id,
            hold,
          });
    this.state = {
      ...next,
      image,
      layers: step.layer === undefined ? next.layers : [...next.layers, step.layer],
      history: config.history ?? [],
    };
  }

  /** A step that runs nothing still has a container, as in Docker; not on scratch, where there is nothing to make it of. */
  async #nothing(step: StepResult): Promise<undefined> {
    if (this.state.image === undefined) return undefined;
    await using container = await this.idleContainer(step.createdBy);
    await this.release(container, true);
    return undefined;
  }

  /** Makes and announces the container of a step that runs nothing; none on scratch. */
  async idleContainer(note: string): Promise<StepContainer | undefined> {
    const { image } = this.state;
    if (image === undefined) return undefined;
    const step = {
      image: image.id,
      command: [note],
      env: [],
      secretEnv: [],
      insecure: false,
      network: "default",
      mounts: [],
    } as const;
    const container = await this.context.deps.executor.container(step, false);
    this.say(` ---> Running in ${shortId(container.id)}\n`);
    return container;
  }

  /** Something to make a container of, after FROM scratch. */
  async emptyImage(): Promise<Image> {
    const { deps, hold } = this.context;
    const config = imageConfigOf(this.state, {
      created: formatTime(0n),
      createdBy: nop("FROM scratch"),
      layer: undefined,
    });
    return deps.executor.makeImage({
      config: { ...config, history: [] },
      below: [],
      parent: undefined,
      hold,
    });
  }

  /** After a step: its container goes, or stays where the request says so. */
  async release(container: StepContainer | undefined, succeeded: boolean): Promise<void> {
    if (container === undefined) return;
    const { remove, forceRemove } = this.context.request;
    if (forceRemove || (remove && succeeded))
      this.say(`Removing intermediate container ${shortId(container.id)}\n`);
    else await container.keep();
  }

  async derive(source: DeriveRequest["source"]): Promise<AppliedLayer | undefined> {
    const { deps, request, signal, hold } = this.context;
    const mtimeNsMax = sourceDateNs(request);
    const layer = await deps.snapshotter.derive({
      source,
      stack: stackOfState(this.state),
      belowChain: this.state.layers.at(-1)?.chainId,
      ...(mtimeNsMax === undefined ? {} : { mtimeNsMax }),
      signal,
    });
    if (layer === undefined) return undefined;
    hold.layer(layer.key);
    deps.images.bytes.applied(layer);
    return layer;
  }
}

/** How history tells of a step that runs nothing. */
export function nop(note: string): string {
  return `/bin/sh -c #(nop)  ${note}`;
}

/** An error of the Dockerfile's text gets its place; others are told as they are. */
function located(
  error: unknown,
  instruction: Instruction,
  source: { readonly file: string; readonly lines: readonly string[] },
): unknown {
  const isText = error instanceof EngineError && ["bad-word", "instruction"].includes(error.code);
  return isText ? new DockerfileError(messageOf(error), instruction.position, source, true) : error;
}
