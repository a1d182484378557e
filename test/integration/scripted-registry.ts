import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { tarOf } from "../peers/images.ts";

export interface StoredBlob {
  readonly digest: string;
  readonly bytes: Buffer;
}

export function blobOf(bytes: Uint8Array): StoredBlob {
  const hex = createHash("sha256").update(bytes).digest("hex");
  return { digest: `sha256:${hex}`, bytes: Buffer.from(bytes) };
}

/** A tar with one file of `sizeBytes` that does not compress. */
export function layerTar(name: string, sizeBytes: number): Buffer {
  const folder = mkdtempSync(join(tmpdir(), "skiff-layer-"));
  try {
    const content = Buffer.alloc(sizeBytes);
    // A cheap generator: the same name gives the same bytes.
    let state = createHash("sha256").update(name).digest().readUInt32LE(0) | 1;
    for (let at = 0; at + 4 <= sizeBytes; at += 4) {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      content.writeInt32LE(state, at);
    }
    writeFileSync(join(folder, name), content);
    return tarOf(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export interface ScriptedImage {
  readonly blobs: ReadonlyMap<string, Buffer>;
  readonly layers: readonly StoredBlob[];
  readonly config: StoredBlob;
  readonly manifest: StoredBlob;
}

export const ociManifest = "application/vnd.oci.image.manifest.v1+json";
export const ociIndex = "application/vnd.oci.image.index.v1+json";

export function imageOf(
  tars: readonly Buffer[],
  change: { config?: object; manifest?: object } = {},
): ScriptedImage {
  const blobs = new Map<string, Buffer>();
  const add = (bytes: Uint8Array): StoredBlob => {
    const blob = blobOf(bytes);
    blobs.set(blob.digest, blob.bytes);
    return blob;
  };
  const layers = tars.map((tar) => add(gzipSync(tar, { level: 1 })));
  const config = add(
    Buffer.from(
      JSON.stringify({
        architecture: "amd64",
        os: "linux",
        config: { Cmd: ["sh"] },
        rootfs: { type: "layers", diff_ids: tars.map((tar) => blobOf(tar).digest) },
        ...change.config,
      }),
    ),
  );
  const manifest = blobOf(
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: ociManifest,
        config: {
          mediaType: "application/vnd.oci.image.config.v1+json",
          digest: config.digest,
          size: config.bytes.length,
        },
        layers: layers.map(({ digest, bytes }) => ({
          mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
          digest,
          size: bytes.length,
        })),
        ...change.manifest,
      }),
    ),
  );
  return { blobs, layers, config, manifest };
}

export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

export interface Turn {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  /** How often this path was asked before. */
  readonly count: number;
  readonly body: string;
  /** Answers as an honest registry would. */
  honest(): void;
}

/** Returns true when it has answered. */
export type Script = (turn: Turn) => boolean | Promise<boolean>;

/** A registry on loopback whose misbehaviour is scripted, request by request. */
export class ScriptedRegistry implements AsyncDisposable {
  readonly #server: Server;
  readonly seen: SeenRequest[] = [];
  readonly manifests = new Map<string, { type: string; bytes: Buffer }>();
  readonly blobs = new Map<string, Buffer>();
  script: Script = () => false;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(
    make: (listener: (q: IncomingMessage, r: ServerResponse) => void) => Server = createServer,
  ): Promise<ScriptedRegistry> {
    let registry: ScriptedRegistry;
    const server = make((request, response) => {
      registry.#handle(request, response).catch((error: unknown) => response.destroy(error as Error));
    });
    registry = new ScriptedRegistry(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return registry;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  serve(name: string, image: ScriptedImage): void {
    for (const [digest, bytes] of image.blobs) this.blobs.set(digest, bytes);
    const entry = { type: ociManifest, bytes: image.manifest.bytes };
    this.manifests.set(name, entry);
    this.manifests.set(image.manifest.digest, entry);
  }

  /** Requests whose path contains the text. */
  asked(part: string): SeenRequest[] {
    return this.seen.filter(({ path }) => path.includes(part));
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks).toString("utf8");
    const path = request.url ?? "/";
    const count = this.seen.filter((other) => other.path === path).length;
    this.seen.push({ method: request.method ?? "", path, headers: request.headers, body });
    const url = new URL(path, `http://${this.address}`);
    const honest = (): void => this.#honest(request, response, url);
    if (!(await this.script({ request, response, url, count, body, honest }))) honest();
  }

  #honest(request: IncomingMessage, response: ServerResponse, url: URL): void {
    const { pathname } = url;
    const name = decodeURIComponent(pathname.split("/").at(-1) ?? "");
    if (pathname === "/v2/") {
      response.end("{}");
    } else if (pathname.includes("/manifests/")) {
      const found = this.manifests.get(name);
      if (found === undefined) sendError(response, 404, "MANIFEST_UNKNOWN", "manifest unknown");
      else response.writeHead(200, { "content-type": found.type }).end(found.bytes);
    } else if (pathname.includes("/blobs/")) {
      const bytes = this.blobs.get(name);
      if (bytes === undefined) sendError(response, 404, "BLOB_UNKNOWN", "blob unknown to registry");
      else sendBlob(request, response, bytes);
    } else sendError(response, 404, "NAME_UNKNOWN", "repository name not known to registry");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

export function sendError(
  response: ServerResponse,
  status: number,
  code: string,
  message: string,
  headers = {},
): void {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify({ errors: [{ code, message, detail: null }] }));
}

export function sendBlob(request: IncomingMessage, response: ServerResponse, bytes: Buffer): void {
  const from = /^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1];
  if (from === undefined) {
    response.writeHead(200, { "content-length": bytes.length }).end(bytes);
    return;
  }
  const rest = bytes.subarray(Number(from));
  response.writeHead(206, {
    "content-length": rest.length,
    "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}`,
  });
  response.end(rest);
}
