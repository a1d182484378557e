import { EngineError } from "#base/errors.ts";
import { KeyedLock, Semaphore } from "#base/lock.ts";
import type { Hold } from "#image/byte-keeper.ts";
import type { Image } from "#image/image.ts";
import { hostPlatform, parsePlatformText } from "#image/platform.ts";
import type { Platform } from "#wire/oci-image.ts";
import { expandWord } from "#wire/word-expand.ts";
import { BuildArgs } from "./build-args.ts";
import { type BuildReport, OrderedOutput } from "./build-output.ts";
import type { BuildDeps, BuildRequest } from "./build-request.ts";
import { CacheImages } from "./cache-images.ts";
import { DockerfileError } from "./dockerfile-error.ts";
import type { Dockerfile, Instruction, Stage } from "./instructions.ts";
import { squashed } from "./squash.ts";
import { StageBuild } from "./stage-build.ts";
import { stateOf } from "./stage-state.ts";

/** Stages at work at once: a step takes a core, and most Dockerfiles have no more that are independent. */
const stagesAtOnce = 4;

/**
 * Builds a Dockerfile: stages that do not need each other at the same time, their output in the Dockerfile's order. Returns
 * the last image. The caller has checked the request. Throws the error of the first stage, in order, that failed.
 */
export async function buildDockerfile(
  deps: BuildDeps,
  request: BuildRequest,
  report: BuildReport,
  signal: AbortSignal,
): Promise<Image> {
  const stages = withLabels(stagesUpTo(request.dockerfile, request.target), request.labels);
  await using hold = deps.images.bytes.hold();
  const work = new StagesWork(
    deps,
    { ...request, dockerfile: { ...request.dockerfile, stages } },
    hold,
    report,
    signal,
  );
  return await work.run();
}

/** The stages that the target is made of: Docker's builder makes all up to it. */
function stagesUpTo({ stages }: Dockerfile, target: string): Stage[] {
  if (target === "") return [...stages];
  const at = stages.findIndex(
    (stage, index) => stage.name === target.toLowerCase() || String(index) === target,
  );
  if (at < 0) {
    throw new EngineError("invalid", `failed to reach build target ${target} in Dockerfile`, {
      code: "no-target",
    });
  }
  return stages.slice(0, at + 1);
}

/** `--label` is a LABEL at the end of the last stage. */
function withLabels(stages: Stage[], labels: Readonly<Record<string, string>>): Stage[] {
  const pairs = Object.entries(labels).sort(([left], [right]) => (left < right ? -1 : 1));
  const last = stages.at(-1);
  if (pairs.length === 0 || last === undefined) return stages;
  const added = pairs.map(
    ([name, value]): Instruction => ({
      kind: "label",
      pairs: [[name, value]],
      literal: true,
      original: `LABEL ${name}=${value}`,
      position: last.position,
    }),
  );
  return [...stages.slice(0, -1), { ...last, instructions: [...last.instructions, ...added] }];
}

function badFrom(name: string, why: string): EngineError {
  return new EngineError("invalid", `invalid from flag value ${name}: ${why}`, { code: "bad-from" });
}

class StagesWork {
  readonly #deps: BuildDeps;
  readonly #request: BuildRequest;
  readonly #hold: Hold;
  readonly #report: BuildReport;
  readonly #signal: AbortSignal;
  readonly #locks = new KeyedLock();
  readonly #slots = new Semaphore(stagesAtOnce);
  readonly #results: Promise<Image | undefined>[] = [];
  readonly #aborts: AbortController[] = [];
  readonly #bases = new Map<string, Promise<Image>>();
  readonly #args: BuildArgs;
  readonly #cacheImages: CacheImages;
  /** What the last stage began with; undefined for scratch. */
  #lastBase: Image | undefined;
  #total = 0;

