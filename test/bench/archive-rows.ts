import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertSame, fingerprint, fingerprintOfFiles } from "./fingerprint.ts";
import { fiveImage, prepareFive } from "./five-image.ts";
import { type Figures, interleave } from "./measure.ts";
import { fiveLayerLayout } from "./pull-image.ts";
import type { BenchSide } from "./sides.ts";

type RowFigures = Map<string, ReadonlyMap<string, Figures>>;

function ok(side: BenchSide, ...args: string[]): string {
  const done = side.cli(...args);
  assert.equal(done.status, 0, `${side.name}: ${args.join(" ")}: ${done.stderr}`);
  return done.stdout;
}

function timed(action: () => void): number {
  // What was written before must not be flushed on this side's time.
  execFileSync("sync");
  const from = performance.now();
  action();
  return (performance.now() - from) / 1000;
}

async function withFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "skiff-bench-"));
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** An image that is the five-layer one, as a container sees it, or an error. */
function look(side: BenchSide, reference: string, script = fingerprint()): string {
  return ok(side, "run", "--rm", "--network", "none", reference, "sh", "-c", script);
}

/**
 * `save` of the five-layer image to a file, by each engine's client; `load` of one archive, which dockerd made (plain
 * layers), by all; and `load own` of what each engine has saved itself. The config of an archive and the digest of each of
 * its layers are checked, and what a container sees of a loaded image.
 */
export async function saveLoadRow(sides: readonly BenchSide[], rounds: number): Promise<RowFigures> {
  prepareFive(sides);
  return await withFolder(async (folder) => {
    const own = (side: BenchSide): string => join(folder, `${side.name}.tar`);
    const saved = await interleave(sides, rounds, async (side, round) => {
      rmSync(own(side), { force: true });
      const took = timed(() => ok(side, "save", "-o", own(side), fiveImage(side)));
      if (round < 0) checkArchive(side, own(side), folder);
      return took;
    });
    const shared = sides.find(({ name }) => name === "dockerd");
    const load = (archive: (side: BenchSide) => string, label: string): Promise<Map<string, Figures>> =>
      loadFigures(sides, rounds, archive, label);
    const loadedOwn = await load(own, "load own");
    return new Map([
      ["save", saved],
      ...(shared === undefined ? [] : [["load", await load(() => own(shared), "load")] as const]),
      ["load own", loadedOwn],
    ]);
  });
}

async function loadFigures(
  sides: readonly BenchSide[],
  rounds: number,
  archive: (side: BenchSide) => string,
  label: string,
): Promise<Map<string, Figures>> {
  const { id } = fiveLayerLayout();
  const seen = new Map<string, string>();
  const figures = await interleave(sides, rounds, async (side, round) => {
    ok(side, "rmi", id.replace("sha256:", ""), ...(side.name === "podman" ? [] : ["-f"]));
    const took = timed(() => ok(side, "load", "-q", "-i", archive(side)));
    if (round < 0) seen.set(side.name, look(side, id.replace("sha256:", "")));
    return took;
  });
  assertSame(label, seen);
  return figures;
}

function checkArchive(side: BenchSide, archive: string, folder: string): void {
  const out = join(folder, "unpacked");
  mkdirSync(out);
  execFileSync("tar", ["-xf", archive, "-C", out]);
  const list = JSON.parse(readFileSync(join(out, "manifest.json"), "utf8")) as {
    Config: string;
    Layers: string[];
  }[];
  const config = readFileSync(join(out, list[0]!.Config));
  assert.equal(
    `sha256:${createHash("sha256").update(config).digest("hex")}`,
    fiveLayerLayout().id,
    side.name,
  );
  const { rootfs } = JSON.parse(config.toString()) as { rootfs: { diff_ids: string[] } };
  const found = list[0]!.Layers.map((layer) => {
    const plain = 'gzip -dc "$1" 2>/dev/null | sha256sum';
    const isGzip = readFileSync(join(out, layer))
      .subarray(0, 2)
      .equals(Buffer.from([0x1f, 0x8b]));
    const sum = execFileSync("sh", ["-c", isGzip ? plain : 'sha256sum "$1"', "sh", join(out, layer)]);
    return `sha256:${sum.toString().split(" ")[0]}`;
  });
  assert.deepEqual(found, rootfs.diff_ids, side.name);
  rmSync(out, { recursive: true });
}

/** `commit` of a container that has 4,550 new files of 56 MB. */
export async function commitRow(sides: readonly BenchSide[], rounds: number): Promise<RowFigures> {
  prepareFive(sides);
  const change = "cp -a /layer1 /copied && rm -r /layer2/1 && echo changed >/etc/changed";
  const seen = new Map<string, string>();
  for (const side of sides)
    ok(side, "run", "--name", "bench-commit", "--network", "none", fiveImage(side), "sh", "-c", change);
  const figures = await interleave(sides, rounds, async (side, round) => {
    const quiet = side.name === "podman" ? ["-q"] : [];
    const took = timed(() => ok(side, "commit", ...quiet, "bench-commit", "bench-committed"));
    if (round < 0) seen.set(side.name, look(side, "bench-committed", fingerprintOfFiles("copied", "layer2")));
    ok(side, "rmi", "bench-committed");
    return took;
  });
  for (const side of sides) ok(side, "rm", "bench-commit");
  assertSame("commit", seen);
  return new Map([["commit", figures]]);
}

/** `export` of a container of the five-layer image to a file: every file of the archive is the same on every side. */
export async function exportRow(sides: readonly BenchSide[], rounds: number): Promise<RowFigures> {
  prepareFive(sides);
  const seen = new Map<string, string>();
  for (const side of sides)
    ok(side, "create", "--name", "bench-export", "--network", "none", fiveImage(side));
  const figures = await withFolder((folder) =>
    interleave(sides, rounds, async (side, round) => {
      const file = join(folder, "exported.tar");
      rmSync(file, { force: true });
      const took = timed(() => ok(side, "export", "-o", file, "bench-export"));
      if (round < 0) seen.set(side.name, listing(file, folder));
      return took;
    }),
  );
  for (const side of sides) ok(side, "rm", "bench-export");
  assertSame("export", seen);
  return new Map([["export", figures]]);
}

/** All files of an archive below the image's own folders, with their digests, as one line. */
function listing(archive: string, folder: string): string {
  const out = join(folder, "exported");
  mkdirSync(out);
  execFileSync("tar", ["-xpf", archive, "-C", out]);
  const folders = "bin home lib lib64 opt sbin srv usr var layer1 layer2 layer3 layer4".split(" ");
  const script = fingerprint(...folders)
    .replace("cd /\n", `cd "$1"\n`)
    .replaceAll("find /$folder", "find $folder")
    .replaceAll("/tmp/", "$2/");
  const lists = join(folder, "lists");
  mkdirSync(lists);
  const shown = execFileSync("sh", ["-c", script, "sh", out, lists], { encoding: "utf8" });
  rmSync(out, { recursive: true });
  rmSync(lists, { recursive: true });
  return shown;
}
