import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type ContainerId, newContainerId } from "#base/ids.ts";
import { silentLog } from "#base/log.ts";
import { openLayerPools } from "#snapshot/layer-pools.ts";
import { createOverlaySnapshotter } from "#snapshot/overlay.ts";
import type { LayerKey, Snapshotter } from "#snapshot/snapshotter.ts";
import { fingerprint } from "./layer-fingerprint.ts";
import { withOverlay } from "./layer-mount.ts";

function shell(script: string, directory: string): void {
  const result = spawnSync("bash", ["-ec", script], { cwd: directory });
  assert.equal(result.status, 0, result.stderr.toString());
}

/** The image, then what the container does: the list was taken from dockerd 20.10 (`docker diff`, sorted). */
const image = `
mkdir -p bin etc/sub d1/d2/d3 keep opq/sub emptydir; echo bb > bin/busybox; echo a > etc/a; echo b > etc/sub/b
echo c > d1/d2/d3/c; echo k > keep/k; echo o > opq/o; echo p > opq/sub/p; echo f > file; touch -d @1000000000 keep/k`;
const container = `
echo new > etc/new; echo changed > etc/a; rm d1/d2/d3/c; mkdir newdir; echo 1 > newdir/x; mkdir newdir/sub
rm -rf opq; mkdir opq; echo n > opq/n
chmod 700 keep; touch keep/k
rm file; mkdir file; echo y > file/y
rmdir emptydir; echo z > emptydir
ln -s x etc/sub/link; mv etc/sub/b etc/sub/b2
mkdir -p n1/n2/n3; touch n1/n2/n3/f; touch gone; rm gone; mkdir gone2; rmdir gone2; ln bin/busybox hard`;
const expected = [
  "C /d1",
  "C /d1/d2",
  "C /d1/d2/d3",
  "D /d1/d2/d3/c",
  "C /emptydir",
  "C /etc",
  "C /etc/a",
  "A /etc/new",
  "C /etc/sub",
  "D /etc/sub/b",
  "A /etc/sub/b2",
  "A /etc/sub/link",
  "C /file",
  "A /file/y",
  "A /hard",
  "C /keep",
  "C /keep/k",
  "A /n1",
  "A /n1/n2",
  "A /n1/n2/n3",
  "A /n1/n2/n3/f",
  "A /newdir",
  "A /newdir/sub",
  "A /newdir/x",
  "C /opq",
  "A /opq/n",
  "D /opq/o",
  "D /opq/sub",
];

interface Scene {
  readonly base: string;
  readonly snapshotter: Snapshotter;
  layer(script: string): Promise<LayerKey>;
  changesOf(id: ContainerId, stack: readonly LayerKey[]): Promise<string[]>;
  /** Runs a script in the mounted root of a container. */
  inside(id: ContainerId, stack: readonly LayerKey[], script: string): void;
  show(stack: readonly LayerKey[], upper?: string): string[];
}

async function withScene(run: (scene: Scene) => Promise<void>): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), "skiff-changes-"));
  await using pools = openLayerPools();
  const snapshotter = await createOverlaySnapshotter({
    root: join(base, "overlay2"),
    log: silentLog,
    pools,
  });
  const mount = join(base, "mount");
  mkdirSync(mount);
  const lowerOf = (stack: readonly LayerKey[]): string =>
    stack
      .map((key) => snapshotter.pathOf(key))
      .reverse()
      .join(":");
  const scene: Scene = {
    base,
    snapshotter,
    layer: async (script) => {
      const tree = join(base, "tree");
      mkdirSync(tree);
      shell(script, tree);
      const path = join(base, "layer.tar");
      shell(`tar --format=posix -cf ${path} -C ${tree} .`, base);
      rmSync(tree, { recursive: true });
      const layer = await snapshotter.apply({ source: { path }, below: async () => [] });
      await snapshotter.seal([layer]);
      return layer.key;
    },
    changesOf: async (id, stack) =>
      (await snapshotter.changes(id, stack)).map(({ kind, path }) => `${"CAD"[kind]} ${path}`),
    inside: (id, stack, script) => {
      const { upperDir, workDir } = snapshotter.writableOf(id);
      withOverlay(mount, `lowerdir=${lowerOf(stack)},upperdir=${upperDir},workdir=${workDir}`, () =>
        shell(script, mount),
      );
    },
    show: (stack) =>
      withOverlay(mount, `lowerdir=${join(base, "empty")}:${lowerOf(stack)}`, () =>
        fingerprint(mount).slice(1),
      ),
  };
  mkdirSync(join(base, "empty"));
  try {
    await run(scene);
  } finally {
    await pools[Symbol.asyncDispose]();
    rmSync(base, { recursive: true });
  }
}

