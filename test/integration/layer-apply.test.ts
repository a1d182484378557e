import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { ChunkSink } from "#archive/chunk-sink.ts";
import { TarReader } from "#archive/tar-read.ts";
import { LayerApplier } from "#snapshot/layer-apply.ts";
import { LayerStack } from "#snapshot/layer-stack.ts";
import { type TarItem, tarOf } from "#snapshot/suite.ts";
import { type TreeTarOptions, writeTreeTar } from "#snapshot/tree-tar.ts";
import { openRoot } from "#sys/beneath.ts";
import { closeFd } from "#sys/files.ts";
import { fingerprint } from "./layer-fingerprint.ts";
import { withOverlay } from "./layer-mount.ts";

function withDirectory(run: (directory: string) => void): void {
  const directory = mkdtempSync(join(tmpdir(), "skiff-layer-"));
  try {
    run(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function apply(
  tar: Buffer,
  target: string,
  below?: readonly string[],
): { sizeBytes: number; usedBelow: boolean } {
  mkdirSync(target, { recursive: true });
  using resources = new DisposableStack();
  const rootFd = openRoot(target);
  resources.defer(() => closeFd(rootFd));
  const stack = below === undefined ? undefined : resources.use(new LayerStack(below));
  const applier = resources.use(new LayerApplier(rootFd, stack));
  const reader = new TarReader(applier);
  for (let at = 0; at < tar.length; at += 100_000) reader.push(tar.subarray(at, at + 100_000));
  reader.finish();
  return applier.complete();
}

function pack(directory: string, options: TreeTarOptions = {}): Buffer {
  const chunks: Buffer[] = [];
  const rootFd = openRoot(directory);
  const chunk = Buffer.alloc(100_000);
  const sink = new ChunkSink(
    () => chunk,
    (bytes) => chunks.push(Buffer.from(chunk.subarray(0, bytes))),
  );
  try {
    writeTreeTar(rootFd, sink, options);
  } finally {
    closeFd(rootFd);
  }
  return Buffer.concat(chunks);
}

function shell(script: string, directory: string): void {
  const result = spawnSync("bash", ["-ec", script], { cwd: directory });
  assert.equal(result.status, 0, result.stderr.toString());
}

/** A tree with one of everything. */
const everything = `
mkdir -p t/bin t/dev t/deep/$(printf 'n%.0s' {1..120})/$(printf 'm%.0s' {1..120})
cd t
echo program > bin/su; chown 12:34 bin/su; chmod 6755 bin/su; setcap cap_net_raw+ep bin/su
ln bin/su bin/second; ln -s su bin/link; ln -s /absolute/none bin/dangling; chown -h 5:6 bin/link
mknod dev/null c 1 3; mknod dev/disk b 259 70000; mkfifo dev/fifo; chmod 620 dev/fifo; mknod dev/hard c 5 1
echo a > $'latin-\\xff'; echo b > 'é'; echo c > $'e\\xcc\\x81'; echo d > $'new\\nline'
(cd deep/n*/m*; echo deep > file)
truncate -s 200M sparse; printf end | dd of=sparse bs=1 seek=150000000 conv=notrunc status=none
touch -d '1965-03-01 00:00:00.123456789 UTC' bin/link -h; touch -d '2242-03-01 00:00:00.5 UTC' 'é'
chown 4000000000:3000000000 'é'; chmod 1777 deep; chmod 2700 bin
touch -d '2001-01-01 00:00:00.000000001 UTC' bin dev deep .
`;

test("everything a tree can hold survives pack, GNU tar and apply", () => {
  withDirectory((directory) => {
    shell(everything, directory);
    const expected = fingerprint(join(directory, "t"));
    assert.ok(expected.some((line) => line.includes("security.capability")));
    const gnu = execFileSync(
      "tar",
      ["--format=posix", "--xattrs", "--xattrs-include=*", "-S", "-cf", "-", "-C", join(directory, "t"), "."],
      { maxBuffer: 1 << 26 },
    );
    const size = apply(gnu, join(directory, "from-gnu")).sizeBytes;
    assert.deepEqual(fingerprint(join(directory, "from-gnu")), expected);
    assert.ok(statSync(join(directory, "from-gnu/sparse")).blocks < 1000, "holes stay holes");
    const counted = expected
      .filter((line) => !line.includes(" | = ") && /\| (100000|120000) \|/.test(line))
      .reduce((sum, line) => sum + Number(line.split(" | ")[4]), 0);
    assert.equal(size, counted);
    // GNU tar keeps links of regular files only.
    shell("rm t/sparse; ln t/dev/hard t/dev/hard2; touch -d @7.7 t t/dev", directory);
    rmSync(join(directory, "from-gnu"), { recursive: true });
    const own = pack(join(directory, "t"));
    apply(own, join(directory, "from-own"));
    // Our pack has no entry for the root.
    const noRoot = (lines: string[]): string[] => lines.slice(1);
    const linked = fingerprint(join(directory, "t"));
    assert.deepEqual(noRoot(fingerprint(join(directory, "from-own"))), noRoot(linked));
    assert.ok(pack(join(directory, "from-own")).equals(own), "deterministic");
    mkdirSync(join(directory, "gnu"));
    execFileSync(
      "tar",
      ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", "-", "-C", join(directory, "gnu")],
      { input: own },
    );
    assert.deepEqual(noRoot(fingerprint(join(directory, "gnu"))), noRoot(linked));
  });
});

test("a sub-tree or one file is packed under another name", () => {
  withDirectory((directory) => {
    shell("mkdir -p t/etc/sub; echo 1 > t/etc/sub/f; ln -s /etc t/alias; ln -s sub/f t/etc/l", directory);
    const list = (options: TreeTarOptions): string =>
      execFileSync("tar", ["-tf", "-"], { input: pack(join(directory, "t"), options) }).toString();
    assert.equal(list({ from: "/etc/sub", as: "renamed" }), "renamed/\nrenamed/f\n");
    assert.equal(list({ from: "alias/sub/f" }), "f\n");
    assert.equal(list({ from: "etc/l" }), "l\n");
    assert.equal(list({ from: "etc/." }), "./\n./l\n./sub/\n./sub/f\n");
    assert.throws(() => list({ from: "etc/none" }), { code: "ENOENT" });
    assert.throws(() => list({ from: "etc/sub/f/x" }), { code: "ENOENT" });
  });
});

interface MergeCase {
  readonly name: string;
  readonly lower: readonly TarItem[];
  readonly upper: readonly TarItem[];
  /** Names of the merged tree, `path:content` for files. */
  readonly merged: readonly string[];
}

const lower: readonly TarItem[] = [
  { path: "d/" },
  { path: "d/a", content: "A" },
  { path: "d/b", content: "B" },
  { path: "d/s/" },
  { path: "d/s/x", content: "X" },
  { path: "f", content: "F" },
];

const mergeCases: readonly MergeCase[] = [
  {
    name: "whiteout of a file",
    lower,
    upper: [{ path: "d/" }, { path: "d/.wh.a" }],
    merged: ["d", "d/b:B", "d/s", "d/s/x:X", "f:F"],
  },
  { name: "whiteout of a directory", lower, upper: [{ path: ".wh.d" }], merged: ["f:F"] },
  {
    name: "whiteout with data in it",
    lower,
    upper: [
      { path: ".wh.d", content: "junk" },
      { path: "n", content: "N" },
    ],
    merged: ["f:F", "n:N"],
  },
  {
    name: "opaque before the content",
    lower,
    upper: [{ path: "d/" }, { path: "d/.wh..wh..opq" }, { path: "d/n", content: "N" }],
    merged: ["d", "d/n:N", "f:F"],
  },
  {
    name: "opaque after the content",
    lower,
    upper: [{ path: "d/" }, { path: "d/n", content: "N" }, { path: "d/.wh..wh..opq" }],
    merged: ["d", "d/n:N", "f:F"],
  },
  {
    name: "whiteout, then a new directory of the name",
    lower,
    upper: [{ path: ".wh.d" }, { path: "d/" }, { path: "d/n", content: "N" }],
    merged: ["d", "d/n:N", "f:F"],
  },
  {
    name: "a new directory, then the whiteout of the name",
    lower,
    upper: [{ path: "d/" }, { path: "d/n", content: "N" }, { path: ".wh.d" }],
    merged: ["d", "d/n:N", "f:F"],
  },
  {
    name: "whiteout, then a name in the directory",
    lower,
    upper: [{ path: ".wh.d" }, { path: "d/n", content: "N" }],
    merged: ["d", "d/n:N", "f:F"],
  },
  {
    name: "a file and a whiteout of its name, either way",
    lower,
    upper: [{ path: "f", content: "1" }, { path: ".wh.f" }, { path: ".wh.d" }, { path: "d", content: "2" }],
    merged: ["d:2", "f:1"],
  },
  {
    name: "directory over file, file over directory",
    lower,
    upper: [{ path: "f/" }, { path: "f/n", content: "N" }, { path: "d", content: "D" }],
    merged: ["d:D", "f", "f/n:N"],
  },
  {
    name: "the last entry of a name counts",
    lower: [],
    upper: [
      { path: "x", content: "1" },
      { path: "x/" },
      { path: "x/y", content: "2" },
      { path: "x", link: "z" },
      { path: "x", content: "3" },
    ],
    merged: ["x:3"],
  },
  {
    name: "a directory twice keeps its content",
    lower: [],
    upper: [{ path: "x/" }, { path: "x/y", content: "2" }, { path: "x/", mode: 0o700 }],
    merged: ["x", "x/y:2"],
  },
  {
    name: "names of AUFS are ignored",
    lower,
    upper: [
      { path: ".wh..wh.aufs", content: "x" },
      { path: ".wh..wh.plnk/" },
      { path: ".wh..wh.plnk/1.2", content: "y" },
    ],
    merged: ["d", "d/a:A", "d/b:B", "d/s", "d/s/x:X", "f:F"],
  },
  {
    name: "absolute and dotted names",
    lower: [],
    upper: [
      { path: "/x/" },
      { path: "./x/./y", content: "1" },
      { path: "/x/../x/z", content: "2" },
      { path: "/../up", content: "3" },
    ],
    merged: ["up:3", "x", "x/y:1", "x/z:2"],
  },
  {
    name: "a hardlink into the layer below",
    lower,
    upper: [{ path: "h", type: "link", link: "/d/a" }],
    merged: ["d", "d/a:A", "d/b:B", "d/s", "d/s/x:X", "f:F", "h:A"],
  },
  {
    name: "a hardlink beside a whiteout of its target",
    lower,
    upper: [{ path: "h", type: "link", link: "f" }, { path: ".wh.f" }],
    merged: ["d", "d/a:A", "d/b:B", "d/s", "d/s/x:X", "f:F", "h:F"],
  },
];

function mergedNames(directory: string): string[] {
  const names = readdirSync(directory, { recursive: true, encoding: "utf8" }).sort();
  return names.map((name) => {
    const path = join(directory, name);
    return lstatSync(path).isFile() ? `${name}:${readFileSync(path, "utf8")}` : name;
  });
}

for (const each of mergeCases) {
  test(`merged as the kernel shows it: ${each.name}`, () => {
    withDirectory((directory) => {
      const [bottom, top, mount, again] = ["bottom", "top", "mount", "again"].map((name) =>
        join(directory, name),
      ) as [string, string, string, string];
      apply(tarOf(each.lower), bottom, []);
      apply(tarOf(each.upper), top, [bottom]);
      mkdirSync(mount);
      const show = (upper: string): string[] =>
        withOverlay(mount, `ro,lowerdir=${upper}:${bottom}`, () => mergedNames(mount));
      assert.deepEqual(show(top), each.merged);
      // What the diff writes must mean the same.
      using below = new LayerStack([bottom]);
      apply(pack(top, { below }), again, [bottom]);
      assert.deepEqual(show(again), each.merged);
    });
  });
}

test("attributes of the overlay driver are not taken from an archive", () => {
  withDirectory((directory) => {
    const xattrs = {
      "trusted.overlay.redirect": "/etc",
      "trusted.overlay.metacopy": "",
      "user.kept": "1",
      "trusted.overlay.opaque": "y",
    };
    apply(
      tarOf([
        { path: "d/", xattrs },
        { path: "d/f", content: "x", xattrs },
      ]),
      join(directory, "t"),
    );
    const lines = fingerprint(join(directory, "t"));
    assert.equal(lines.filter((line) => line.includes("overlay")).length, 0);
    assert.equal(lines.filter((line) => line.includes("user.kept=31")).length, 2);
  });
});

test("files of root in directories that give their group away belong to root", () => {
  withDirectory((directory) => {
    const items = [
      { path: "before", content: "1" },
      { path: "d/", mode: 0o2775, gid: 50 },
      { path: "d/f", content: "2" },
      { path: "d/e/" },
      { path: "d/e/f", content: "3" },
      { path: "after", content: "4", uid: 7 },
    ];
    apply(tarOf(items), join(directory, "t"));
    // The tree itself may lie in such a directory.
    const given = join(directory, "g");
    mkdirSync(given);
    shell("chgrp 50 . && chmod g+s .", given);
    apply(tarOf(items), join(given, "t"));
    for (const root of [join(directory, "t"), join(given, "t")]) {
      for (const { path, uid = 0, gid = 0 } of items) {
        const found = lstatSync(join(root, path));
        assert.deepEqual([found.uid, found.gid], [uid, gid], join(root, path));
      }
    }
  });
});

test("layers that need those below say so before they touch anything", () => {
  withDirectory((directory) => {
    for (const items of [
      [{ path: "a/b", content: "1" }],
      [{ path: "a/.wh.b" }],
      [{ path: "h", type: "link", link: "below" }],
    ] as const) {
      assert.throws(() => apply(tarOf(items as readonly TarItem[]), join(directory, "t")), {
        code: "depends-on-below",
      });
    }
    assert.deepEqual(readdirSync(join(directory, "t")), []);
    const result = apply(
      tarOf([{ path: "a/" }, { path: "a/b", content: "12" }, { path: "h", type: "link", link: "a/b" }]),
      join(directory, "t"),
    );
    assert.deepEqual(result, { sizeBytes: 2, usedBelow: false });
  });
});

test("sizes count what is left after replacements", () => {
  withDirectory((directory) => {
    const items: TarItem[] = [
      { path: "a", content: "12345" },
      { path: "b", type: "link", link: "a" },
      { path: "a", content: "1" },
      { path: "l", link: "target" },
      { path: "l", link: "t" },
    ];
    assert.equal(apply(tarOf(items), join(directory, "t")).sizeBytes, 7);
  });
});
