import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmdirSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, delimiter, dirname, join } from "node:path";
import { test } from "node:test";
import { createGunzip, createZstdDecompress, gzipSync } from "node:zlib";
import fc from "fast-check";
import type { TarEntry } from "#archive/tar-format.ts";
import { TarReader } from "#archive/tar-read.ts";
import type { ByteString } from "#base/byte-string.ts";
import { silentLog } from "#base/log.ts";
import { DirectoryFinish } from "#snapshot/directory-finish.ts";
import { openLayerPools } from "#snapshot/layer-pools.ts";
import { createOverlaySnapshotter } from "#snapshot/overlay.ts";
import { removeTreeAt } from "#snapshot/remove-tree.ts";
import type { Snapshotter } from "#snapshot/snapshotter.ts";
import { tarOf } from "#snapshot/suite.ts";
import { openRoot } from "#sys/beneath.ts";
import { closeFd } from "#sys/files.ts";
import { base256, bomb, endOfArchive, extended, forged, header, pax } from "./hostile-bytes.ts";
import { applyOurs, Scene } from "./hostile-scene.ts";

/** SECURITY.md §1.3 and 1.4: archives that claim, expand or nest without measure. */
const TiB = 2n ** 40n;
const abortMsMax = 5000;
const rssBytesMax = 256 * 1024 * 1024;

function removeDeep(path: string): void {
  const fd = openRoot(dirname(path));
  removeTreeAt(fd, basename(path) as ByteString);
  closeFd(fd);
}

async function withSnapshotter(
  run: (apply: (bytes: Buffer) => Promise<unknown>, root: string, snapshotter: Snapshotter) => Promise<void>,
): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), "skiff-hostile-"));
  const root = join(base, "overlay2");
  await using pools = openLayerPools({ work: { size: 1 } });
  const snapshotter = await createOverlaySnapshotter({ root, log: silentLog, pools });
  try {
    await run(
      async (bytes) => {
        const path = join(base, "blob");
        writeFileSync(path, bytes);
        return await snapshotter.apply({ source: { path }, below: async () => [] });
      },
      root,
      snapshotter,
    );
  } finally {
    await pools[Symbol.asyncDispose]();
    removeDeep(base);
  }
}

/** Nothing of a failed layer is on the disk. */
function leftovers(root: string): string[] {
  return readdirSync(root, { recursive: true, encoding: "utf8" }).filter(
    (name) => name !== "tmp" && name !== "trash",
  );
}

/** CPU time of all threads: what the attack costs, however busy the machine is. */
function cpuMsSince(start: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1000;
}

/** Refused within the time, in bounded memory, with nothing left, and the next layer goes in. */
async function refuses(bytes: Buffer, code: string): Promise<void> {
  await withSnapshotter(async (apply, root) => {
    const before = process.memoryUsage().rss;
    const started = process.cpuUsage();
    await assert.rejects(apply(bytes), { code });
    assert.ok(cpuMsSince(started) < abortMsMax, `took ${cpuMsSince(started)} ms of CPU time`);
    const grown = process.memoryUsage().rss - before;
    assert.ok(grown < rssBytesMax, `memory grew by ${grown}`);
    assert.deepEqual(leftovers(root), []);
    await apply(tarOf([{ path: "next", content: "1" }]));
  });
}

/** What a reader that believes the header would be made to do. */
function claimedSize(bytes: Buffer): number {
  const block = bytes.subarray(0, 512);
  return block[124] === 0x80
    ? Number(block.readBigUInt64BE(128))
    : Number.parseInt(block.toString("latin1", 124, 135), 8);
}

test("a claim of 10 TB: a naive reader reserves the file, ours refuses", async () => {
  const claim = forged("0", (block) => base256(block, 124, 10n * TiB));
  const directory = mkdtempSync(join(tmpdir(), "skiff-naive-"));
  const fd = openSync(join(directory, "x"), "w");
  ftruncateSync(fd, claimedSize(claim));
  assert.equal(statSync(join(directory, "x")).size, Number(10n * TiB));
  closeSync(fd);
  rmSync(directory, { recursive: true });
  await refuses(Buffer.concat([claim, Buffer.alloc(4096)]), "archive-limit");
  await refuses(
    Buffer.concat([pax({ size: String(10n * TiB) }), forged("0"), Buffer.alloc(4096)]),
    "archive-limit",
  );
});

