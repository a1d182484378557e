import { createHash } from "node:crypto";
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Server, Socket } from "node:net";
import type { ScriptedImage } from "../integration/scripted-registry.ts";
import { ociManifest, sendBlob, sendError } from "../integration/scripted-registry.ts";

/** What a request is for: faults are told where they happen by it. */
export type Kind =
  | "ping"
  | "token"
  | "manifest"
  | "config"
  | "layer"
  | "head"
  | "begin"
  | "upload"
  | "patch"
  | "status"
  | "put-manifest"
  | "other";

export interface FaultTurn {
  readonly kind: Kind;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly socket: Socket;
  readonly path: string;
  /** Of requests of this kind before. */
  readonly count: number;
  /** Empty while it has not been read: see `Fault.early`. */
  readonly body: Buffer;
  readonly registry: FaultRegistry;
  /** Answers as an honest registry does. */
  honest(): void;
}

export interface Fault {
  readonly at: Kind;
  /** How often; for ever without. */
  readonly times?: number;
  /** Before the request's body was read. */
  readonly early?: boolean;
  act(turn: FaultTurn): void;
}

export interface SeenByRegistry {
  readonly kind: Kind;
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

const digestOf = (bytes: Uint8Array): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/**
 * A registry in memory that is honest both ways but for the faults it is given. With `auth` it wants that: `bearer` issues
 * tokens itself, and each `renew()` makes the earlier ones worthless.
 */
export class FaultRegistry implements AsyncDisposable {
  readonly #server: Server;
  readonly blobs = new Map<string, Buffer>();
  /** By `<repository>:<tag or digest>`. */
  readonly manifests = new Map<string, Buffer>();
  readonly seen: SeenByRegistry[] = [];
  readonly #uploads = new Map<string, Buffer>();
  #configs = new Set<string>();
  #faults: { readonly fault: Fault; left: number }[] = [];
  #counts = new Map<Kind, number>();
  auth: "none" | "basic" | "bearer" = "none";
  realm = "";
  #token = 1;
  #nextUpload = 0;

