import { globSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { type BuildOptions, build, type Plugin } from "esbuild";

/**
 * Bundles the sources into a few files for the installed form: Node runs no `.ts` below node_modules, and one file
 * starts faster than a hundred. Workers become files of their own beside the bundles; koffi stays a package, since it
 * carries a native addon.
 */
const workerUrl: Plugin = {
  name: "worker-url",
  setup(context) {
    context.onLoad({ filter: /\/src\/.*\.ts$/ }, async ({ path }) => {
      const text = await readFile(path, "utf8");
      const contents = text.replace(
        /new URL\("\.\/([\w-]+)\.ts", import\.meta\.url\)/g,
        'new URL("./$1.mjs", import.meta.url)',
      );
      return { contents, loader: "ts" };
    });
  },
};

/** Writes `skiff.mjs`, `skiffd.mjs`, `skiff-registry.mjs` and one file per worker into `outdir`. */
export async function bundle(root: string, outdir: string): Promise<void> {
  const entries: Record<string, string> = {
    skiff: join(root, "src/cli/main.ts"),
    "skiff-registry": join(root, "src/daemon/registry-main.ts"),
  };
  for (const worker of globSync("src/**/*-worker.ts", { cwd: root }))
    entries[basename(worker, ".ts")] = join(root, worker);
  await build({ ...options(outdir), entryPoints: entries });
  // Names of chunks change with their content: those of an earlier bundle would stay.
  for (const old of globSync("skiffd-*.mjs", { cwd: outdir })) rmSync(join(outdir, old));
  // What the daemon imports when first needed is a file of its own, so that its text costs no memory before.
  const daemon = { skiffd: join(root, "src/daemon/main.ts") };
  await build({
    ...options(outdir),
    entryPoints: daemon,
    splitting: true,
    chunkNames: "skiffd-[name]-[hash]",
  });
}

function options(outdir: string): BuildOptions {
  return {
    outdir,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    platform: "node",
    target: "node26",
    format: "esm",
    sourcemap: false,
    minifySyntax: true,
    // V8 keeps the text: comments are half of it, and one character beyond ASCII doubles it.
    minifyWhitespace: true,
    external: ["koffi"],
    plugins: [workerUrl],
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
    logLevel: "warning",
  };
}

if (import.meta.main) {
  const root = join(import.meta.dirname, "..");
  await bundle(root, join(root, "dist"));
}