const sparseTeras: readonly [string, Buffer][] = [
  [
    "GNU old",
    Buffer.concat([
      forged("S", (block) => {
        base256(block, 386, TiB - 512n);
        block.write("00000001000", 398, "latin1");
        base256(block, 483, TiB);
        block.write("00000001000", 124, "latin1");
      }),
      Buffer.alloc(512, 1),
      endOfArchive,
    ]),
  ],
  [
    "PAX 0.1",
    Buffer.concat([
      pax({ "GNU.sparse.map": `${TiB - 1n},1`, "GNU.sparse.size": String(TiB), "GNU.sparse.name": "x" }),
      header({ sizeBytes: 1 }),
      Buffer.alloc(512, 1),
      endOfArchive,
    ]),
  ],
  [
    "PAX 1.0",
    Buffer.concat([
      pax({
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "x",
        "GNU.sparse.realsize": String(TiB),
      }),
      header({ sizeBytes: 513 }),
      Buffer.from(`1\n${TiB - 1n}\n1\n`.padEnd(512, "\0")),
      Buffer.alloc(512, 1),
      endOfArchive,
    ]),
  ],
];

for (const [form, bytes] of sparseTeras) {
  test(`a sparse map of 2^40 bytes (${form}): the naive way writes the holes, ours refuses`, async () => {
    // A reader without holes writes zeros up to the offset; it is stopped here after 64 MiB.
    let written = 0;
    const offset = Number(TiB - 512n);
    while (written < offset && written < 64 * 1024 * 1024) written += 1 << 20;
    assert.equal(written, 64 * 1024 * 1024);
    await refuses(bytes, "archive-limit");
  });
}

test("a large sparse file within the limit takes no space", async () => {
  await withSnapshotter(async (apply, root) => {
    const size = 2n ** 38n;
    await apply(
      Buffer.concat([
        pax({ "GNU.sparse.map": `${size - 1n},1`, "GNU.sparse.size": String(size), "GNU.sparse.name": "x" }),
        header({ sizeBytes: 1 }),
        Buffer.alloc(512, 1),
        endOfArchive,
      ]),
    );
    const name = leftovers(root).find((path) => path.endsWith("diff/x"));
    const stat = statSync(join(root, name ?? "missing"));
    assert.deepEqual([stat.size, stat.blocks < 64], [Number(size), true]);
  });
});

const maps: readonly [string, Buffer][] = [
  ["overlapping", pax({ "GNU.sparse.map": "0,5,3,5", "GNU.sparse.size": "10" })],
  ["beyond the end", pax({ "GNU.sparse.map": "8,5", "GNU.sparse.size": "10" })],
  ["more than the data", pax({ "GNU.sparse.map": "0,500", "GNU.sparse.size": "1000" })],
  ["half a pair", pax({ "GNU.sparse.map": "0", "GNU.sparse.size": "1000" })],
  ["not numbers", pax({ "GNU.sparse.map": "0,x", "GNU.sparse.size": "1000" })],
];

for (const [what, bytes] of maps) {
  test(`a sparse map that is ${what} is refused`, async () => {
    await refuses(
      Buffer.concat([bytes, header({ sizeBytes: 5 }), Buffer.alloc(512, 1), endOfArchive]),
      "bad-archive",
    );
  });
}

test("a sparse map without end stays within its bound", async () => {
  const start = Buffer.concat([
    pax({ "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1000" }),
    header({ sizeBytes: 2 ** 33 - 1 }),
  ]);
  const lines = Buffer.from("1000000\n".repeat((4 * 1024 * 1024) / 8));
  await refuses(Buffer.concat([start, lines]), "bad-archive");
  const extensions = Array.from({ length: 4000 }, (_, index) => {
    const block = Buffer.alloc(512);
    for (let at = 0; at < 21; at += 1) {
      block.write((index * 21 + at).toString(8).padStart(11, "0"), at * 24, "latin1");
      block.write("00000000001", at * 24 + 12, "latin1");
    }
    block[504] = 1;
    return block;
  });
  const old = forged("S", (block) => {
    block.write("00000001000", 124, "latin1");
    block.write("77777777777", 483, "latin1");
    block[482] = 1;
  });
  await refuses(Buffer.concat([old, ...extensions]), "bad-archive");
});

/** Entries for ever: a piece of archive that is pushed again and again. */
function pushMany(reader: TarReader, piece: Buffer, times: number): void {
  for (let index = 0; index < times; index += 1) reader.push(piece);
}

