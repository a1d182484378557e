import { createCipheriv } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { busyboxRoot, tarOf, writeLayout } from "../peers/images.ts";
import { imageIdOf, type Layout, layoutCache } from "./pull-image.ts";

/** The same bytes for the same seed; half of them are noise, half compress well, as in layers of programs. */
export function* mixedBytes(seed: number, total: number): Generator<Buffer> {
  const chunk = 1_000_000;
  const noise = createCipheriv("aes-128-ctr", Buffer.alloc(16, seed), Buffer.alloc(16));
  const text = Buffer.from("a line of a program that says much the same over and over again\n".repeat(4_000));
  for (let left = total, index = 0; left > 0; left -= chunk, index += 1) {
    const size = Math.min(chunk, left);
    const bytes =
      index % 2 === 0 ? noise.update(Buffer.alloc(size)) : Buffer.alloc(size, text.subarray(index % 60));
    // No two pieces of it are alike.
    if (size >= 4) bytes.writeUInt32LE(index, size - 4);
    yield bytes;
  }
}

function cachedLayout(name: string, layers: (folder: string) => Buffer[]): Layout {
  const path = join(layoutCache(), name);
  if (!existsSync(path)) {
    const folder = mkdtempSync(join(tmpdir(), "skiff-layout-"));
    try {
      const temporary = `${path}.${process.pid}`;
      mkdirSync(temporary, { recursive: true });
      writeLayout(temporary, layers(folder), { Cmd: ["sh"] });
      renameSync(temporary, path);
    } finally {
      rmSync(folder, { recursive: true });
    }
  }
  return { path, id: imageIdOf(path) };
}

/** One layer that holds all: busybox and ten files. */
export function bigLayerLayout(bytes: number): Layout {
  return cachedLayout(`big-layer-${bytes}`, (folder) => {
    busyboxRoot(folder);
    mkdirSync(join(folder, "data"));
    for (let file = 0; file < 10; file += 1) {
      const content = Buffer.concat([...mixedBytes(file, bytes / 10)]);
      writeFileSync(join(folder, "data", `file-${file}`), content);
    }
    return [tarOf(folder)];
  });
}

/** Ten layers of small files. */
export function manyFilesLayout(filesPerLayer: number): Layout {
  return cachedLayout(`many-files-${filesPerLayer}`, (folder) => {
    const tars: Buffer[] = [];
    for (let layer = 0; layer < 10; layer += 1) {
      const root = join(folder, String(layer));
      mkdirSync(root);
      if (layer === 0) busyboxRoot(root);
      smallFiles(join(root, "many", String(layer)), filesPerLayer, layer);
      tars.push(tarOf(root));
    }
    return tars;
  });
}

/** Files of 20 to 4,000 bytes, fifty in a folder. */
export function smallFiles(folder: string, count: number, seed: number): void {
  for (let index = 0; index < count; index += 1) {
    const parent = join(folder, `part-${Math.floor(index / 50)}`);
    if (index % 50 === 0) mkdirSync(parent, { recursive: true });
    const line = `file ${index} of ${seed}\n`;
    writeFileSync(join(parent, `file-${index}.txt`), line.repeat(1 + ((index * 7919) % 200)));
  }
}
