import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  type BuildContext,
  bigContext,
  buildImage,
  type ContextRecipe,
  manyFilesContext,
  stepsContext,
  withContext,
} from "./build-context.ts";
import { prepare } from "./client.ts";
import { assertSame, fingerprintOfFiles } from "./fingerprint.ts";
import { type Figures, interleave } from "./measure.ts";
import type { BenchSide } from "./sides.ts";

type RowFigures = Map<string, ReadonlyMap<string, Figures>>;
const name = "bench-build:latest";

/** 5,000 files, none of them changed: everything is in the cache, and the image is the one that was there. */
export async function buildNoop(sides: readonly BenchSide[], rounds: number): Promise<RowFigures> {
  prepare(sides);
  return await withContext(manyFilesContext(5_000), async (context) => {
    const ids = new Map(sides.map((side) => [side.name, buildImage(side, context, name)]));
    const figures = await interleave(sides, rounds, async (side) => {
      const [took, id] = timedBuild(side, context);
      assert.equal(id, ids.get(side.name), side.name);
      return took;
    });
    removeImages(sides);
    return new Map([["build-noop", figures]]);
  });
}

/** 20 steps that run `true`, none from the cache. */
export async function buildSteps(sides: readonly BenchSide[], rounds: number): Promise<RowFigures> {
  prepare(sides);
  return await withContext(stepsContext(20), async (context) => {
    const figures = await interleave(sides, rounds, async (side) => {
      const [took] = timedBuild(side, context, "--no-cache");
      const history = side.cli("history", "-q", name).stdout.trim().split("\n");
      // The base image's one layer, and one entry for each step.
      assert.equal(history.length, 21, side.name);
      return took;
    });
    removeImages(sides);
    return new Map([["build-steps", figures]]);
  });
}

/** COPY of 1 GB (or 300 MB), and of 5,000 files. What lies in the image is the same on every side. */
export async function buildCopy(
  sides: readonly BenchSide[],
  rounds: number,
  full: boolean,
): Promise<RowFigures> {
  prepare(sides);
  const bytes = full ? 1_000_000_000 : 300_000_000;
  return new Map([
    [`build-copy ${bytes / 1e6} MB`, await copyOf(bigContext(bytes), sides, rounds)],
    ["build-copy 5,000 files", await copyOf(manyFilesContext(5_000), sides, rounds)],
  ]);
}

function copyOf(
  recipe: ContextRecipe,
  sides: readonly BenchSide[],
  rounds: number,
): Promise<Map<string, Figures>> {
  return withContext(recipe, async (context) => {
    const seen = new Map<string, string>();
    const figures = await interleave(sides, rounds, async (side, round) => {
      const [took] = timedBuild(side, context, "--no-cache");
      if (round < 0) {
        const looked = side.cli(
          "run",
          "--rm",
          "--network",
          "none",
          name,
          "sh",
          "-c",
          fingerprintOfFiles("files"),
        );
        assert.equal(looked.status, 0, `${side.name}: ${looked.stderr}`);
        seen.set(side.name, looked.stdout);
      }
      removeImages([side]);
      return took;
    });
    assertSame("build-copy", seen);
    return figures;
  });
}

function timedBuild(side: BenchSide, context: BuildContext, ...options: string[]): [number, string] {
  execFileSync("sync");
  const from = performance.now();
  const id = buildImage(side, context, name, ...options);
  return [(performance.now() - from) / 1000, id];
}

function removeImages(sides: readonly BenchSide[]): void {
  for (const side of sides) assert.equal(side.cli("rmi", name).status, 0, side.name);
}