  private constructor(make: (listener: (q: IncomingMessage, r: ServerResponse) => void) => Server) {
    this.#server = make((request, response) => {
      this.#handle(request, response).catch(() => response.destroy());
    });
  }

  static async start(
    make: (listener: (q: IncomingMessage, r: ServerResponse) => void) => Server = createServer,
  ): Promise<FaultRegistry> {
    const registry = new FaultRegistry(make);
    await new Promise<void>((resolve) => registry.#server.listen(0, "127.0.0.1", resolve));
    return registry;
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  serve(repository: string, image: ScriptedImage): void {
    for (const [digest, bytes] of image.blobs) this.blobs.set(digest, bytes);
    this.#configs.add(image.config.digest);
    this.manifests.set(`${repository}:latest`, image.manifest.bytes);
  }

  /** From now on; what was seen before is forgotten. */
  begin(faults: readonly Fault[]): void {
    this.#faults = faults.map((fault) => ({ fault, left: fault.times ?? Number.POSITIVE_INFINITY }));
    this.#counts = new Map();
    this.seen.length = 0;
    this.#token = 1;
    this.auth = "none";
    this.realm = `http://${this.address}/token`;
  }

  renew(): void {
    this.#token += 1;
  }

  of(kind: Kind): SeenByRegistry[] {
    return this.seen.filter((seen) => seen.kind === kind);
  }

  #kindOf({ method = "", url = "" }: IncomingMessage): Kind {
    const path = url.split("?")[0]!;
    if (path === "/v2/") return "ping";
    if (path === "/token") return "token";
    if (path.includes("/manifests/")) return method === "PUT" ? "put-manifest" : "manifest";
    if (path.includes("/uploads/")) {
      const kinds: Record<string, Kind> = { POST: "begin", PUT: "upload", PATCH: "patch", GET: "status" };
      return kinds[method] ?? "other";
    }
    if (!path.includes("/blobs/")) return "other";
    if (method === "HEAD") return "head";
    return this.#configs.has(path.split("/").at(-1)!) ? "config" : "layer";
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const kind = this.#kindOf(request);
    const count = this.#counts.get(kind) ?? 0;
    this.#counts.set(kind, count + 1);
    const path = request.url ?? "";
    const { method = "", headers, socket } = request;
    request.on("error", () => {});
    const entry = this.#faults.find(({ fault, left }) => fault.at === kind && left > 0);
    if (entry !== undefined) entry.left -= 1;
    const turn = (body: Buffer): FaultTurn => ({
      kind,
      request,
      response,
      socket,
      path,
      count,
      body,
      registry: this,
      honest: () => this.#honest(kind, request, response, body),
    });
    if (entry?.fault.early === true) {
      this.seen.push({ kind, method, path, headers, body: "" });
      entry.fault.act(turn(Buffer.alloc(0)));
      return;
    }
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    this.seen.push({ kind, method, path, headers, body: body.length > 4096 ? "" : body.toString() });
    if (entry === undefined) this.#honest(kind, request, response, body);
    else entry.fault.act(turn(body));
  }

  #refused(kind: Kind, request: IncomingMessage, response: ServerResponse): boolean {
    if (kind === "token" || this.auth === "none") return false;
    const { authorization = "" } = request.headers;
    const wanted =
      this.auth === "basic"
        ? `Basic ${Buffer.from("user:secret").toString("base64")}`
        : `Bearer token${this.#token}`;
    if (authorization === wanted) return false;
    const challenge =
      this.auth === "basic"
        ? 'Basic realm="r"'
        : `Bearer realm="${this.realm}",service="s",scope="repository:x:pull"`;
    sendError(response, 401, "UNAUTHORIZED", "authentication required", { "www-authenticate": challenge });
    return true;
  }

  #honest(kind: Kind, request: IncomingMessage, response: ServerResponse, body: Buffer): void {
    if (this.#refused(kind, request, response)) return;
    const url = new URL(request.url ?? "", "http://x");
    const name = decodeURIComponent(url.pathname.split("/").at(-1) ?? "");
    const repository = /^\/v2\/(.*)\/(?:manifests|blobs)\//.exec(url.pathname)?.[1] ?? "";
    if (kind === "ping") response.end("{}");
    else if (kind === "token") response.end(JSON.stringify({ token: `token${this.#token}` }));
    else if (kind === "manifest") {
      const bytes = this.manifests.get(`${repository}:${name}`);
      if (bytes === undefined) sendError(response, 404, "MANIFEST_UNKNOWN", "manifest unknown");
      else response.writeHead(200, { "content-type": ociManifest }).end(bytes);
    } else if (kind === "config" || kind === "layer" || kind === "head") {
      const bytes = this.blobs.get(name);
      if (bytes === undefined) sendError(response, 404, "BLOB_UNKNOWN", "blob unknown to registry");
      else if (kind === "head") response.writeHead(200, { "content-length": bytes.length }).end();
      else sendBlob(request, response, bytes);
    } else if (kind === "put-manifest" && !this.#hasAll(body)) {
      sendError(response, 400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry");
    } else if (kind === "put-manifest") {
      this.manifests.set(`${repository}:${name}`, body);
      response.writeHead(201, { "docker-content-digest": digestOf(body) }).end();
    } else this.#upload(kind, url, response, body);
  }

  #hasAll(manifest: Buffer): boolean {
    const { config, layers } = JSON.parse(manifest.toString()) as {
      config: { digest: string };
      layers: { digest: string }[];
    };
    return [config, ...layers].every(({ digest }) => this.blobs.has(digest));
  }

  #upload(kind: Kind, url: URL, response: ServerResponse, body: Buffer): void {
    if (kind === "begin") {
      this.#nextUpload += 1;
      const location = `${url.pathname}${this.#nextUpload}`;
      this.#uploads.set(location, Buffer.alloc(0));
      response.writeHead(202, { location }).end();
      return;
    }
    const there = this.#uploads.get(url.pathname);
    if (there === undefined) {
      sendError(response, 404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
      return;
    }
    const bytes = Buffer.concat([there, body]);
    const digest = url.searchParams.get("digest");
    if (kind !== "upload") {
      this.#uploads.set(url.pathname, bytes);
      const range = `0-${Math.max(0, bytes.length - 1)}`;
      response.writeHead(kind === "patch" ? 202 : 204, { location: url.pathname, range }).end();
    } else if (digest !== digestOf(bytes)) {
      sendError(response, 400, "DIGEST_INVALID", "provided digest did not match uploaded content");
    } else {
      this.#uploads.delete(url.pathname);
      this.blobs.set(digest, bytes);
      response.writeHead(201, { "docker-content-digest": digest }).end();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const server = this.#server as Server & { closeAllConnections(): void };
    server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
