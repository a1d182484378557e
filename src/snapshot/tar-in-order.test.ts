import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { ChunkSink } from "#archive/chunk-sink.ts";
import type { TarEntry } from "#archive/tar-format.ts";
import { type ByteString, bytesOfText } from "#base/byte-string.ts";
import { openRoot } from "#sys/beneath.ts";
import { closeFd } from "#sys/files.ts";
import { LayerApplier } from "./layer-apply.ts";
import { LayerOutput } from "./layer-output.ts";
import { TarInOrder } from "./tar-in-order.ts";
import { writeTreeTar } from "./tree-tar.ts";

interface Made {
  /** sha256 of the tar written beside the layer; undefined where it does not count. */
  readonly inOrder: string | undefined;
  /** sha256 of the layer packed again. */
  readonly packed: string;
}

function entryOf(path: string, more: Partial<TarEntry> = {}): TarEntry {
  return {
    path: bytesOfText(path),
    type: "file",
    mode: 0o644,
    uid: 0,
    gid: 0,
    sizeBytes: 0,
    mtimeNs: 1_700_000_000_000_000_000n,
    linkPath: "" as ByteString,
    deviceMajor: 0,
    deviceMinor: 0,
    ...more,
  };
}

/** Makes a layer of the entries; files are filled with as many bytes as their entries say. */
function make(entries: readonly TarEntry[]): Made {
  const directory = mkdtempSync(join(tmpdir(), "skiff-in-order-"));
  const rootFd = openRoot(directory);
  try {
    const hash = createHash("sha256");
    using applier = new LayerApplier(rootFd);
    const tar = new TarInOrder((chunk) => hash.update(chunk));
    const output = new LayerOutput(applier, tar, () => {});
    for (const entry of entries) {
      output.entry(entry);
      if (entry.type === "file") output.data(Buffer.alloc(entry.sizeBytes, entry.path));
    }
    applier.complete();
    const inOrder = tar.finish(rootFd) ? hash.digest("hex") : undefined;
    return { inOrder, packed: packed(rootFd) };
  } finally {
    closeFd(rootFd);
    rmSync(directory, { recursive: true });
  }
}

function packed(rootFd: number): string {
  const hash = createHash("sha256");
  const chunk = Buffer.alloc(64 * 1024);
  const sink = new ChunkSink(
    () => chunk,
    (bytes) => hash.update(chunk.subarray(0, bytes)),
  );
  writeTreeTar(rootFd, sink, { below: "anything", still: true });
  return hash.digest("hex");
}

const directory = (path: string, more: Partial<TarEntry> = {}): TarEntry =>
  entryOf(path, { type: "directory", mode: 0o755, ...more });

test("a layer made in order is not read again, and its tar is what packing it gives", () => {
  const { inOrder, packed } = make([
    directory("a", { mode: 0o1777, uid: 1000 }),
    directory("a.b"),
    entryOf("a.b/empty"),
    entryOf("a.b/large", { sizeBytes: 700_000, mode: 0o4755, gid: 65_536 }),
    directory("a0"),
    directory("a0/deep"),
    entryOf("a0/deep/ü", { sizeBytes: 5, mtimeNs: 1_700_000_000_123_456_789n }),
    entryOf("a0/z", { type: "symlink", linkPath: bytesOfText("../ü"), mode: 0o644 }),
    entryOf("b", { sizeBytes: 512, mtimeNs: 0n }),
  ]);
  assert.equal(inOrder, packed);
});

test("what is out of order, or more than an entry says, is packed when it is whole", () => {
  const cases: Readonly<Record<string, readonly TarEntry[]>> = {
    names: [entryOf("b"), entryOf("a")],
    twice: [entryOf("a"), entryOf("a", { mode: 0o600 })],
    // In a tar `a` and all below it come before `a.b`.
    directories: [directory("a"), directory("a.b"), entryOf("a/x")],
    "a name below that was passed": [directory("a"), entryOf("a/y"), entryOf("a/x")],
    links: [entryOf("a"), entryOf("b", { type: "link", linkPath: bytesOfText("a") })],
    fifos: [entryOf("a", { type: "fifo" })],
    attributes: [entryOf("a", { xattrs: new Map([["user.x", Buffer.from("1")]]) })],
    whiteouts: [entryOf(".wh.gone")],
  };
  for (const [what, entries] of Object.entries(cases)) assert.equal(make(entries).inOrder, undefined, what);
});

test("times that the file system does not keep are noticed", () => {
  // ext4 ends in 2446; others keep more.
  const { inOrder, packed } = make([entryOf("a", { mtimeNs: 1_000_000_000_000n * 1_000_000_000n })]);
  if (inOrder !== undefined) assert.equal(inOrder, packed);
});
