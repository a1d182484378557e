import { createServer } from "node:http";
import { listenAt } from "./serve-listen.ts";
import type { ListenAddress } from "./settings.ts";

/** Serves `/metrics` and `/healthz` at an address of its own, so that neither needs a password nor is reached by clients. */
export async function serveMetrics(
  address: ListenAddress,
  text: () => string,
): Promise<AsyncDisposable & { readonly listen: ListenAddress }> {
  const server = createServer({ headersTimeout: 5_000, requestTimeout: 5_000 }, (request, response) => {
    const path = request.url?.split("?")[0];
    const body = path === "/metrics" ? text() : path === "/healthz" ? "ok\n" : undefined;
    if (request.method !== "GET" && request.method !== "HEAD")
      response.writeHead(405, { allow: "GET, HEAD" }).end();
    else if (body === undefined) response.writeHead(404).end();
    else {
      const type = path === "/metrics" ? "text/plain; version=0.0.4; charset=utf-8" : "text/plain";
      response.writeHead(200, { "content-type": type, "content-length": Buffer.byteLength(body) }).end(body);
    }
  });
  server.maxConnections = 64;
  const listen = await listenAt(server, address);
  return {
    listen,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}
