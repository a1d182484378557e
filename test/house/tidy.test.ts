import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { test } from "node:test";

/**
 * The house's rules as data (docs/ARCHITECTURE.md, "Who may import whom"): a folder may import what its row names, a
 * package only the folders listed for it, and every file is reachable from an entry point or a test.
 */
const layers: Readonly<Record<string, string>> = {
  base: "",
  wire: "base",
  archive: "base wire",
  sys: "base",
  state: "base",
  content: "base wire sys state",
  snapshot: "base wire archive sys state content",
  volume: "base wire archive sys state",
  image: "base wire archive state content snapshot",
  registry: "base wire content image",
  "registry-server": "base wire sys state content",
  runtime: "base wire sys state",
  network: "base wire sys state",
  builder: "base wire archive content snapshot image registry",
  engine: "base wire archive state content snapshot volume image registry runtime network builder",
  api: "base wire engine",
  sdk: "base wire",
  cli: "base wire archive sdk",
  daemon:
    "base wire archive sys state content snapshot volume image registry registry-server runtime network builder engine api",
};

/** Imports of types only that cross a row: contracts that name each other's data. Each has a decision record. */
const typeOnly: Readonly<Record<string, string>> = {
  network: "runtime",
  image: "registry",
};

const packages: Readonly<Record<string, string>> = {
  koffi: "sys",
  "node:sqlite": "state",
  undici: "registry",
  bcryptjs: "registry-server",
  jose: "registry-server",
};

const root = resolve(import.meta.dirname, "../..");
const sources = globSync("src/**/*.ts", { cwd: root }).sort();

interface Import {
  readonly from: string;
  readonly specifier: string;
  readonly typeOnly: boolean;
}

function importsOf(file: string): Import[] {
  const text = readFileSync(join(root, file), "utf8");
  const found: Import[] = [];
  const pattern =
    /(?:^|\n)\s*(?:import|export)\s+(type\s+)?(?:[\w*{}\s,$]+\s+from\s+)?"([^"]+)"|import\(\s*"([^"]+)"\s*\)|new URL\(\s*"([^"]+\.ts)"|require\(\s*"([^"]+)"\s*\)/g;
  for (const match of text.matchAll(pattern)) {
    const specifier = match[2] ?? match[3] ?? match[4] ?? match[5];
    if (specifier !== undefined) found.push({ from: file, specifier, typeOnly: match[1] !== undefined });
  }
  return found;
}

function target(entry: Import): string | undefined {
  if (entry.specifier.startsWith("#")) return join("src", entry.specifier.slice(1));
  if (entry.specifier.startsWith("."))
    return relative(root, resolve(root, dirname(entry.from), entry.specifier));
  return undefined;
}

const folderOf = (file: string): string => file.split("/")[1] ?? "";
const isTest = (file: string): boolean => file.endsWith(".test.ts");

test("imports follow the layer table", () => {
  const broken: string[] = [];
  for (const file of sources.filter((name) => !isTest(name))) {
    const from = folderOf(file);
    const allowed = layers[from];
    assert.ok(allowed !== undefined, `src/${from} is not in the layer table`);
    for (const entry of importsOf(file)) {
      const to = target(entry);
      if (to === undefined) continue;
      const folder = folderOf(to);
      if (folder === from) {
        if (entry.specifier.startsWith("#"))
          broken.push(`${file}: write ./ for a file of the same folder: ${entry.specifier}`);
        continue;
      }
      if (!entry.specifier.startsWith("#"))
        broken.push(`${file}: write #folder/file.ts across folders: ${entry.specifier}`);
      if (allowed.split(" ").includes(folder)) continue;
      if (entry.typeOnly && (typeOnly[from] ?? "").split(" ").includes(folder)) continue;
      broken.push(`${file}: ${from} may not import ${folder} (${entry.specifier})`);
    }
  }
  assert.deepEqual(broken, []);
});

test("packages are used where they belong", () => {
  const broken: string[] = [];
  for (const file of sources.filter((name) => !isTest(name))) {
    for (const entry of importsOf(file)) {
      if (
        target(entry) !== undefined ||
        (entry.specifier.startsWith("node:") && packages[entry.specifier] === undefined)
      )
        continue;
      const name = entry.specifier
        .split("/")
        .slice(0, entry.specifier.startsWith("@") ? 2 : 1)
        .join("/");
      if (packages[name] !== folderOf(file))
        broken.push(`${file}: ${entry.specifier} belongs in src/${packages[name] ?? "(nowhere)"}`);
    }
    const text = readFileSync(join(root, file), "utf8");
    const mayReadEnvironment = file === "src/daemon/config.ts" || file === "src/cli/main.ts";
    if (!mayReadEnvironment && /\bprocess\.env\b/.test(text))
      broken.push(`${file}: process.env outside config and main`);
  }
  assert.deepEqual(broken, []);
});

test("no import cycles between files", () => {
  const edges = new Map<string, string[]>();
  for (const file of sources) {
    edges.set(
      file,
      importsOf(file)
        .filter((entry) => !entry.typeOnly)
        .map(target)
        .filter((to): to is string => to !== undefined),
    );
  }
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    if (done.has(file)) return;
    const at = path.indexOf(file);
    assert.equal(at, -1, `cycle: ${[...path.slice(at), file].join(" -> ")}`);
    for (const next of edges.get(file) ?? []) visit(next, [...path, file]);
    done.add(file);
  };
  for (const file of sources) visit(file, []);
});

test("every file is reached from an entry point", () => {
  const entries = ["src/cli/main.ts", "src/daemon/main.ts", "src/daemon/registry-main.ts"];
  const reached = new Set<string>();
  const visit = (file: string): void => {
    if (reached.has(file)) return;
    reached.add(file);
    for (const entry of importsOf(file)) {
      const to = target(entry);
      if (to !== undefined) visit(to);
    }
  };
  for (const entry of entries) visit(entry);
  const dead = sources.filter((file) => !isTest(file) && !reached.has(file) && !file.endsWith("/suite.ts"));
  assert.deepEqual(dead, []);
});

test("files stay short enough to read", () => {
  const long = sources
    .map((file) => ({ file, lines: readFileSync(join(root, file), "utf8").split("\n").length }))
    .filter(({ file, lines }) => !isTest(file) && lines > 480)
    .map(({ file, lines }) => `${file}: ${lines} lines`);
  assert.deepEqual(long, []);
});
