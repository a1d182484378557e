import { createHash, type Hash } from "node:crypto";
import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { DetectingDecompressor } from "#archive/compression.ts";
import type { TarEntry } from "#archive/tar-format.ts";
import { TarReader, type TarSink } from "#archive/tar-read.ts";
import { textOfBytes } from "#base/byte-string.ts";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { RingReader } from "#content/byte-ring.ts";
import { openArchive } from "./archive-format.ts";
import { cleanPath, joinPath, parentOf } from "./archive-path.ts";
import { abortCheck, type BundleJob } from "./layer-job.ts";
import type { BundleMember } from "./snapshotter.ts";

/** 127 layers have three members each in the oldest form: room for a hundred images. */
const membersMax = 50_000;
const chunkBytes = 1024 * 1024;

/**
 * Takes an archive of images apart: each regular member becomes a numbered file in a directory of ours, with its digest,
 * so that no name of the archive is ever a path. Links are told as names; nothing else is kept. Bounded by `limits`.
 */
export function runBundle(job: BundleJob, control: Int32Array): BundleMember[] {
  using resources = new DisposableStack();
  const sink = resources.use(new MemberSink(job.directory));
  const source = new RingReader(job.ring, abortCheck(control));
  const tar = new TarReader(sink, membersMax);
  const archive = resources.use(
    new DetectingDecompressor((head) => openArchive(head, (chunk) => tar.push(chunk))),
  );
  for (let chunk = source.read(chunkBytes); chunk !== undefined; chunk = source.read(chunkBytes)) {
    if (chunk === "failed")
      throw new EngineError("cancelled", "download failed", { code: "download-failed" });
    archive.push(chunk);
  }
  archive.finish();
  tar.finish();
  return [...sink.members.values()];
}

class MemberSink implements TarSink, Disposable {
  readonly members = new Map<string, BundleMember>();
  readonly #directory: string;
  #open:
    | { readonly fd: number; readonly hash: Hash; readonly path: string; readonly file: string }
    | undefined;
  #next = 0;
  #sizeBytes = 0;
  /** Of the open file. */
  #written = 0;

  constructor(directory: string) {
    this.#directory = directory;
  }

  entry(entry: TarEntry): void {
    const clean = cleanPath(entry.path);
    const path = textOfBytes(clean);
    if (path === "" || entry.type === "directory") return;
    if (this.members.size >= membersMax) {
      throw new EngineError("invalid", `archive has more than ${membersMax} files`, {
        code: "archive-limit",
      });
    }
    if (entry.type === "symlink" || entry.type === "link") {
      const from = entry.type === "symlink" && !entry.linkPath.startsWith("/") ? parentOf(clean) : "";
      const target = cleanPath(joinPath(from, entry.linkPath));
      this.members.set(path, { path, kind: "link", target: textOfBytes(target) });
      return;
    }
    if (entry.type !== "file") return;
    // A map of holes would have its zeros hashed, whatever their number.
    if (entry.sparse !== undefined) {
      throw new EngineError("invalid", "archive has a sparse file", { code: "bad-archive" });
    }
    this.#sizeBytes += entry.sizeBytes;
    if (this.#sizeBytes > limits.layerBytesMax) {
      throw new EngineError("invalid", "archive is too large", { code: "archive-limit" });
    }
    const file = join(this.#directory, String(this.#next));
    this.#next += 1;
    this.#open = { fd: openSync(file, "wx", 0o600), hash: createHash("sha256"), path, file };
  }

  data(chunk: Uint8Array): void {
    const open = this.#open;
    if (open === undefined) return;
    open.hash.update(chunk);
    let at = 0;
    while (at < chunk.length) at += writeSync(open.fd, chunk, at, chunk.length - at);
    this.#written += chunk.length;
  }

  end(): void {
    const open = this.#open;
    if (open === undefined) return;
    this.#open = undefined;
    closeSync(open.fd);
    const digest = `sha256:${open.hash.digest("hex")}`;
    this.members.set(open.path, {
      path: open.path,
      kind: "file",
      file: open.file,
      digest,
      sizeBytes: this.#written,
    });
    this.#written = 0;
  }

  [Symbol.dispose](): void {
    if (this.#open !== undefined) closeSync(this.#open.fd);
  }
}
