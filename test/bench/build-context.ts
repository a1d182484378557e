import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { image } from "./client.ts";
import { mixedBytes, smallFiles } from "./made-images.ts";
import type { BenchSide } from "./sides.ts";

/** A build context in a folder of its own. */
export interface BuildContext {
  readonly folder: string;
  /** Lines after FROM, which differs by side. */
  readonly instructions: readonly string[];
  /** Makes the context another one, so that nothing of it is in a cache. */
  change(text: string): void;
}

export interface ContextRecipe {
  readonly instructions: readonly string[];
  fill(files: string): void;
}

/** What a program's image has: 100 MB in forty files, half of which compress well. */
export const programContext: ContextRecipe = {
  instructions: ["COPY files /files"],
  fill: (files) => {
    for (let index = 0; index < 40; index += 1)
      writeFileSync(join(files, `part-${index}`), Buffer.concat([...mixedBytes(index, 2_500_000)]));
  },
};

/** So many files of 20 to 4,000 bytes. */
export const manyFilesContext = (count: number): ContextRecipe => ({
  instructions: ["COPY files /files"],
  fill: (files) => smallFiles(files, count, 1),
});

export const bigContext = (bytes: number): ContextRecipe => ({
  instructions: ["COPY files /files"],
  fill: (files) => {
    for (let index = 0; index < 3; index += 1)
      writeFileSync(join(files, `file-${index}`), Buffer.concat([...mixedBytes(index, bytes / 3)]));
  },
});

export const stepsContext = (steps: number): ContextRecipe => ({
  instructions: Array.from({ length: steps }, () => "RUN true"),
  fill: () => {},
});

export async function withContext<T>(
  recipe: ContextRecipe,
  use: (context: BuildContext) => Promise<T>,
): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "skiff-context-"));
  try {
    mkdirSync(join(folder, "files"));
    recipe.fill(join(folder, "files"));
    const change = (text: string): void => writeFileSync(join(folder, "files", "changed"), text);
    return await use({ folder, instructions: recipe.instructions, change });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Builds with the engine's own client, in the classic way, and returns the image's id. */
export function buildImage(
  side: BenchSide,
  context: BuildContext,
  name: string,
  ...options: string[]
): string {
  const dockerfile = join(context.folder, "Dockerfile");
  writeFileSync(dockerfile, [`FROM ${image(side)}`, ...context.instructions, ""].join("\n"));
  // What RUN steps do is the same with and without a network, but podman's needs one set up for each.
  const engine = side.name === "podman" ? ["--layers"] : [];
  const built = side.cli("build", ...engine, ...options, "-t", name, context.folder);
  assert.equal(built.status, 0, `${side.name}: ${built.stdout}${built.stderr}`);
  const shown = side.cli("image", "inspect", "-f", "{{.Id}}", name);
  assert.equal(shown.status, 0, `${side.name}: ${shown.stderr}`);
  return shown.stdout.trim();
}
