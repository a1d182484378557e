import { randomUUID } from "node:crypto";
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from "node:http";
import type { Observe, RegistryRoute } from "./registry.ts";
import { faultOf } from "./registry-fault.ts";

/** A client's own id for a request is taken over when it looks like one. */
const requestIdPattern = /^[\w.:-]{1,128}$/;
/** The rest of a body that nobody wants is read away up to here, so that the client sees the answer; then it is cut off. */
const unwantedBytesMax = 8 * 1024 * 1024;
const unwantedMsMax = 10_000;

/** One request and its answer. */
export class Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly requestId: string;
  readonly path: string;
  readonly #search: string;
  readonly #startedAt = performance.now();
  #query: URLSearchParams | undefined;
  route: RegistryRoute = "unknown";
  repository: string | undefined;
  user: string | undefined;
  bytesIn = 0;
  bytesOut = 0;

  constructor(request: IncomingMessage, response: ServerResponse) {
    this.request = request;
    this.response = response;
    const id = request.headers["x-request-id"];
    this.requestId = typeof id === "string" && requestIdPattern.test(id) ? id : randomUUID();
    const url = request.url ?? "/";
    const mark = url.indexOf("?");
    this.path = mark === -1 ? url : url.slice(0, mark);
    this.#search = mark === -1 ? "" : url.slice(mark + 1);
  }

  get query(): URLSearchParams {
    this.#query ??= new URLSearchParams(this.#search);
    return this.#query;
  }

  get isHead(): boolean {
    return this.request.method === "HEAD";
  }

  readonly countIn = (bytes: number): void => {
    this.bytesIn += bytes;
  };

  /** Status and headers, with what every answer carries. */
  head(status: number, headers: OutgoingHttpHeaders): void {
    this.response.writeHead(status, {
      ...headers,
      "Docker-Distribution-Api-Version": "registry/2.0",
      "X-Content-Type-Options": "nosniff",
      "X-Request-Id": this.requestId,
    });
  }

  /** A whole answer. The body of a HEAD is only measured. */
  send(status: number, headers: OutgoingHttpHeaders, body?: Buffer): void {
    // 204 and 304 have no body, and hence no length (RFC 9110, section 8.6).
    const length = status === 204 || status === 304 ? {} : { "Content-Length": body?.length ?? 0 };
    this.head(status, { ...length, ...headers });
    const bytes = body === undefined || this.isHead ? undefined : body;
    this.bytesOut += bytes?.length ?? 0;
    if (this.#bodyIsUnread()) {
      // Ending the answer now could close the connection: the client, still sending, would see a reset and no answer.
      if (bytes === undefined) this.response.flushHeaders();
      else this.response.write(bytes);
      this.#readAway();
    } else this.response.end(bytes);
  }

  #bodyIsUnread(): boolean {
    const { headers, complete, destroyed } = this.request;
    const hasBody = headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
    return hasBody && !complete && !destroyed;
  }

  json(status: number, headers: OutgoingHttpHeaders, value: unknown): void {
    this.send(
      status,
      { "Content-Type": "application/json", ...headers },
      Buffer.from(`${JSON.stringify(value)}\n`),
    );
  }

  /** Answers an error, or cuts an answer off that has begun. Returns the status that it stands for. */
  fail(error: unknown): number {
    const fault = faultOf(error);
    if (this.response.headersSent) this.response.destroy();
    else if (!this.response.destroyed) {
      this.send(fault.status, { "Content-Type": "application/json", ...fault.headers }, fault.body());
    }
    return fault.status;
  }

  /** Reads the rest of a body away, within bounds, and then ends the answer. */
  #readAway(): void {
    const { request, response } = this;
    let unwanted = 0;
    const timer = setTimeout(() => request.destroy(), unwantedMsMax);
    timer.unref();
    request.on("data", (chunk: Buffer) => {
      unwanted += chunk.length;
      this.bytesIn += chunk.length;
      if (unwanted > unwantedBytesMax) request.destroy();
    });
    request.once("end", () => response.end());
    request.once("close", () => clearTimeout(timer));
    request.resume();
  }

  /** Tells the observer when the exchange is over, however it ends. */
  watch(observe: Observe): void {
    // The address is gone when the connection is.
    const remote = this.request.socket.remoteAddress ?? "";
    this.response.once("close", () => {
      const { request, response } = this;
      const userAgent = request.headers["user-agent"];
      observe({
        method: request.method ?? "",
        url: request.url ?? "",
        route: this.route,
        ...(this.repository === undefined ? {} : { repository: this.repository }),
        status: response.headersSent ? response.statusCode : 0,
        bytesIn: this.bytesIn,
        bytesOut: this.bytesOut,
        milliseconds: performance.now() - this.#startedAt,
        ...(this.user === undefined ? {} : { user: this.user }),
        remote,
        ...(userAgent === undefined ? {} : { userAgent }),
        requestId: this.requestId,
      });
    });
  }
}