test("a million entries: a naive reader keeps them all, ours keeps none and counts", () => {
  const piece = Buffer.concat(
    Array.from({ length: 1000 }, (_, index) =>
      header({ path: `dir/${"n".repeat(80)}${index}` as ByteString }),
    ),
  );
  const kept: TarEntry[] = [];
  const naive = new TarReader({ entry: (entry) => kept.push(entry), data: () => {}, end: () => {} });
  const before = process.memoryUsage().heapUsed;
  pushMany(naive, piece, 200);
  const naiveBytes = (process.memoryUsage().heapUsed - before) * 5;
  assert.ok(naiveBytes > 100_000_000, `naive: ${naiveBytes} bytes for a million`);
  kept.length = 0;
  let seen = 0;
  const ours = new TarReader({ entry: () => (seen += 1), data: () => {}, end: () => {} });
  const started = process.cpuUsage();
  pushMany(ours, piece, 1000);
  assert.equal(seen, 1_000_000);
  assert.ok(cpuMsSince(started) < abortMsMax * 2);
  const bounded = new TarReader({ entry: () => {}, data: () => {}, end: () => {} }, 1000);
  assert.throws(() => pushMany(bounded, piece, 4), { code: "archive-limit" });
  const headersOnly = new TarReader({ entry: () => {}, data: () => {}, end: () => {} }, 1000);
  assert.throws(() => pushMany(headersOnly, pax({ path: "again" }), 3001), { code: "archive-limit" });
});

test("a million directories with long names do not fill the memory", () => {
  const finish = new DirectoryFinish();
  assert.throws(
    () => {
      for (let index = 0; index < 1_000_000; index += 1) {
        finish.set(`${"d".repeat(400)}${index}` as ByteString, { mtimeNs: 0n });
      }
    },
    { code: "archive-limit" },
  );
});

test("global headers that pile up are bounded", () => {
  const reader = new TarReader({ entry: () => {}, data: () => {}, end: () => {} });
  assert.throws(
    () => {
      for (let index = 0; index < 1000; index += 1) {
        reader.push(pax({ [`SCHILY.xattr.user.${index}`]: "v".repeat(60_000) }, "g"));
      }
    },
    { code: "bad-archive" },
  );
});

test("extended headers larger than their bound are refused before they are read", async () => {
  for (const flag of ["x", "g", "L", "K"]) {
    const huge = forged(flag, (block) => block.write("77777777777", 124, "latin1"));
    await refuses(Buffer.concat([huge, Buffer.alloc(4096, 97)]), "bad-archive");
  }
});

test("a path 100,000 levels deep is refused", async () => {
  const path = `${"d/".repeat(100_000)}f`;
  // Naive: it makes directory after directory by descriptor, or fails with the system's words half way.
  assert.throws(() => mkdirSync(join(tmpdir(), path), { recursive: true }), { code: "ENAMETOOLONG" });
  await refuses(Buffer.concat([pax({ path }), header(), endOfArchive]), "archive-limit");
  await refuses(
    Buffer.concat([extended("L", Buffer.from(`${path}\0`)), header(), endOfArchive]),
    "archive-limit",
  );
});

/** Directories nested by way of symlinks: each entry is short, the tree is thousands of levels deep. */
function nested(levels: number): Buffer {
  const steps = Array.from({ length: levels }, (_, index) => {
    const from = index === 0 ? "" : `s${index - 1}/`;
    return [
      { path: `${from}${"n/".repeat(240)}` },
      { path: `s${index}`, link: `${from}${"n/".repeat(240)}` },
    ];
  });
  return tarOf(steps.flat());
}

function removeNaively(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) removeNaively(join(path, entry.name));
    else unlinkSync(join(path, entry.name));
  }
  rmdirSync(path);
}

test("a tree nested by symlinks beyond PATH_MAX: a naive removal fails, ours leaves nothing", async () => {
  {
    using scene = new Scene();
    assert.equal(applyOurs(scene, { parts: [nested(20)] }), undefined);
    assert.throws(() => removeNaively(scene.root), { code: "ENAMETOOLONG" });
  }
  await withSnapshotter(async (apply, root) => {
    const whole = nested(20);
    await assert.rejects(apply(Buffer.concat([whole.subarray(0, -1024), forged("?"), endOfArchive])), {
      code: "bad-archive",
    });
    assert.deepEqual(leftovers(root), []);
  });
});

const bombBytes = 1300 * 1024 ** 2;
const naiveBytes = 300 * 1024 ** 2;

for (const kind of ["gzip", "zstd"] as const) {
  test(`a ${kind} bomb: the naive reader expands it all, ours stops`, async () => {
    const head = header({ sizeBytes: bombBytes });
    const bytes = await bomb(kind, head, bombBytes);
    assert.ok(bombBytes / bytes.length > 1000, `ratio ${bombBytes / bytes.length}`);
    // The naive reader is watched until its memory would be full of a blob of a megabyte.
    let expanded = 0;
    const stream = kind === "gzip" ? createGunzip() : createZstdDecompress();
    await new Promise<void>((resolve, reject) => {
      stream.on("data", (chunk: Buffer) => {
        expanded += chunk.length;
        if (expanded > naiveBytes) {
          stream.destroy();
          resolve();
        }
      });
      stream.once("error", reject);
      stream.end(bytes);
    });
    assert.ok(expanded > naiveBytes);
    await refuses(bytes, "archive-limit");
  });
}

