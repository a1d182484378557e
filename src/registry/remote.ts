import type { Readable } from "node:stream";
import { EngineError, messageOf } from "#base/errors.ts";
import type { Authorizer } from "./auth.ts";
import type { Endpoint } from "./endpoints.ts";
import { TransportError } from "./network-error.ts";
import { RegistryError, registryError } from "./registry-error.ts";
import { pause, retryDelay } from "./retry.ts";
import type { RegistryTiming } from "./timing.ts";
import { cancelled, discard, type HttpAnswer, readBody, type Transport } from "./transport.ts";

const errorBodyBytesMax = 256 * 1024;

export interface RemoteRequest {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "PATCH";
  /** Below `/v2/`, with its query; or a URL that the registry gave, to which credentials go only on its own origin. */
  readonly path: string | URL;
  /** Made anew for each attempt. */
  readonly body?: () => string | Uint8Array | Readable;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

/** One address of a registry with the authorization that was gained there. */
export class Remote {
  readonly endpoint: Endpoint;
  readonly #transport: Transport;
  readonly #authorizer: Authorizer;
  readonly #timing: RegistryTiming;
  #reached = false;

  constructor(transport: Transport, endpoint: Endpoint, authorizer: Authorizer, timing: RegistryTiming) {
    this.endpoint = endpoint;
    this.#transport = transport;
    this.#authorizer = authorizer;
    this.#timing = timing;
  }

  /** Something that speaks HTTP has answered here. */
  get reached(): boolean {
    return this.#reached;
  }

  /**
   * Asks `/v2/` whether a registry is there, as Docker does first: errors of the connection name this URL. A challenge
   * is taken up at the first real request. Throws `TransportError`.
   */
  async reach(signal: AbortSignal): Promise<void> {
    if (this.#reached) return;
    const url = new URL(`${this.endpoint.base}/v2/`);
    const answer = await this.#transport.send({
      method: "GET",
      url,
      verifyTls: this.endpoint.verifyTls,
      signal,
    });
    await discard(answer);
    this.#reached = true;
    // A server that a redirect led to cannot ask for the registry's credentials.
    const isOwn = answer.url.origin === url.origin;
    if (answer.status === 401 && isOwn && this.#authorizer.authorization === undefined) {
      await this.#answerChallenge(answer, undefined, "GET", signal);
    }
  }

  /** One request with authorization; only a 2xx comes back. Throws `RegistryError` or `TransportError`. */
  async once(request: RemoteRequest): Promise<HttpAnswer> {
    const base = new URL(this.endpoint.base);
    const url =
      typeof request.path === "string"
        ? new URL(`${base.href.replace(/\/$/, "")}/v2/${request.path}`)
        : request.path;
    const isOwn = url.origin === base.origin;
    for (let round = 0; ; round += 1) {
      const authorization = isOwn ? this.#authorizer.authorization : undefined;
      const answer = await this.#transport.send({
        method: request.method,
        url,
        verifyTls: isOwn ? this.endpoint.verifyTls : true,
        signal: request.signal,
        ...(request.body === undefined ? {} : { body: request.body() }),
        ...(request.headers === undefined ? {} : { headers: request.headers }),
        ...(authorization === undefined ? {} : { authorization }),
      });
      if (answer.status >= 200 && answer.status < 300) return answer;
      const body = await readBody(answer, errorBodyBytesMax, request.method).catch(() => Buffer.alloc(0));
      // A server that a redirect led to cannot ask for the registry's credentials.
      const own = isOwn && answer.url.origin === url.origin;
      if (answer.status !== 401 || !own || round >= 2) throw registryError(answer, body.toString("utf8"));
      const more = await this.#answerChallenge(answer, authorization, request.method, request.signal);
      if (!more) throw registryError(answer, body.toString("utf8"));
    }
  }

  async #answerChallenge(
    answer: HttpAnswer,
    used: string | undefined,
    method: string,
    signal: AbortSignal,
  ): Promise<boolean> {
    try {
      return await this.#authorizer.answer(answer, used, signal);
    } catch (error) {
      if (!(error instanceof EngineError) || error instanceof TransportError) throw error;
      if (error instanceof RegistryError && error.registryCode === "DENIED") throw error;
      const verb = method.slice(0, 1) + method.slice(1).toLowerCase();
      const url = `${answer.url.origin}${answer.url.pathname}`;
      throw new EngineError(error.kind, `${verb} "${url}": ${messageOf(error)}`, {
        code: error.code,
        cause: error,
      });
    }
  }

  /** As `once`, again after a pause when the registry is busy or the connection broke. For small idempotent requests. */
  async patiently(request: RemoteRequest): Promise<HttpAnswer> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.once(request);
      } catch (error) {
        if (request.signal.aborted) throw cancelled(request.signal);
        const wait = retryDelay(error, attempt, this.#timing);
        if (wait === undefined) throw error;
        await pause(wait, request.signal);
      }
    }
  }
}
