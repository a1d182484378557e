import { isRepositoryPath } from "#wire/reference.ts";
import { digestOrFault } from "./answer-blob.ts";
import type { DiskRegistryStore } from "./disk-registry-store.ts";
import type { Exchange } from "./exchange.ts";
import { registryDigest } from "./registry-digest.ts";
import { RegistryFault } from "./registry-fault.ts";
import type { RegistryDigest } from "./registry-store.ts";
import { type ChunkRange, type FinishedUpload, OutOfOrder, type Upload } from "./uploads.ts";

/** Advice to clients that send in chunks: smaller ones are taken, but each costs a round trip. */
const chunkBytesAdvised = 64 * 1024;
/** Repositories that are asked for a blob to mount when the client names none. */
const holdersAskedMax = 8;

/** Whether the client may pull from a repository. */
export type MayPull = (repository: string) => Promise<boolean>;

function locationOf(upload: Upload): string {
  return `/v2/${upload.repository}/blobs/uploads/${upload.id}`;
}

/** How far an upload is. `0-0` stands for nothing and for one byte, as Docker's registry has it. */
function statusHeaders(upload: Upload): Record<string, string> {
  return {
    Location: locationOf(upload),
    Range: `0-${Math.max(0, upload.sizeBytes - 1)}`,
    "Docker-Upload-UUID": upload.id,
  };
}

/** Uploads and mounts (OCI distribution spec, end-4, end-5, end-6, end-11, end-13, and the cancel). */
export class UploadAnswers {
  readonly #store: DiskRegistryStore;

  constructor(store: DiskRegistryStore) {
    this.#store = store;
  }

  async begin(exchange: Exchange, repository: string, mayPull: MayPull): Promise<void> {
    const { query } = exchange;
    const mount = registryDigest(query.get("mount"));
    if (mount !== undefined && (await this.#mount(repository, mount, query.get("from"), mayPull))) {
      return created(exchange, repository, mount);
    }
    const whole = query.get("digest");
    if (whole !== null) {
      const digest = digestOrFault(whole);
      const take = (finished: FinishedUpload) => this.#take(repository, digest, finished);
      await this.#store.uploads.whole(repository, exchange.request, digest, exchange.countIn, take);
      return created(exchange, repository, digest);
    }
    const upload = await this.#store.uploads.begin(repository);
    exchange.send(202, { ...statusHeaders(upload), "OCI-Chunk-Min-Length": chunkBytesAdvised });
  }

  /** Without a source any repository will do that the client may pull from. */
  async #mount(
    repository: string,
    digest: RegistryDigest,
    from: string | null,
    mayPull: MayPull,
  ): Promise<boolean> {
    const sources =
      from === null || from === "" ? this.#store.blobLinks.holders(digest, holdersAskedMax) : [from];
    for (const source of sources) {
      if (!isRepositoryPath(source) || !(await mayPull(source))) continue;
      if (await this.#store.blobLinks.mount(source, repository, digest)) return true;
    }
    return false;
  }

  async #take(repository: string, digest: RegistryDigest, finished: FinishedUpload): Promise<void> {
    await this.#store.blobLinks.add(repository, { ...finished, digest }, finished.also);
  }

  async status(exchange: Exchange, repository: string, id: string): Promise<void> {
    const upload = this.#store.uploads.find(repository, id);
    await this.#store.uploads.settled(upload);
    exchange.send(204, statusHeaders(upload));
  }

  async append(exchange: Exchange, repository: string, id: string): Promise<void> {
    const upload = this.#store.uploads.find(repository, id);
    await inOrder(async () => {
      await this.#store.uploads.append(upload, exchange.request, rangeOf(exchange, upload), exchange.countIn);
    });
    exchange.send(202, statusHeaders(upload));
  }

  async finish(exchange: Exchange, repository: string, id: string): Promise<void> {
    const upload = this.#store.uploads.find(repository, id);
    const digest = digestOrFault(exchange.query.get("digest") ?? "");
    const take = (finished: FinishedUpload) => this.#take(repository, digest, finished);
    await inOrder(async () => {
      const range = rangeOf(exchange, upload);
      await this.#store.uploads.finish(upload, exchange.request, range, digest, exchange.countIn, take);
    });
    created(exchange, repository, digest);
  }

  async cancel(exchange: Exchange, repository: string, id: string): Promise<void> {
    await this.#store.uploads.cancel(this.#store.uploads.find(repository, id));
    exchange.send(204, {});
  }
}

function created(exchange: Exchange, repository: string, digest: RegistryDigest): void {
  exchange.send(201, {
    Location: `/v2/${repository}/blobs/${digest}`,
    "Docker-Content-Digest": digest,
  });
}

/** `Content-Range: <first>-<last>`; `bytes first-last/…`, as HTTP has it elsewhere, is taken too. */
function rangeOf(exchange: Exchange, upload: Upload): ChunkRange {
  const { headers } = exchange.request;
  const text = headers["content-range"];
  if (text === undefined) return {};
  const match = /^(?:bytes[ =])?(\d{1,15})-(\d{1,15})(?:\/(?:\d{1,15}|\*))?$/.exec(text.trim());
  const start = Number(match?.[1]);
  const lengthBytes = Number(match?.[2]) - start + 1;
  // An empty last chunk has no range that HTTP could write; some clients write `n-(n-1)`.
  if (match === null || lengthBytes < 0) throw new OutOfOrder(upload);
  const declared = headers["content-length"];
  if (
    declared !== undefined &&
    Number(declared) !== lengthBytes &&
    !(declared === "0" && lengthBytes === 1)
  ) {
    throw new RegistryFault(400, "SIZE_INVALID", { message: "Content-Range and Content-Length differ" });
  }
  return { start, ...(declared === "0" ? {} : { lengthBytes }) };
}

async function inOrder(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof OutOfOrder)) throw error;
    throw new RegistryFault(416, "BLOB_UPLOAD_INVALID", {
      message: error.message,
      headers: statusHeaders(error.upload),
    });
  }
}