test("a file of zeros that is no bomb goes in, and takes no space", async () => {
  await withSnapshotter(async (apply, root) => {
    const size = 200 * 1024 * 1024;
    await apply(
      gzipSync(Buffer.concat([header({ sizeBytes: size }), Buffer.alloc(size), endOfArchive]), { level: 1 }),
    );
    const name = leftovers(root).find((path) => path.endsWith("diff/x"));
    const stat = statSync(join(root, name ?? "missing"));
    assert.deepEqual([stat.size, stat.blocks < 5000], [size, true]);
  });
});

test("no decompressor found through PATH is ever run", async () => {
  const directory = mkdtempSync(join(tmpdir(), "skiff-path-"));
  const marker = join(directory, "ran");
  const names = [
    "gzip",
    "gunzip",
    "unpigz",
    "pigz",
    "xz",
    "unxz",
    "zstd",
    "unzstd",
    "bzip2",
    "bunzip2",
    "tar",
  ];
  for (const name of names)
    writeFileSync(join(directory, name), `#!/bin/sh\ntouch ${marker}\n`, { mode: 0o755 });
  const tar = tarOf([{ path: "a", content: "1" }]);
  const foreign = ["xz", "bzip2"].map((program) => execFileSync(program, ["-c"], { input: tar }));
  const path = process.env["PATH"];
  process.env["PATH"] = `${directory}${delimiter}${path}`;
  try {
    spawnSync(names[2] ?? "");
    assert.ok(existsSync(marker), "naive: asked the PATH");
    rmSync(marker);
    await withSnapshotter(async (apply) => {
      for (const archive of [tar, gzipSync(tar), ...foreign]) await apply(archive);
      for (const archive of foreign) {
        await assert.rejects(apply(archive.subarray(0, 60)), { code: "bad-compression" });
      }
      await assert.rejects(apply(Buffer.from("LZIP\u0001000000000")), { code: "unsupported-compression" });
    });
    assert.equal(existsSync(marker), false);
  } finally {
    process.env["PATH"] = path;
    rmSync(directory, { recursive: true });
  }
});

const rounds = process.env["SKIFF_PROVE"] === undefined ? 1500 : 200_000;

test(`${rounds} mutated archives: a clear error or a tree, never damage, a crash or a leak`, () => {
  const seed = Buffer.concat([
    tarOf([
      { path: "d/", mode: 0o1777 },
      { path: "d/f", content: "content", xattrs: { "user.a": "1" }, mtimeNs: 123n },
      { path: "d/.wh.gone" },
      { path: "h", type: "link", link: "d/f" },
      { path: "l", link: "../../canary" },
      { path: "l/x", content: "x" },
      { path: "p".repeat(150), content: "y" },
      { path: "null", type: "char", device: [1, 3] },
    ]).subarray(0, -1024),
    ...(sparseTeras[2] ?? []).slice(1),
  ] as Buffer[]);
  const fds = (): number => readdirSync("/proc/self/fd").length;
  using scene = new Scene();
  const before = fds();
  const mutation = fc.record({
    flips: fc.array(fc.tuple(fc.nat(seed.length - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 6 }),
    cut: fc.option(fc.nat(seed.length)),
    swap: fc.option(fc.tuple(fc.nat(seed.length / 512 - 1), fc.nat(seed.length / 512 - 1))),
    repair: fc.boolean(),
  });
  fc.assert(
    fc.property(mutation, ({ flips, cut, swap, repair }) => {
      const bytes = Buffer.from(seed);
      for (const [at, value] of flips) bytes[at] = value;
      if (swap !== null) {
        const [a, b] = swap.map((index) => index * 512) as [number, number];
        const kept = Buffer.from(bytes.subarray(a, a + 512));
        bytes.copy(bytes, a, b, b + 512);
        kept.copy(bytes, b);
      }
      if (repair) for (const [at] of flips) repairChecksum(bytes, at - (at % 512));
      applyOurs(scene, { parts: [bytes.subarray(0, cut ?? bytes.length)] });
    }),
    { numRuns: rounds },
  );
  assert.deepEqual(scene.damage(), []);
  assert.equal(fds(), before);
});

function repairChecksum(bytes: Buffer, at: number): void {
  let sum = 8 * 32;
  for (let index = 0; index < 512; index += 1) if (index < 148 || index >= 156) sum += bytes[at + index] ?? 0;
  bytes.write(`${sum.toString(8).padStart(6, "0")}\0 `, at + 148, "latin1");
}