test("changes are listed as docker diff lists them", async () => {
  await withScene(async (scene) => {
    const stack = [await scene.layer(image), await scene.layer("mkdir other; echo 1 > other/x")];
    const id = newContainerId();
    await scene.snapshotter.createWritable(id);
    assert.deepEqual(await scene.changesOf(id, stack), []);
    scene.inside(id, stack, container);
    assert.deepEqual(await scene.changesOf(id, stack), expected);
  });
});

test("a committed layer shows the same tree, and packs to the same bytes twice", async () => {
  await withScene(async (scene) => {
    const stack = [await scene.layer(image)];
    const id = newContainerId();
    const { upperDir, workDir } = await scene.snapshotter.createWritable(id);
    scene.inside(id, stack, container);
    const pack = async (): Promise<Buffer> =>
      Buffer.concat((await scene.snapshotter.diffTar(id, stack).toArray()) as Buffer[]);
    const tar = await pack();
    assert.ok(tar.equals(await pack()));
    const path = join(scene.base, "commit.tar");
    writeFileSync(path, tar);
    const layer = await scene.snapshotter.apply({ source: { path }, below: async () => stack });
    assert.equal(layer.key.startsWith("c-"), false, "a diff has all its parents");
    const committed = scene.show([...stack, layer.key]);
    const mount = join(scene.base, "mount");
    const lowerdir = scene.snapshotter.pathOf(stack[0] as LayerKey);
    const options = `lowerdir=${lowerdir},upperdir=${upperDir},workdir=${workDir}`;
    const live = withOverlay(mount, options, () => fingerprint(mount).slice(1));
    assert.deepEqual(committed, live);
  });
});

test("mount points that a start makes are neither changes nor committed, unless used", async () => {
  await withScene(async (scene) => {
    const stack = [await scene.layer("echo 1 > x")];
    const id = newContainerId();
    await scene.snapshotter.createWritable(id);
    scene.inside(
      id,
      stack,
      "mkdir -p dev/pts dev/shm proc sys etc; touch etc/hosts etc/hostname etc/resolv.conf dev/console",
    );
    assert.deepEqual(await scene.changesOf(id, stack), []);
    const names = async (): Promise<string> => {
      const tar = Buffer.concat((await scene.snapshotter.diffTar(id, stack).toArray()) as Buffer[]);
      return spawnSync("tar", ["-tf", "-"], { input: tar }).stdout.toString();
    };
    assert.equal(await names(), "");
    scene.inside(id, stack, "echo mine > etc/mine; echo 127.0.0.1 > etc/hosts");
    assert.deepEqual(await scene.changesOf(id, stack), ["C /etc", "A /etc/hosts", "A /etc/mine"]);
    assert.equal(await names(), "etc/\netc/hosts\netc/mine\n");
  });
});

test("a stalled reader of a tar stream holds up nothing else, and its thread stops when it leaves", async () => {
  await withScene(async (scene) => {
    const stack = [await scene.layer("echo 1 > x")];
    const id = newContainerId();
    const { upperDir } = await scene.snapshotter.createWritable(id);
    shell("head -c 20000000 /dev/urandom > big", upperDir);
    const stalled = Array.from({ length: 4 }, () => scene.snapshotter.diffTar(id, stack));
    for (const stream of stalled)
      await new Promise<void>((resolve) => stream.once("readable", () => resolve()));
    assert.equal(await scene.snapshotter.writableUsage(id), 20_000_000);
    for (const stream of stalled) stream.destroy();
    const [whole] = [await scene.snapshotter.diffTar(id, stack).toArray()];
    assert.ok((whole as Buffer[]).reduce((sum, chunk) => sum + chunk.length, 0) > 20_000_000);
    assert.ok(existsSync(upperDir));
  });
});
