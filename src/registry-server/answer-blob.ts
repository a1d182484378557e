import { type FileHandle, open } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { errnoOf } from "#base/errors.ts";
import { select } from "./conditional.ts";
import type { DiskRegistryStore } from "./disk-registry-store.ts";
import type { Exchange } from "./exchange.ts";
import { BodyBroken } from "./receive-body.ts";
import { registryDigest } from "./registry-digest.ts";
import { RegistryFault } from "./registry-fault.ts";
import type { RegistryDigest } from "./registry-store.ts";

/** A reader that takes nothing for so long is cut off. */
const readerIdleMs = 5 * 60_000;

/** Larger reads are faster; many readers at once hold less each. Two buffers a reader. */
function chunkBytesFor(readers: number): number {
  if (readers <= 16) return 1024 * 1024;
  return readers <= 128 ? 256 * 1024 : 64 * 1024;
}

export function digestOrFault(reference: string): RegistryDigest {
  const digest = registryDigest(reference);
  if (digest === undefined) {
    throw new RegistryFault(400, "DIGEST_INVALID", {
      message: "invalid or unsupported digest",
      detail: { digest: reference.slice(0, 200) },
    });
  }
  return digest;
}

/** Blobs: GET, HEAD, DELETE (OCI distribution spec, end-2 and end-10). */
export class BlobAnswers {
  readonly #store: DiskRegistryStore;
  #readers = 0;

  constructor(store: DiskRegistryStore) {
    this.#store = store;
  }

  async read(exchange: Exchange, repository: string, reference: string): Promise<void> {
    const digest = digestOrFault(reference);
    const link = this.#store.blobLinks.find(repository, digest);
    if (link === undefined) throw unknownBlob(digest);
    const { sizeBytes } = link;
    const etag = `"${digest}"`;
    const headers = {
      "Accept-Ranges": "bytes",
      "Cache-Control": "max-age=31536000",
      "Docker-Content-Digest": digest,
      Etag: etag,
    };
    const selection = select(exchange.request.headers, etag, sizeBytes, { ranges: !exchange.isHead });
    switch (selection.kind) {
      case "notModified":
        return exchange.send(304, headers);
      case "preconditionFailed":
        throw new RegistryFault(412, "UNSUPPORTED", { message: "If-Match names other content" });
      case "unsatisfiable":
        throw new RegistryFault(416, "SIZE_INVALID", {
          message: "range not satisfiable",
          headers: { ...headers, "Content-Range": `bytes */${sizeBytes}` },
        });
    }
    const type = { ...headers, "Content-Type": "application/octet-stream" };
    if (exchange.isHead || sizeBytes === 0)
      return exchange.send(200, { ...type, "Content-Length": sizeBytes });
    await using file = await this.#open(this.#store.blobLinks.pathOf(link), digest);
    const { start, end } = selection.kind === "range" ? selection : { start: 0, end: sizeBytes - 1 };
    const length = { ...type, "Content-Length": end - start + 1 };
    if (selection.kind === "whole") exchange.head(200, length);
    else exchange.head(206, { ...length, "Content-Range": `bytes ${start}-${end}/${sizeBytes}` });
    await this.#stream(exchange, file, start, end);
  }

  async #open(path: string, digest: RegistryDigest): Promise<FileHandle> {
    try {
      return await open(path, "r");
    } catch (error) {
      // Unlinked and swept between the look and here, or taken from the disk by somebody.
      if (errnoOf(error) === "ENOENT") throw unknownBlob(digest);
      throw error;
    }
  }

  /** Reads the next piece while the last one is on its way out; waits while the client takes nothing. */
  async #stream(exchange: Exchange, file: FileHandle, start: number, end: number): Promise<void> {
    const { response } = exchange;
    this.#readers += 1;
    response.setTimeout(readerIdleMs, () => response.destroy());
    try {
      const size = Math.min(chunkBytesFor(this.#readers), end - start + 1);
      const buffers = [Buffer.allocUnsafe(size), Buffer.allocUnsafe(size)] as const;
      const readAt = (position: number, turn: number): Promise<Buffer> =>
        readPiece(file, buffers[turn % 2]!, position, Math.min(size, end + 1 - position));
      let position = start;
      let piece = readAt(position, 0);
      for (let turn = 1; ; turn += 1) {
        const bytes = await piece;
        position += bytes.length;
        const sent = send(response, bytes);
        if (position > end) {
          exchange.bytesOut += await sent;
          break;
        }
        piece = readAt(position, turn);
        piece.catch(() => undefined);
        exchange.bytesOut += await sent;
      }
      response.end();
    } finally {
      this.#readers -= 1;
    }
  }

  async remove(exchange: Exchange, repository: string, reference: string): Promise<void> {
    const digest = digestOrFault(reference);
    if (!(await this.#store.blobLinks.remove(repository, digest))) throw unknownBlob(digest);
    exchange.send(202, { "Docker-Content-Digest": digest });
  }
}

function unknownBlob(digest: RegistryDigest): RegistryFault {
  return new RegistryFault(404, "BLOB_UNKNOWN", { detail: { digest } });
}

async function readPiece(
  file: FileHandle,
  buffer: Buffer,
  position: number,
  length: number,
): Promise<Buffer> {
  const { bytesRead } = await file.read(buffer, 0, length, position);
  if (bytesRead === 0) throw new Error("a blob is shorter than its row says");
  return buffer.subarray(0, bytesRead);
}

/**
 * Resolves when the kernel has the bytes, so that their buffer is free again. Node forgets the callback of an answer that
 * waits behind another one on a connection that breaks: hence the second way out.
 */
async function send(response: ServerResponse, bytes: Buffer): Promise<number> {
  let onClose: () => void = () => undefined;
  try {
    return await new Promise((resolve, reject) => {
      onClose = () => reject(new BodyBroken("the client went away"));
      response.once("close", onClose);
      if (response.destroyed) onClose();
      response.write(bytes, (error) => {
        if (error == null) resolve(bytes.length);
        else reject(error);
      });
    });
  } finally {
    response.off("close", onClose);
  }
}