  constructor(deps: BuildDeps, request: BuildRequest, hold: Hold, report: BuildReport, signal: AbortSignal) {
    this.#deps = deps;
    this.#request = request;
    this.#hold = hold;
    this.#report = report;
    this.#signal = signal;
    this.#cacheImages = new CacheImages(deps, request.cacheFrom);
    const { stages } = request.dockerfile;
    const build = hostPlatform();
    this.#args = new BuildArgs(request.args, {
      build,
      target: request.platform ?? build,
      stage: stages.at(-1)?.name || "default",
    });
  }

  async run(): Promise<Image> {
    const { dockerfile } = this.#request;
    const { stages, globalArgs } = dockerfile;
    this.#total =
      globalArgs.length + stages.reduce((sum, { instructions }) => sum + 1 + instructions.length, 0);
    for (const warning of dockerfile.warnings) this.#report({ kind: "stderr", text: `${warning}\n` });
    this.#globalArgs();
    const output = new OrderedOutput(this.#report, stages.length);
    let next = globalArgs.length + 1;
    for (const [index, stage] of stages.entries()) {
      const abort = new AbortController();
      this.#aborts.push(abort);
      const result = this.#stage(index, stage, next, output);
      // Told when its turn has come.
      result.catch(() => {});
      this.#results.push(result);
      next += 1 + stage.instructions.length;
    }
    return await this.#collect(output);
  }

  /** Waits for every stage, in order; the first that failed ends those behind it. */
  async #collect(output: OrderedOutput): Promise<Image> {
    let last: Image | undefined;
    let failure: { readonly error: unknown } | undefined;
    for (const [index, result] of this.#results.entries()) {
      try {
        last = await result;
        if (failure === undefined) output.end(index);
      } catch (error) {
        failure ??= { error };
        for (const later of this.#aborts.slice(index + 1)) later.abort(error);
      }
    }
    if (failure !== undefined) throw failure.error;
    const unused = this.#args.unused();
    if (unused.length > 0) {
      this.#report({
        kind: "stdout",
        text: `[Warning] One or more build-args [${unused.join(" ")}] were not consumed\n`,
      });
    }
    if (last === undefined) {
      throw new EngineError("invalid", "No image was generated. Is your Dockerfile empty?", {
        code: "empty",
      });
    }
    if (!this.#request.squash) return last;
    const parts = { image: last, base: this.#lastBase, hold: this.#hold };
    const image = await squashed(this.#deps, this.#request, parts, this.#signal);
    this.#report({ kind: "aux", id: image.id });
    return image;
  }

  #globalArgs(): void {
    const { globalArgs, directives } = this.#request.dockerfile;
    for (const [index, instruction] of globalArgs.entries()) {
      this.#report({ kind: "stdout", text: `Step ${index + 1}/${this.#total} : ${instruction.original}` });
      this.#report({ kind: "stdout", text: "\n" });
      for (const { name, value } of instruction.args) {
        const words = { escape: directives.escape, lookup: (wanted: string) => this.#args.global(wanted) };
        this.#args.declareGlobal(name, value === undefined ? undefined : expandWord(value, words));
      }
    }
  }

  async #stage(
    index: number,
    stage: Stage,
    firstStep: number,
    output: OrderedOutput,
  ): Promise<Image | undefined> {
    using _slot = await this.#slots.acquire();
    const abort = this.#aborts[index]!;
    const signal = AbortSignal.any([this.#signal, abort.signal]);
    signal.throwIfAborted();
    const report = output.of(index);
    report({ kind: "stdout", text: `Step ${firstStep}/${this.#total} : ${stage.original}` });
    report({ kind: "stdout", text: "\n" });
    const platform = this.#platformOf(stage);
    const base = await this.#baseOf(index, stage, platform);
    if (index === this.#request.dockerfile.stages.length - 1) this.#lastBase = base;
    const build = new StageBuild(
      {
        deps: this.#deps,
        request: this.#request,
        hold: this.#hold,
        report,
        signal,
        cacheImages: this.#cacheImages,
        fromStage: (name) => this.#from(index, name),
        lockKey: (key) => this.#locks.acquire(key),
      },
      stage,
      this.#args.forStage(),
      stateOf(undefined, platform ?? this.#request.platform ?? hostPlatform()),
      { next: firstStep + 1, total: this.#total },
    );
    const image = await build.run(base);
    if (image !== undefined) report({ kind: "aux", id: image.id });
    return image;
  }

  #expand(stage: Stage, text: string): string {
    const { directives, file, lines } = this.#request.dockerfile;
    try {
      return expandWord(text, { escape: directives.escape, lookup: (name) => this.#args.global(name) });
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
      throw new DockerfileError(error.message, stage.position, { file, lines }, true);
    }
  }

  #platformOf(stage: Stage): Platform | undefined {
    const text = this.#expand(stage, stage.platform);
    return text === "" ? this.#request.platform : parsePlatformText(text);
  }

  async #baseOf(index: number, stage: Stage, platform: Platform | undefined): Promise<Image | undefined> {
    const name = this.#expand(stage, stage.base);
    if (name === "") {
      const { file, lines } = this.#request.dockerfile;
      throw new DockerfileError(`base name (${stage.base}) should not be blank`, stage.position, {
        file,
        lines,
      });
    }
    const other = this.#stageIndex(name, index, false);
    if (other !== undefined) return await this.#results[other];
    if (name === "scratch") return undefined;
    return await this.#image(name, platform);
  }

  /** A stage before this one by name, or by number where numbers count. */
  #stageIndex(name: string, before: number, numbers: boolean): number | undefined {
    const earlier = this.#request.dockerfile.stages.slice(0, before);
    const at = earlier.findLastIndex((stage) => stage.name === name.toLowerCase());
    if (at >= 0) return at;
    return numbers && /^\d{1,5}$/.test(name) && Number(name) < before ? Number(name) : undefined;
  }

  async #from(index: number, name: string): Promise<Image> {
    const other = this.#stageIndex(name, index, true);
    if (other === undefined) {
      if (/^\d+$/.test(name)) throw badFrom(name, "index out of bounds");
      try {
        return await this.#image(name, this.#request.platform);
      } catch (error) {
        throw error instanceof EngineError && error.kind !== "cancelled"
          ? badFrom(name, error.message)
          : error;
      }
    }
    const image = await this.#results[other];
    if (image === undefined) throw badFrom(name, "the stage is empty");
    return image;
  }

  /** One look-up for all stages that name the same image. */
  #image(reference: string, platform: Platform | undefined): Promise<Image> {
    const key = JSON.stringify([reference, platform]);
    const known = this.#bases.get(key);
    if (known !== undefined) return known;
    // Shared by stages: only the end of the whole build stops it.
    const found = this.#deps.executor.base(
      { reference, platform, pull: this.#request.pull },
      this.#hold,
      this.#signal,
    );
    this.#bases.set(key, found);
    return found;
  }
}
