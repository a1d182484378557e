import { execFileSync } from "node:child_process";
import { createCipheriv } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { debianLayout, tarOf, writeLayout } from "../peers/images.ts";

/** An OCI layout and the id of its image. */
export interface Layout {
  readonly path: string;
  readonly id: string;
}

/** Where layouts stay between runs. */
export function layoutCache(): string {
  return join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "skiff", "images");
}

/** Files and bytes of the four upper layers, such that the whole has 27,000 files and 423 MB, 190 MB compressed. */
const upperLayers = 4;
const filesPerLayer = 4_550;
const filesPerFolder = 40;
const bytesPerLayer = 56_000_000;
/** Of so many files one is random bytes (pictures, archives), the others are cut from the base. */
const randomEach = 4;

/**
 * The image of row pull-5: five layers, a Debian base and four made from it, the same on every machine but for what
 * Debian's packages are by then.
 */
export function fiveLayerLayout(): Layout {
  const path = join(layoutCache(), "five-layers-2");
  if (!existsSync(path)) {
    const base = firstLayer(debianLayout());
    const layers = [base];
    for (let layer = 1; layer <= upperLayers; layer += 1) layers.push(upperLayer(layer, base));
    const temporary = `${path}.${process.pid}`;
    mkdirSync(temporary, { recursive: true });
    writeLayout(temporary, layers, { Cmd: ["true"] });
    renameSync(temporary, path);
  }
  return { path, id: imageIdOf(path) };
}

interface LayoutManifest {
  readonly config: { readonly digest: string };
  readonly layers: readonly { readonly digest: string; readonly size: number }[];
}

/** The only manifest of an OCI layout. */
export function manifestOf(path: string): LayoutManifest {
  const index = JSON.parse(readFileSync(join(path, "index.json"), "utf8")) as {
    manifests: { digest: string }[];
  };
  const digest = index.manifests[0]!.digest;
  return JSON.parse(readFileSync(join(path, "blobs/sha256", digest.slice(7)), "utf8")) as LayoutManifest;
}

export function imageIdOf(path: string): string {
  return manifestOf(path).config.digest;
}

function firstLayer(layout: string): Buffer {
  const blob = join(layout, "blobs/sha256", manifestOf(layout).layers[0]!.digest.slice(7));
  return execFileSync("gzip", ["-dc", blob], { maxBuffer: 2 ** 31 });
}

/** The same numbers from the same seed: a linear congruential generator. */
function numbersFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Sizes as real trees have them: most files of a few kB, most bytes in a few large ones. */
function fileSizes(next: () => number): number[] {
  const weights = Array.from({ length: filesPerLayer }, () => {
    const normal = Math.sqrt(-2 * Math.log(next() + 1e-9)) * Math.cos(2 * Math.PI * next());
    return Math.exp(1.5 * normal);
  });
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => Math.floor((weight * bytesPerLayer) / sum));
}

function upperLayer(layer: number, base: Buffer): Buffer {
  const folder = mkdtempSync(join(tmpdir(), "skiff-layer-"));
  try {
    const next = numbersFrom(layer);
    const random = createCipheriv("aes-128-ctr", Buffer.alloc(16, layer), Buffer.alloc(16));
    for (const [index, size] of fileSizes(next).entries()) {
      const parent = join(folder, `layer${layer}`, String(Math.floor(index / filesPerFolder)));
      if (index % filesPerFolder === 0) mkdirSync(parent, { recursive: true });
      const at = Math.floor(next() * (base.length - size));
      const bytes =
        index % randomEach === 0 ? random.update(Buffer.alloc(size)) : base.subarray(at, at + size);
      writeFileSync(join(parent, `file-${index}`), bytes);
    }
    return tarOf(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What the image is, for whoever reads the figures. */
export function describeLayout(path: string): string {
  const { layers } = manifestOf(path);
  let bytes = 0;
  let entries = 0;
  for (const { digest } of layers) {
    const packed = join(path, "blobs/sha256", digest.slice(7));
    const listed = execFileSync("sh", ["-c", 'gzip -dc "$1" | wc -c', "sh", packed]);
    bytes += Number(listed.toString());
    entries += Number(
      execFileSync("sh", ["-c", 'gzip -dc "$1" | tar -tf - | wc -l', "sh", packed]).toString(),
    );
  }
  const compressed = layers.reduce((sum, { size }) => sum + size, 0);
  const mb = (count: number): string => (count / 1e6).toFixed(0);
  return `${layers.length} layers, ${mb(compressed)} MB compressed, ${mb(bytes)} MB as tar, ${entries} entries`;
}
