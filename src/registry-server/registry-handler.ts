import type { IncomingMessage, ServerResponse } from "node:http";
import type { Log } from "#base/log.ts";
import { BlobAnswers } from "./answer-blob.ts";
import { ListAnswers } from "./answer-list.ts";
import { ManifestAnswers } from "./answer-manifest.ts";
import { UploadAnswers } from "./answer-upload.ts";
import type { DiskRegistryStore } from "./disk-registry-store.ts";
import { Exchange } from "./exchange.ts";
import { BodyBroken } from "./receive-body.ts";
import type { RegistryAccess, RegistryAction, RegistryOptions } from "./registry.ts";
import { RegistryFault } from "./registry-fault.ts";
import { type RequestTarget, requestTarget } from "./request-target.ts";

/** Which methods a route has, and what a client must be allowed to do for them. */
const methods: Readonly<Record<RequestTarget["route"], Readonly<Record<string, readonly RegistryAction[]>>>> =
  {
    unknown: {},
    base: { GET: [], HEAD: [] },
    catalog: { GET: ["catalog"] },
    tags: { GET: ["pull"] },
    referrers: { GET: ["pull"] },
    manifest: { GET: ["pull"], HEAD: ["pull"], PUT: ["pull", "push"], DELETE: ["delete"] },
    blob: { GET: ["pull"], HEAD: ["pull"], DELETE: ["delete"] },
    uploads: { POST: ["pull", "push"] },
    upload: {
      GET: ["pull", "push"],
      PATCH: ["pull", "push"],
      PUT: ["pull", "push"],
      DELETE: ["pull", "push"],
    },
  };

const changing: ReadonlySet<string> = new Set(["POST", "PUT", "PATCH", "DELETE"]);

/** From a request to its answer: what it is about, whether it may, and then the one that knows. */
export class RegistryHandler {
  readonly #options: RegistryOptions;
  readonly #log: Log;
  readonly #blobs: BlobAnswers;
  readonly #manifests: ManifestAnswers;
  readonly #uploads: UploadAnswers;
  readonly #lists: ListAnswers;
  readonly #closing = new AbortController();
  readonly #running = new Map<Exchange, Promise<void>>();

  constructor(store: DiskRegistryStore, options: RegistryOptions, log: Log) {
    this.#options = options;
    this.#log = log;
    this.#blobs = new BlobAnswers(store);
    this.#manifests = new ManifestAnswers(store);
    this.#uploads = new UploadAnswers(store);
    this.#lists = new ListAnswers(store);
  }

  handle(request: IncomingMessage, response: ServerResponse): void {
    const exchange = new Exchange(request, response);
    const { observe } = this.#options;
    if (observe !== undefined) exchange.watch(observe);
    this.#running.set(
      exchange,
      this.#serve(exchange).finally(() => this.#running.delete(exchange)),
    );
  }

  async #serve(exchange: Exchange): Promise<void> {
    try {
      if (this.#closing.signal.aborted) throw new RegistryFault(503, "UNAVAILABLE");
      await this.#answer(exchange);
    } catch (error) {
      const broken = error instanceof BodyBroken || exchange.response.destroyed;
      const status = exchange.fail(broken ? new RegistryFault(400, "BLOB_UPLOAD_INVALID") : error);
      if (status < 500) return;
      const { requestId, route, repository } = exchange;
      this.#log.error("a request failed", { requestId, route, repository, error });
    }
  }

  async #answer(exchange: Exchange): Promise<void> {
    const target = requestTarget(exchange.path);
    exchange.route = target.route;
    const repository = "repository" in target ? target.repository : undefined;
    exchange.repository = repository;
    const method = exchange.request.method ?? "";
    const actions = methods[target.route][method];
    await this.#authorize(exchange, {
      actions: actions ?? [],
      ...(repository === undefined ? {} : { repository }),
    });
    if (target.route === "unknown")
      throw new RegistryFault(404, "UNSUPPORTED", { message: "no such endpoint" });
    if (actions === undefined) {
      const allow = Object.keys(methods[target.route]).join(", ");
      throw new RegistryFault(405, "UNSUPPORTED", { headers: { Allow: allow } });
    }
    if (this.#options.readOnly === true && changing.has(method)) {
      throw new RegistryFault(405, "UNSUPPORTED", { message: "the registry is read-only" });
    }
    // A page that a browser has open reaches loopback, too. No registry client sends an origin.
    if (changing.has(method) && exchange.request.headers.origin !== undefined) {
      throw new RegistryFault(403, "DENIED", { message: "a web page may change nothing" });
    }
    await this.#dispatch(exchange, target, method);
  }

  async #authorize(exchange: Exchange, access: RegistryAccess): Promise<void> {
    const { authorize } = this.#options;
    if (authorize === undefined) return;
    const answer = await authorize(exchange.request, access);
    if (answer.ok) exchange.user = answer.user;
    else {
      const { status, headers } = answer;
      throw new RegistryFault(status, status === 401 ? "UNAUTHORIZED" : "DENIED", { headers });
    }
  }

  readonly #mayPull =
    (exchange: Exchange) =>
    async (repository: string): Promise<boolean> => {
      const { authorize } = this.#options;
      if (authorize === undefined) return true;
      return (await authorize(exchange.request, { repository, actions: ["pull"] })).ok;
    };

  async #dispatch(exchange: Exchange, target: RequestTarget, method: string): Promise<void> {
    switch (target.route) {
      case "base":
        return exchange.json(200, {}, {});
      case "catalog":
        return this.#lists.catalog(exchange);
      case "tags":
        return this.#lists.tags(exchange, target.repository);
      case "referrers":
        return await this.#lists.referrers(exchange, target.repository, target.reference);
      case "blob":
        if (method === "DELETE")
          return await this.#blobs.remove(exchange, target.repository, target.reference);
        return await this.#blobs.read(exchange, target.repository, target.reference);
      case "manifest":
        return await this.#manifest(exchange, target.repository, target.reference, method);
      case "uploads":
        return await this.#uploads.begin(exchange, target.repository, this.#mayPull(exchange));
      case "upload":
        return await this.#upload(exchange, target.repository, target.id, method);
    }
  }

  async #manifest(exchange: Exchange, repository: string, reference: string, method: string): Promise<void> {
    if (method === "PUT") {
      await this.#manifests.put(exchange, repository, reference, this.#closing.signal);
    } else if (method === "DELETE") await this.#manifests.remove(exchange, repository, reference);
    else await this.#manifests.read(exchange, repository, reference);
  }

  async #upload(exchange: Exchange, repository: string, id: string, method: string): Promise<void> {
    if (method === "GET") await this.#uploads.status(exchange, repository, id);
    else if (method === "PATCH") await this.#uploads.append(exchange, repository, id);
    else if (method === "PUT") await this.#uploads.finish(exchange, repository, id);
    else await this.#uploads.cancel(exchange, repository, id);
  }

  /** New requests are refused, bodies on their way either way broken off; resolves when nothing runs any more. */
  async close(): Promise<void> {
    this.#closing.abort();
    for (const { response } of this.#running.keys()) if (response.headersSent) response.destroy();
    await Promise.all(this.#running.values());
  }
}
