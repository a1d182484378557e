import type { IncomingHttpHeaders } from "node:http";
import { Readable } from "node:stream";
import type { Dispatcher } from "undici";
import { EngineError } from "#base/errors.ts";
import { answerHeaders } from "./answer-headers.ts";
import { guardedLookup, isLinkLocal } from "./link-local.ts";
import { TransportError, transportError } from "./network-error.ts";
import { watchRate } from "./rate-watch.ts";
import type { RegistryTiming } from "./timing.ts";

type Undici = typeof import("./http-library.ts");

export interface TransportConfig {
  readonly userAgent: string;
  readonly timing: RegistryTiming;
  /** PEM texts for a registry's `host:port`, as Docker keeps them in `certs.d`. */
  readonly certificatesFor?: (host: string) => { ca?: string; cert?: string; key?: string } | undefined;
  readonly proxy?: { readonly http?: string; readonly https?: string; readonly noProxy?: string };
}

export interface HttpRequest {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "PATCH";
  readonly url: URL;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent to the URL's own origin only: dropped as soon as a redirect leaves it. */
  readonly authorization?: string;
  /** A stream is sent with the `content-length` among the headers; how long it may take is then the caller's to watch. */
  readonly body?: string | Uint8Array | Readable;
  readonly verifyTls: boolean;
  readonly signal: AbortSignal;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Dispatcher.ResponseData["body"];
  /** Where the answer came from in the end. */
  readonly url: URL;
  /** How long the body may take. */
  readonly timing: RegistryTiming;
}

/** Docker Hub needs one hop, cloud stores two. */
const redirectsMax = 10;
const redirectStatuses: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/**
 * HTTP for the registry client: pooled connections, timeouts, redirects that never carry credentials to another origin,
 * never fall from https to http, and never reach a link-local address. No retry here: callers know what may be repeated.
 */
export class Transport implements AsyncDisposable {
  readonly #config: TransportConfig;
  readonly #agents = new Map<string, Dispatcher>();

  constructor(config: TransportConfig) {
    this.#config = config;
  }

  /** Sends, follows redirects of GET and HEAD. Throws `TransportError` when there is no answer. */
  async send(outgoing: HttpRequest): Promise<HttpAnswer> {
    let url = outgoing.url;
    let authorization = outgoing.authorization;
    for (let hops = 0; ; hops += 1) {
      const answer = await this.#exchange(outgoing, url, authorization);
      const location = answer.headers.location;
      if (!redirectStatuses.has(answer.status) || location === undefined) return answer;
      // What carries a body is not sent twice, nor elsewhere than its caller meant.
      if (outgoing.method !== "GET" && outgoing.method !== "HEAD") return answer;
      await discard(answer);
      if (hops >= redirectsMax) {
        throw new TransportError(`${verb(outgoing)}: stopped after ${redirectsMax} redirects`, false);
      }
      const next = this.#redirectTarget(outgoing, url, location);
      if (next.origin !== url.origin) authorization = undefined;
      url = next;
    }
  }

