import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface ProxiedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
}

export interface ProxyTurn {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly method: string;
  readonly path: string;
  /** How often this method was used on this kind of path before: `POST uploads`, `PUT uploads`, `PUT manifests`, … */
  readonly count: number;
  /** To the registry behind; `cutAt`: the request's body ends after so many bytes, with the connection. */
  forward(options?: { cutAt?: number; answer?: (headers: Record<string, unknown>) => void }): void;
}

/** In front of a real registry, spoiling what a script wants spoiled. */
export class PushProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #target: number;
  readonly seen: ProxiedRequest[] = [];
  /** Returns true when it has dealt with the request. */
  script: (turn: ProxyTurn) => boolean = () => false;

  private constructor(target: number) {
    this.#target = target;
    this.#server = createServer((incoming, response) => this.#handle(incoming, response));
  }

  static async start(targetPort: number): Promise<PushProxy> {
    const proxy = new PushProxy(targetPort);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  asked(method: string, part: string): ProxiedRequest[] {
    return this.seen.filter((seen) => seen.method === method && seen.path.includes(part));
  }

  #handle(incoming: IncomingMessage, response: ServerResponse): void {
    const { method = "", url: path = "", headers } = incoming;
    const part = path.includes("/uploads/") ? "uploads" : path.includes("/manifests/") ? "manifests" : path;
    const count = this.asked(method, part).length;
    this.seen.push({ method, path, headers });
    const forward: ProxyTurn["forward"] = (options) => this.#forward(incoming, response, options);
    if (!this.script({ request: incoming, response, method, path, count, forward })) forward();
  }

  #forward(
    incoming: IncomingMessage,
    response: ServerResponse,
    options: Parameters<ProxyTurn["forward"]>[0] = {},
  ): void {
    const { method, url: path, headers } = incoming;
    const sent = request(
      { host: "127.0.0.1", port: this.#target, method, path, headers, agent: false },
      (answer) => {
        const { ...copied } = answer.headers as Record<string, unknown>;
        options.answer?.(copied);
        response.writeHead(answer.statusCode ?? 500, copied as Record<string, string>);
        answer.pipe(response);
      },
    );
    sent.on("error", () => response.destroy());
    if (options.cutAt === undefined) {
      incoming.pipe(sent);
      return;
    }
    let left = options.cutAt;
    incoming.on("data", (chunk: Buffer) => {
      if (left <= 0) return;
      const piece = chunk.subarray(0, left);
      left -= piece.length;
      sent.write(piece);
      if (left > 0) return;
      // What was sent has to arrive before the break.
      setTimeout(() => {
        sent.destroy();
        incoming.destroy();
      }, 50);
    });
    incoming.on("error", () => {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