  #redirectTarget(outgoing: HttpRequest, from: URL, location: string): URL {
    let next: URL;
    try {
      next = new URL(location, from);
    } catch (cause) {
      throw new TransportError(`${verb(outgoing)}: failed to parse Location header`, false, cause);
    }
    if (next.protocol !== "https:" && next.protocol !== "http:") {
      throw new TransportError(`${verb(outgoing)}: redirect to unsupported protocol scheme`, false);
    }
    if (from.protocol === "https:" && next.protocol === "http:") {
      throw new TransportError(`${verb(outgoing)}: refusing a redirect from https to http`, false);
    }
    next.username = "";
    next.password = "";
    return next;
  }

  async #exchange(outgoing: HttpRequest, url: URL, authorization: string | undefined): Promise<HttpAnswer> {
    if (isLinkLocal(url.hostname) && url.host !== outgoing.url.host) {
      throw new TransportError(`${verb(outgoing)}: refusing to connect to a link-local address`, false);
    }
    const headers: Record<string, string> = {
      "user-agent": this.#config.userAgent,
      "accept-encoding": "identity",
      ...outgoing.headers,
    };
    if (authorization !== undefined) headers["authorization"] = authorization;
    outgoing.signal.throwIfAborted();
    // Loaded by the first pull: it is 13 MB of memory that a daemon without one does not need.
    const undici = await import("./http-library.ts");
    try {
      const answer = await undici.request(url, {
        method: outgoing.method,
        headers,
        body: outgoing.body ?? null,
        ...(outgoing.body instanceof Readable ? { headersTimeout: 0 } : {}),
        signal: outgoing.signal,
        dispatcher: this.#agentFor(undici, url, outgoing.verifyTls),
      });
      // A body that nobody reads to its end may fail after its reader left.
      answer.body.on("error", () => {});
      return {
        status: answer.statusCode,
        headers: headersOf(answer, verb(outgoing)),
        body: answer.body,
        url,
        timing: this.#config.timing,
      };
    } catch (error) {
      if (outgoing.signal.aborted) throw cancelled(outgoing.signal);
      throw transportError(outgoing.method, url, error);
    }
  }

  #agentFor(undici: Undici, url: URL, verifyTls: boolean): Dispatcher {
    const certificates = url.protocol === "https:" ? this.#config.certificatesFor?.(url.host) : undefined;
    const key = certificates === undefined ? String(verifyTls) : `${verifyTls} ${url.host}`;
    const known = this.#agents.get(key);
    if (known !== undefined) return known;
    const { timing, proxy } = this.#config;
    const options = {
      headersTimeout: timing.headersMs,
      bodyTimeout: timing.idleMs,
      keepAliveTimeout: 20_000,
      connections: 16,
      allowH2: false,
      connect: {
        timeout: timing.connectMs,
        rejectUnauthorized: verifyTls,
        lookup: guardedLookup,
        ...certificates,
      },
    };
    const agent =
      proxy === undefined
        ? new undici.Agent(options)
        : new undici.EnvHttpProxyAgent({
            ...options,
            httpProxy: proxy.http ?? "",
            httpsProxy: proxy.https ?? "",
            noProxy: proxy.noProxy ?? "",
          });
    this.#agents.set(key, agent);
    return agent;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const agents = [...this.#agents.values()];
    this.#agents.clear();
    await Promise.all(agents.map((agent) => agent.destroy()));
  }
}

function verb(outgoing: HttpRequest): string {
  const name = outgoing.method.slice(0, 1) + outgoing.method.slice(1).toLowerCase();
  return `${name} "${outgoing.url.origin}${outgoing.url.pathname}"`;
}

/** What a cancelled request throws. */
export function cancelled(signal: AbortSignal): EngineError {
  return signal.reason instanceof EngineError
    ? signal.reason
    : new EngineError("cancelled", "context canceled", { cause: signal.reason });
}

function headersOf({ headers, body }: Dispatcher.ResponseData, what: string): IncomingHttpHeaders {
  try {
    return answerHeaders(headers, what);
  } catch (error) {
    body.destroy();
    throw error;
  }
}

/** Reads a small body away so that the connection can be used again; a large or a slow one closes it. */
export async function discard({ body, timing }: HttpAnswer): Promise<void> {
  await body.dump({ limit: 64 * 1024, signal: AbortSignal.timeout(timing.idleMs) }).catch(() => {});
}

/** A whole body within a bound. Throws `TransportError` for a longer or a broken one. */
export async function readBody(answer: HttpAnswer, bytesMax: number, method = "GET"): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  const rate = watchRate(answer.body, answer.timing);
  try {
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      length += chunk.length;
      rate.seen = length;
      if (length > bytesMax) break;
      chunks.push(chunk);
    }
  } catch (error) {
    throw transportError(method, answer.url, error);
  } finally {
    rate.stop();
  }
  if (length > bytesMax) {
    throw new TransportError(`response of ${answer.url.origin} is larger than ${bytesMax} bytes`, false);
  }
  return Buffer.concat(chunks);
}
